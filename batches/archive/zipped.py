"""Zip files, by the directory at their end.

The standard library's reader cuts names at a NUL, holds the whole directory in
memory and believes it about where members lie, so that many may share the same
bytes. Here the directory is read entry by entry, every entry has to agree with
the header before its own bytes, and no byte belongs to two.
"""

import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from batches.archive.budget import Budget
from batches.archive.members import CHUNK_BYTES, Member, kind_refused
from batches.archive.problems import BadMember, Unreadable

FIRST_BYTES = (b"PK\x03\x04", b"PK\x05\x06")

END = struct.Struct("<4s4H2LH")
END_MAGIC = b"PK\x05\x06"
MAX_COMMENT_BYTES = 0xFFFF
ENTRY = struct.Struct("<4s6H3L5H2L")
ENTRY_MAGIC = b"PK\x01\x02"
LOCAL = struct.Struct("<4s5H3L2H")
LOCAL_MAGIC = b"PK\x03\x04"
ZIP64_END_LOCATOR = b"PK\x06\x07"
ZIP64_END_LOCATOR_BYTES = 20

ENCRYPTED = 0x1 | 0x40 | 0x2000
PATCHED = 0x20
UTF8 = 0x800
STORED, DEFLATED = 0, 8
SMALL, LARGE = 0xFFFF, 0xFFFFFFFF
"""Written where the true number stands in a zip64 field."""

DAMAGED = "is damaged or cut off: its zip directory makes no sense; pack and upload it again"
ZIP64 = "is in the zip64 format; pack less than 4 GB and 65535 files, or use tar.gz"
BROKEN = "is damaged in the archive; pack it again"


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the directory. The name stays where it is: a million long ones fit into a zip."""

    name_offset: int
    name_bytes: int
    flags: int
    method: int
    crc: int
    packed_bytes: int
    unpacked_bytes: int
    mode: int
    offset: int

    def refusal(self) -> str | None:
        if self.flags & ENCRYPTED:
            return "is encrypted; pack it without a password"
        if self.flags & PATCHED or self.method not in (STORED, DEFLATED):
            return "is compressed in an unusual way; use deflate, or no compression"
        return kind_refused(self.mode)


def members(file: BinaryIO, budget: Budget) -> Iterator[Member]:
    """The members of a zip file, in the order in which they lie. Raises ``Unreadable``."""
    end_offset, end = find_end(file)
    entries, directory_offset = read_directory(file, end_offset, end, budget)
    entries.sort(key=lambda entry: entry.offset)
    boundaries = [*(entry.offset for entry in entries), directory_offset]
    for entry, boundary in zip(entries, boundaries[1:], strict=True):
        name = read_at(file, entry.name_offset, entry.name_bytes)
        start, agrees = local_header(file, entry, name)
        if start + entry.packed_bytes > boundary:
            raise Unreadable("has members that share the same bytes; pack it again")
        refusal = entry.refusal() or (None if agrees else BROKEN)
        content = () if refusal else unpacked(file, entry, start)
        is_folder = name.endswith(b"/") or stat.S_ISDIR(entry.mode)
        yield Member(decoded(name, entry.flags), is_folder, entry.mode, content, refusal)


def find_end(file: BinaryIO) -> tuple[int, tuple[int, ...]]:
    """Where the end record is, and its numbers. Nothing may follow but the comment it announces."""
    size = file.seek(0, 2)
    tail_offset = max(0, size - END.size - MAX_COMMENT_BYTES)
    tail = read_at(file, tail_offset, size - tail_offset)
    place = tail.rfind(END_MAGIC)
    while place >= 0:
        if len(tail) - place >= END.size:
            _, *numbers = END.unpack_from(tail, place)
            if place + END.size + numbers[-1] == len(tail):
                return tail_offset + place, tuple(numbers)
        place = tail.rfind(END_MAGIC, 0, place)
    raise Unreadable(DAMAGED)


def read_directory(
    file: BinaryIO, end_offset: int, end: tuple[int, ...], budget: Budget
) -> tuple[list[Entry], int]:
    """The lines of the directory, and where it begins."""
    disk, first_disk, here, count, directory_bytes, offset, _ = end
    locator_offset = end_offset - ZIP64_END_LOCATOR_BYTES
    if (
        SMALL in (here, count)
        or LARGE in (directory_bytes, offset)
        or (locator_offset >= 0 and read_at(file, locator_offset, 4) == ZIP64_END_LOCATOR)
    ):
        raise Unreadable(ZIP64)
    if disk or first_disk or here != count or offset + directory_bytes != end_offset:
        raise Unreadable(DAMAGED)

    entries = []
    place = offset
    while place < end_offset:
        entry, place = read_entry(file, place)
        entries.append(entry)
        budget.check_files(len(entries))
    if place != end_offset or len(entries) != count:
        raise Unreadable(DAMAGED)
    return entries, offset


def read_entry(file: BinaryIO, place: int) -> tuple[Entry, int]:
    """The line of the directory at ``place``, and where the next one is."""
    fields = ENTRY.unpack(read_at(file, place, ENTRY.size))
    magic, _, _, flags, method, _, _, crc, packed, unpacked_bytes = fields[:10]
    name_bytes, extra_bytes, comment_bytes, disk, _, attributes, offset = fields[10:]
    if LARGE in (packed, unpacked_bytes, offset):
        raise Unreadable(ZIP64)
    if magic != ENTRY_MAGIC or disk:
        raise Unreadable(DAMAGED)
    name_offset = place + ENTRY.size
    # Unix puts a file's mode into the upper half of the attributes; others leave it zero.
    mode = attributes >> 16
    entry = Entry(name_offset, name_bytes, flags, method, crc, packed, unpacked_bytes, mode, offset)
    return entry, name_offset + name_bytes + extra_bytes + comment_bytes


def local_header(file: BinaryIO, entry: Entry, name: bytes) -> tuple[int, bool]:
    """Where the member's bytes begin, and whether the header before them agrees with the directory.

    Its sizes and checksum do not count: they are zero where it was written before they were known.
    """
    fields = LOCAL.unpack(read_at(file, entry.offset, LOCAL.size))
    magic, _, flags, method, *_, name_bytes, extra_bytes = fields
    if magic != LOCAL_MAGIC:
        raise Unreadable(DAMAGED)
    name_offset = entry.offset + LOCAL.size
    same = (method, flags & ENCRYPTED, name_bytes) == (
        entry.method,
        entry.flags & ENCRYPTED,
        entry.name_bytes,
    )
    agrees = same and read_at(file, name_offset, name_bytes) == name
    return name_offset + name_bytes + extra_bytes, agrees


def unpacked(file: BinaryIO, entry: Entry, start: int) -> Iterator[bytes]:
    """The member's content. Raises ``BadMember`` when it is not what the directory says it is."""
    packed = pieces(file, start, entry.packed_bytes)
    count, crc = 0, 0
    for piece in inflated(packed) if entry.method == DEFLATED else packed:
        count, crc = count + len(piece), zlib.crc32(piece, crc)
        if count > entry.unpacked_bytes:
            raise BadMember(BROKEN)
        yield piece
    if (count, crc) != (entry.unpacked_bytes, entry.crc):
        raise BadMember(BROKEN)


