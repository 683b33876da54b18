"""Zip files whose directory, headers and bytes tell different stories."""

import stat
import struct
import zipfile
import zlib
from collections.abc import Callable

import pytest

from batches.archive.specs import Submission
from tests.archive.builders import (
    GOOD,
    ZipEntry,
    deflated,
    raw_zip,
    streamed_zip,
    zip_of,
    zipped,
)

DAMAGED = (
    "archive",
    "is damaged or cut off: its zip directory makes no sense; pack and upload it again",
)
ZIP64 = ("archive", "is in the zip64 format; pack less than 4 GB and 65535 files, or use tar.gz")
SHARED = ("archive", "has members that share the same bytes; pack it again")
X = "agent_code/x"
BROKEN = (X, "is damaged in the archive; pack it again")
ENCRYPTED = (X, "is encrypted; pack it without a password")
UNUSUAL = (X, "is compressed in an unusual way; use deflate, or no compression")
SPECIAL = (X, "has its setuid, setgid or sticky bit set; clear it with chmod ug-s,-t")
LEADS_OUT = "leads out of its folder with ..; name files relative to the archive's top"
ABSOLUTE = "is an absolute path; name files relative to the archive's top"
BACKSLASH = "has a backslash in its name; separate folders with /"
CONTROL = "has control characters, or bytes that are not UTF-8, in its name; rename it"
EMPTY_PART = "has an empty part or a . in its name; write the name without it"
ODD_CHARACTER = "\N{REPLACEMENT CHARACTER}"


def x(content: bytes = b"content", **claims: object) -> ZipEntry:
    return ZipEntry(X.encode(), content, **claims)  # type: ignore[arg-type]


def endless(content: bytes) -> bytes:
    """All of ``content``, but not the mark that nothing follows."""
    squeeze = zlib.compressobj(wbits=-15)
    return squeeze.compress(content) + squeeze.flush(zlib.Z_SYNC_FLUSH)


def only_files(kind: str) -> tuple[str, str]:
    return (X, f"is {kind}; only plain files and folders are accepted")


def quoted_overlap() -> bytes:
    """The bomb of many members around one kernel: each begins inside the one before."""
    kernel = zip_of([ZipEntry(b"agent_code/kernel", bytes(100_000))])
    body = kernel[: kernel.index(b"PK\x01\x02")]
    entries = [ZipEntry(b"agent_code/a", packed=body, method=0, content=body)]
    inner = 30 + len(b"agent_code/a")
    entries.append(
        ZipEntry(
            b"agent_code/kernel",
            bytes(100_000),
            packed=b"",
            packed_bytes=len(deflated(bytes(100_000))),
            offset=inner,
        )
    )
    return zip_of(entries)


def same_bytes_often() -> bytes:
    packed = deflated(bytes(1_000_000))
    claims = {"packed_bytes": len(packed), "unpacked_bytes": 1_000_000, "offset": 0}
    first = ZipEntry(b"agent_code/x", bytes(1_000_000))
    return zip_of([first, *[ZipEntry(b"agent_code/x", packed=b"", **claims)] * 20])  # type: ignore[arg-type]


