"""Tar files, header by header.

The standard library's reader keeps whole extended headers in memory, however
long they say they are, and gives links and sparse files a meaning. Here a
member is a name, a mode and bytes, or it is refused.
"""

import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from batches.archive.budget import Budget
from batches.archive.members import CHUNK_BYTES, Member, not_a_file
from batches.archive.problems import Unreadable

BLOCK_BYTES = 512
END = bytes(BLOCK_BYTES)
MAX_EXTENDED_BYTES = 1024 * 1024
MAX_PADDING_BYTES = 1024 * 1024

LONG_NAME, LONG_LINK, EXTENDED, GLOBAL = b"L", b"K", b"x", b"g"
FILES, FOLDER = (b"0", b"\0", b"7"), b"5"
REFUSED = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a FIFO",
    b"S": "a sparse file",
}

RECORD = re.compile(rb"([1-9][0-9]{0,7}) ([^=]+)=")
DIGITS = re.compile(rb"[0-9]{1,20}")

DAMAGED = "is damaged: a tar header makes no sense; pack it again"
CUT_OFF = "is cut off; upload it again"


class Source(Protocol):
    def read(self, size: int, /) -> bytes: ...


@dataclass
class Extension:
    """What extended headers say about the next member."""

    name: bytes | None = None
    size: int | None = None
    is_sparse: bool = False
    seen: set[bytes] = field(default_factory=set)


def is_header(block: bytes) -> bool:
    """Whether this is a tar header, by its checksum; old tars added up signed bytes."""
    if len(block) < BLOCK_BYTES or block == END:
        return block == END
    # The checksum is taken with blanks where it stands itself.
    summed = block[:148] + b" " * 8 + block[156:BLOCK_BYTES]
    unsigned = sum(summed)
    signed = unsigned - 256 * sum(byte > 127 for byte in summed)
    return number(block[148:156]) in (unsigned, signed)


def number(text: bytes) -> int | None:
    """A number as tar writes it: octal digits or, marked by the first bit, binary."""
    if text[:1] in (b"\x80", b"\xff"):
        return int.from_bytes(text[1:], "big") - (256 ** (len(text) - 1) if text[0] == 0xFF else 0)
    digits = text.partition(b"\0")[0].strip(b" ")
    if digits.strip(b"01234567"):
        return None
    return int(digits or b"0", 8)


def members(source: Source, budget: Budget) -> Iterator[Member]:
    """The members of a tar file, in its order. Raises ``Unreadable`` from where it is broken."""
    tar = Tar(source)
    extension = Extension()
    while (header := tar.block()) != END:
        if not is_header(header):
            raise Unreadable(DAMAGED)
        kind = header[156:157]
        if kind in (LONG_NAME, LONG_LINK, EXTENDED, GLOBAL):
            if kind in extension.seen:
                raise Unreadable(DAMAGED)
            extend(extension, kind, tar.extended(size_of(header), budget))
            extension.seen.add(kind)
        else:
            yield tar.member(header, extension)
            extension = Extension()
    if extension.seen - {GLOBAL}:
        raise Unreadable(DAMAGED)
    tar.finish()


def size_of(header: bytes) -> int:
    size = number(header[124:136])
    if size is None or size < 0:
        raise Unreadable(DAMAGED)
    return size


def extend(extension: Extension, kind: bytes, data: bytes) -> None:
    """Take over what an extended header says, as far as it matters here."""
    if kind == LONG_NAME:
        extension.name = data.partition(b"\0")[0]
    if kind not in (EXTENDED, GLOBAL):
        return
    for key, value in records(data):
        if key.startswith(b"GNU.sparse."):
            extension.is_sparse = True
        elif key not in (b"path", b"size"):
            continue
        elif kind == GLOBAL:
            raise Unreadable("gives all its members one name or size; pack it again")
        elif key == b"path":
            extension.name = value
        elif DIGITS.fullmatch(value):
            extension.size = int(value)
        else:
            raise Unreadable(DAMAGED)


def records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The key and value of each line, as "length key=value"."""
    place = 0
    while place < len(data):
        start = RECORD.match(data, place)
        end = place + int(start[1]) if start else 0
        if start is None or not start.end() < end <= len(data) or data[end - 1 : end] != b"\n":
            raise Unreadable(DAMAGED)
        yield start[2], data[start.end() : end - 1]
        place = end


class Tar:
    """A place in a stream of blocks."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def exactly(self, size: int) -> Iterator[bytes]:
        """The next ``size`` bytes, in pieces."""
        while size:
            piece = self.source.read(min(size, CHUNK_BYTES))
            if not piece:
                raise Unreadable(CUT_OFF)
            size -= len(piece)
            yield piece

    def padded(self, size: int) -> Iterator[bytes]:
        """The next ``size`` bytes, and after them those that fill the last block, unseen."""
        yield from self.exactly(size)
        for _ in self.exactly(-size % BLOCK_BYTES):
            pass

    def block(self) -> bytes:
        return b"".join(self.exactly(BLOCK_BYTES))

    def extended(self, size: int, budget: Budget) -> bytes:
        if size > MAX_EXTENDED_BYTES:
            raise Unreadable(
                f"has an extended header of more than {MAX_EXTENDED_BYTES} bytes; "
                "pack it again without extended attributes"
            )
        budget.spend_bytes(size)
        return b"".join(self.padded(size))

    def member(self, header: bytes, extension: Extension) -> Member:
        kind, mode = header[156:157], number(header[100:108])
        size = size_of(header) if extension.size is None else extension.size
        if mode is None or mode < 0:
            raise Unreadable(DAMAGED)
        name = name_of(header) if extension.name is None else extension.name
        # Before there were types, a folder was a file whose name ends in a slash.
        is_folder = kind == FOLDER or (kind in FILES and name.endswith(b"/"))
        refusal = None
        if extension.is_sparse:
            refusal = not_a_file("a sparse file")
        elif kind not in (*FILES, FOLDER):
            refusal = not_a_file(REFUSED.get(kind, "of an unknown type"))
        # Links have a size in some tars, and never any content.
        content = self.padded(0 if kind in (b"1", b"2") else size)
        return Member(
            name.decode("utf-8", "surrogateescape"), is_folder, stat.S_IMODE(mode), content, refusal
        )

    def finish(self) -> None:
        """See that nothing follows the end but the zeros that some programs fill tapes up with."""
        padding = 0
        while piece := self.source.read(CHUNK_BYTES):
            padding += len(piece)
            if piece.strip(b"\0") or padding > MAX_PADDING_BYTES:
                raise Unreadable("goes on behind its end; pack it again")


def name_of(header: bytes) -> bytes:
    """The name in a plain header; only one of the dialects splits it in two."""
    name = header[:100].partition(b"\0")[0]
    prefix = header[345:500].partition(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name