def inflated(packed: Iterator[bytes]) -> Iterator[bytes]:
    """What the deflated ``packed`` holds; it has to end where they end."""
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        for pending in packed:
            while pending and not inflate.eof:
                yield inflate.decompress(pending, CHUNK_BYTES)
                pending = inflate.unconsumed_tail
            if inflate.eof and (pending or inflate.unused_data):
                raise BadMember(BROKEN)
        # The last input may stand for more than one piece of output.
        while piece := inflate.decompress(b"", CHUNK_BYTES):
            yield piece
    except zlib.error:
        raise BadMember(BROKEN) from None
    if not inflate.eof:
        raise BadMember(BROKEN)


def pieces(file: BinaryIO, start: int, size: int) -> Iterator[bytes]:
    file.seek(start)
    while size:
        piece = file.read(min(size, CHUNK_BYTES))
        size -= len(piece)
        yield piece


def read_at(file: BinaryIO, offset: int, size: int) -> bytes:
    """Exactly ``size`` bytes from ``offset``; a place beyond the end is a damaged directory's."""
    file.seek(offset)
    data = file.read(size)
    if len(data) != size:
        raise Unreadable(DAMAGED)
    return data


def decoded(name: bytes, flags: int) -> str:
    """Programs that do not say so write UTF-8 all the same; the oldest wrote what DOS did."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        if flags & UTF8:
            return name.decode("utf-8", "surrogateescape")
        return name.decode("cp437")