HOSTILE = {
    "symbolic link": (
        raw_zip(x(b"/etc/passwd", mode=stat.S_IFLNK | 0o777)),
        [only_files("a symbolic link")],
    ),
    "fifo": (raw_zip(x(mode=stat.S_IFIFO | 0o644)), [only_files("a FIFO")]),
    "device": (raw_zip(x(mode=stat.S_IFBLK | 0o644)), [only_files("a device")]),
    "socket": (raw_zip(x(mode=stat.S_IFSOCK | 0o644)), [only_files("a socket")]),
    "unknown type": (raw_zip(x(mode=0o070644)), [only_files("of an unknown type")]),
    "setuid": (raw_zip(x(mode=stat.S_IFREG | 0o4755)), [SPECIAL]),
    "sticky": (raw_zip(x(mode=stat.S_IFREG | 0o1755)), [SPECIAL]),
    "encrypted": (raw_zip(x(flags=0x1)), [ENCRYPTED]),
    "strongly encrypted": (raw_zip(x(flags=0x41)), [ENCRYPTED]),
    "encrypted directory": (raw_zip(x(flags=0x2000)), [ENCRYPTED]),
    "patch data": (raw_zip(x(flags=0x20)), [UNUSUAL]),
    "bzip2": (raw_zip(x(method=12)), [UNUSUAL]),
    "lzma": (raw_zip(x(method=14)), [UNUSUAL]),
    "deflate64": (raw_zip(x(method=9)), [UNUSUAL]),
    "made-up method": (raw_zip(x(method=1234)), [UNUSUAL]),
    "wrong checksum": (raw_zip(x(crc=1)), [BROKEN]),
    "more than it says": (raw_zip(x(unpacked_bytes=3)), [BROKEN]),
    "less than it says": (raw_zip(x(unpacked_bytes=300)), [BROKEN]),
    "stored with other sizes": (raw_zip(x(method=0, unpacked_bytes=300)), [BROKEN]),
    "not deflated at all": (raw_zip(x(packed=b"\xff" * 50)), [BROKEN]),
    "deflated half": (raw_zip(x(packed=deflated(b"content")[:-2])), [BROKEN]),
    "deflated without an end": (raw_zip(x(packed=endless(b"content"))), [BROKEN]),
    "something behind the deflated": (raw_zip(x(packed=deflated(b"content") + b"more")), [BROKEN]),
    "deflated bytes missing": (raw_zip(x(packed=b"")), [BROKEN]),
    "another name before the content": (raw_zip(x(local_name=b"agent_code/y")), [BROKEN]),
    "longer name before the content": (raw_zip(x(local_name=b"agent_code/xxxxx")), [BROKEN]),
    "another method before the content": (raw_zip(x(local_method=0)), [BROKEN]),
    "encrypted before the content": (raw_zip(x(local_flags=1)), [BROKEN]),
    "no header before the content": (raw_zip(x(local_magic=b"none")), [DAMAGED]),
    "offset beyond the end": (raw_zip(x(offset=1_000_000)), [DAMAGED]),
    "offset of zip64": (raw_zip(x(offset=0xFFFFFFFF)), [ZIP64]),
    "size of zip64": (raw_zip(x(unpacked_bytes=0xFFFFFFFF)), [ZIP64]),
    "packed size of zip64": (raw_zip(x(packed_bytes=0xFFFFFFFF)), [ZIP64]),
    "count of zip64": (raw_zip(count=0xFFFF), [ZIP64]),
    "directory of zip64": (raw_zip(before_end=b"PK\x06\x07" + bytes(16)), [ZIP64]),
    "content that reaches into the directory": (raw_zip(x(packed_bytes=60)), [SHARED]),
    "members inside one another": (quoted_overlap(), [SHARED]),
    "members that are the same bytes": (same_bytes_often(), [SHARED]),
    "too few announced": (raw_zip(x(), count=1), [DAMAGED]),
    "too many announced": (raw_zip(x(), count=50), [DAMAGED]),
    "several disks": (raw_zip(disk=1), [DAMAGED]),
    "member of another disk": (raw_zip(x(disk=1)), [DAMAGED]),
    "directory elsewhere": (raw_zip(directory_shift=5), [DAMAGED]),
    "directory of another size": (
        raw_zip()[:-10] + b"\x01\0\0\0" + raw_zip()[-6:],
        [DAMAGED],
    ),
    "something before the end record": (raw_zip(before_end=b"x" * 50), [DAMAGED]),
    "something behind the end": (raw_zip() + b"x", [DAMAGED]),
    "comment that is cut off": (raw_zip(comment=b"hello")[:-1], [DAMAGED]),
    "no directory": (raw_zip().partition(b"PK\x01\x02")[0], [DAMAGED]),
    "cut off early": (raw_zip()[:100], [DAMAGED]),
    "four bytes": (b"PK\x03\x04", [DAMAGED]),
    "half an end record": (b"PK\x05\x06" + bytes(10), [DAMAGED]),
    "directory of noise": (
        b"PK\x03\x04"
        + b"\xa5" * 100
        + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, 100, 4, 0),
        [DAMAGED],
    ),
    "absolute": (raw_zip(ZipEntry(b"/etc/x")), [("/etc/x", ABSOLUTE)]),
    "network share": (raw_zip(ZipEntry(b"//host/x")), [("//host/x", ABSOLUTE)]),
    "drive letter": (raw_zip(ZipEntry(b"C:/x")), [("C:/x", ABSOLUTE)]),
    "drive letter without a slash": (raw_zip(ZipEntry(b"c:x")), [("c:x", ABSOLUTE)]),
    "leads out": (raw_zip(ZipEntry(b"../file", b"owned")), [("../file", LEADS_OUT)]),
    "leads out and back": (
        raw_zip(ZipEntry(b"agent_code/../tasks/y")),
        [("agent_code/../tasks/y", LEADS_OUT)],
    ),
    "leads out at the end": (raw_zip(ZipEntry(b"agent_code/..")), [("agent_code/..", LEADS_OUT)]),
    "backslash": (raw_zip(ZipEntry(b"..\\file")), [("..\\file", BACKSLASH)]),
    "folders in the manner of Windows": (
        raw_zip(ZipEntry(b"agent_code\\lib\\y.py")),
        [("agent_code\\lib\\y.py", BACKSLASH)],
    ),
    "NUL": (
        raw_zip(ZipEntry(b"agent_code/x\0.py")),
        [(f"agent_code/x{ODD_CHARACTER}.py", CONTROL)],
    ),
    "escape sequence": (
        raw_zip(ZipEntry(b"agent_code/\x1b[2J")),
        [(f"agent_code/{ODD_CHARACTER}[2J", CONTROL)],
    ),
    "line feed": (
        raw_zip(ZipEntry(b"agent_code/a\nb")),
        [(f"agent_code/a{ODD_CHARACTER}b", CONTROL)],
    ),
    "UTF-8 that is none": (
        raw_zip(ZipEntry(b"agent_code/\xff", flags=0x800)),
        [(f"agent_code/{ODD_CHARACTER}", CONTROL)],
    ),
    "empty part": (raw_zip(ZipEntry(b"agent_code//y")), [("agent_code//y", EMPTY_PART)]),
    "dot in the middle": (raw_zip(ZipEntry(b"agent_code/./y")), [("agent_code/./y", EMPTY_PART)]),
    "no name": (raw_zip(ZipEntry(b"")), [("archive", "has no name; give it one")]),
    "name that is too long": (
        raw_zip(ZipEntry(b"agent_code/" + b"n" * 256)),
        [("agent_code/" + "n" * 189 + "…", "has a name that is too long; use at most 255 bytes")],
    ),
    "name of 64 KB": (
        raw_zip(ZipEntry(b"n/" * 32_000)),
        [("n/" * 100 + "…", "has a path that is too long; use at most 4096 bytes")],
    ),
    "folder with content": (
        raw_zip(ZipEntry(b"agent_code/y/", b"content")),
        [("agent_code/y", "is a folder with content of its own; pack the archive again")],
    ),
    "the same name twice": (raw_zip(x(), x()), [(X, "is in the archive twice; keep one")]),
    "several broken members, all told": (
        raw_zip(x(crc=1), ZipEntry(b"../y"), ZipEntry(b"agent_code/z", flags=1)),
        [BROKEN, ("../y", LEADS_OUT), ("agent_code/z", ENCRYPTED[1])],
    ),
}


