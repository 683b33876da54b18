"""Archives made byte by byte, so that they can be as wrong as an enemy's."""

import gzip
import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from batches.archive.specs import Limits

LIMITS = Limits(max_files=1000, max_unpacked_bytes=64 * 1024 * 1024, max_ratio=100)

WORKSPACE = b"repo: owner/name\nversion: '1.0'\n"
TASK = {
    "tasks/one/workspace.yaml": WORKSPACE,
    "tasks/one/prompt.md": b"Mend it.\n",
    "tasks/one/tests/check.sh": b"exit 0\n",
}
AGENT = {"agent_code/agent.py": b"print('agent')\n"}
GOOD = TASK | AGENT


# --- as libraries write them


def zipped(files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


class Unseekable(io.BytesIO):
    """Makes the library write sizes behind the data, as when it writes to a pipe."""

    def seekable(self) -> bool:
        return False

    def seek(self, *_: int) -> int:
        raise io.UnsupportedOperation

    def tell(self) -> int:
        raise io.UnsupportedOperation


def streamed_zip(files: dict[str, bytes]) -> bytes:
    buffer = Unseekable()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(files: dict[str, bytes], dialect: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=dialect) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def tgz(files: dict[str, bytes]) -> bytes:
    return gzip.compress(tarred(files), 1)


# --- tar by hand


def tar_header(
    name: str | bytes,
    *,
    kind: bytes = b"0",
    size: int = 0,
    mode: int = 0o644,
    link: bytes = b"",
    magic: bytes = b"ustar\x0000",
    prefix: bytes = b"",
    raw_size: bytes | None = None,
    raw_mode: bytes | None = None,
    raw_checksum: bytes | None = None,
    signed: bool = False,
) -> bytes:
    name = name.encode() if isinstance(name, str) else name
    block = bytearray(512)

    def put(offset: int, field: bytes) -> None:
        block[offset : offset + len(field)] = field

    put(0, name[:100])
    put(100, raw_mode or b"%07o\0" % mode)
    put(108, b"0000000\0" * 2)
    put(124, raw_size or b"%011o\0" % size)
    put(136, b"00000000000\0")
    put(148, b" " * 8)
    put(156, kind)
    put(157, link)
    put(257, magic)
    put(345, prefix)
    total = sum(byte - 256 if signed and byte > 127 else byte for byte in block)
    put(148, raw_checksum or b"%06o\0 " % (total % 0o1000000))
    return bytes(block)


def tar_member(name: str | bytes, content: bytes = b"", **header: object) -> bytes:
    head = tar_header(name, **{"size": len(content), **header})  # type: ignore[arg-type]
    return head + content + bytes(-len(content) % 512)


def pax(records: dict[str, str | bytes], kind: bytes = b"x") -> bytes:
    """An extended header."""
    return tar_member(
        "PaxHeaders/x", b"".join(pax_record(*item) for item in records.items()), kind=kind
    )


def pax_record(key: str, value: str | bytes) -> bytes:
    value = value.encode() if isinstance(value, str) else value
    line = b" " + key.encode() + b"=" + value + b"\n"
    length = len(line) + 1
    while length != len(str(length)) + len(line):
        length = len(str(length)) + len(line)
    return str(length).encode() + line


def raw_tar(*blocks: bytes, end: bytes = bytes(1024)) -> bytes:
    """The good members, then ``blocks``, then the end."""
    good = b"".join(tar_member(name, content) for name, content in GOOD.items())
    return good + b"".join(blocks) + end


# --- zip by hand


@dataclass
class ZipEntry:
    """A member, and what the directory and its own header say about it, true or not."""

    name: bytes
    content: bytes = b""
    method: int = 8
    flags: int = 0
    attributes: int = 0
    packed: bytes | None = None
    crc: int | None = None
    unpacked_bytes: int | None = None
    packed_bytes: int | None = None
    local_name: bytes | None = None
    local_method: int | None = None
    local_flags: int | None = None
    local_magic: bytes = b"PK\x03\x04"
    offset: int | None = None
    disk: int = 0
    extra: bytes = b""
    mode: int | None = None

    def body(self) -> bytes:
        if self.packed is not None:
            return self.packed
        return deflated(self.content) if self.method == 8 else self.content


def deflated(content: bytes) -> bytes:
    squeeze = zlib.compressobj(9, wbits=-15)
    return squeeze.compress(content) + squeeze.flush()


def raw_zip(
    *entries: ZipEntry,
    count: int | None = None,
    directory_shift: int = 0,
    comment: bytes = b"",
    before_end: bytes = b"",
    disk: int = 0,
    good: dict[str, bytes] = GOOD,
) -> bytes:
    """The good members, then ``entries``, then a directory of both."""
    members = [ZipEntry(name.encode(), content) for name, content in good.items()]
    return zip_of(
        [*members, *entries],
        count=count,
        directory_shift=directory_shift,
        comment=comment,
        before_end=before_end,
        disk=disk,
    )


def zip_of(
    entries: Iterable[ZipEntry],
    *,
    count: int | None = None,
    directory_shift: int = 0,
    comment: bytes = b"",
    before_end: bytes = b"",
    disk: int = 0,
) -> bytes:
    data, directory, total = b"", b"", 0
    for entry in entries:
        body = entry.body()
        crc = zlib.crc32(entry.content) if entry.crc is None else entry.crc
        sizes = (
            len(body) if entry.packed_bytes is None else entry.packed_bytes,
            len(entry.content) if entry.unpacked_bytes is None else entry.unpacked_bytes,
        )
        offset = len(data) if entry.offset is None else entry.offset
        local_name = entry.name if entry.local_name is None else entry.local_name
        local_method = entry.method if entry.local_method is None else entry.local_method
        local_flags = entry.flags if entry.local_flags is None else entry.local_flags
        attributes = entry.attributes if entry.mode is None else entry.mode << 16
        data += struct.pack(
            "<4s5H3L2H", entry.local_magic, 20, local_flags, local_method, 0, 33, crc, *sizes,
            len(local_name), 0,
        )  # fmt: skip
        data += local_name + body
        directory += struct.pack(
            "<4s6H3L5H2L", b"PK\x01\x02", 0x0314, 20, entry.flags, entry.method, 0, 33, crc, *sizes,
            len(entry.name), len(entry.extra), 0, entry.disk, 0, attributes, offset,
        )  # fmt: skip
        directory += entry.name + entry.extra
        total += 1
    said = total if count is None else count
    end = struct.pack(
        "<4s4H2LH", b"PK\x05\x06", disk, 0, said & 0xFFFF, said & 0xFFFF, len(directory),
        len(data) + directory_shift, len(comment),
    )  # fmt: skip
    return data + directory + before_end + end + comment