@pytest.mark.parametrize(("data", "problems"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_zip_is_refused_without_a_trace(
    data: bytes, problems: list[tuple[str, str]], refuse: Callable[..., list[tuple[str, str]]]
) -> None:
    assert refuse(data) == problems


ODD = {
    "stored": zipped(GOOD, zipfile.ZIP_STORED),
    "sizes behind the data": streamed_zip(GOOD),
    "no folders listed": raw_zip(),
    "folders listed": raw_zip(ZipEntry(b"agent_code/"), ZipEntry(b"tasks/one/")),
    "folder told by its mode alone": raw_zip(ZipEntry(b"docs", mode=stat.S_IFDIR | 0o755)),
    "folder that is deflated nothing": raw_zip(ZipEntry(b"docs/", packed=b"\x03\x00")),
    "comment": raw_zip(comment=b"packed with care"),
    "comment that looks like an end record": raw_zip(comment=b"PK\x05\x06" + bytes(30)),
    "unknown extra fields": raw_zip(ZipEntry(b"docs/x", b"x", extra=b"UT\x05\x00\x03abcd")),
    "attributes of DOS": raw_zip(ZipEntry(b"docs/x", b"x", attributes=0x20)),
    "files without a type": raw_zip(ZipEntry(b"docs/x", b"x", mode=0o644)),
    "name as DOS wrote it": raw_zip(ZipEntry(b"docs/\x81bung", b"x")),
}


@pytest.mark.parametrize("data", ODD.values(), ids=ODD)
def test_odd_zip_is_accepted(data: bytes, accept: Callable[..., Submission]) -> None:
    submission = accept(data)

    assert [task.name for task in submission.tasks] == ["one"]
    assert (submission.root / "agent_code/agent.py").read_bytes() == GOOD["agent_code/agent.py"]


@pytest.mark.parametrize(
    ("raw_name", "flags"),
    [("übung".encode(), 0x800), ("übung".encode(), 0), (b"\x81bung", 0)],
    ids=["said to be UTF-8", "UTF-8 without saying so", "as DOS wrote it"],
)
def test_foreign_names_are_understood(
    raw_name: bytes, flags: int, accept: Callable[..., Submission]
) -> None:
    submission = accept(raw_zip(ZipEntry(b"agent_code/" + raw_name, b"x", flags=flags)))

    assert (submission.root / "agent_code/übung").read_bytes() == b"x"


def test_content_larger_than_any_buffer_survives(accept: Callable[..., Submission]) -> None:
    content = bytes(range(256)) * 4096 + bytes(3_000_001)

    submission = accept(zipped({**GOOD, X: content}))

    assert (submission.root / X).read_bytes() == content
