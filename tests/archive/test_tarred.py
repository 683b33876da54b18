"""Tar files that lie, leave or link, by hand since no library writes them."""

import tarfile
from collections.abc import Callable

import pytest

from batches.archive.specs import Submission
from tests.archive.builders import GOOD, pax, pax_record, raw_tar, tar_header, tar_member, tarred

DAMAGED = ("archive", "is damaged: a tar header makes no sense; pack it again")
CUT_OFF = ("archive", "is cut off; upload it again")
BEHIND = ("archive", "goes on behind its end; pack it again")
EXTENDED = (
    "archive",
    "has an extended header of more than 1048576 bytes; pack it again without extended attributes",
)
ABSOLUTE = "is an absolute path; name files relative to the archive's top"
CONTROL = "has control characters, or bytes that are not UTF-8, in its name; rename it"
LEADS_OUT = "leads out of its folder with ..; name files relative to the archive's top"
SPECIAL = "has its setuid, setgid or sticky bit set; clear it with chmod ug-s,-t"


def only_files(kind: str) -> str:
    return f"is {kind}; only plain files and folders are accepted"


X = "agent_code/x"

HOSTILE = {
    "symbolic link": (
        tar_member(X, kind=b"2", link=b"/etc/passwd"),
        [(X, only_files("a symbolic link"))],
    ),
    "symbolic link that says it has content": (
        tar_member(X, kind=b"2", link=b"agent.py", raw_size=b"00000000010\0"),
        [(X, only_files("a symbolic link"))],
    ),
    "hard link": (tar_member(X, kind=b"1", link=b"/etc/passwd"), [(X, only_files("a hard link"))]),
    "character device": (tar_member(X, kind=b"3"), [(X, only_files("a device"))]),
    "block device": (tar_member(X, kind=b"4"), [(X, only_files("a device"))]),
    "fifo": (tar_member(X, kind=b"6"), [(X, only_files("a FIFO"))]),
    "unknown type": (tar_member(X, kind=b"Z"), [(X, only_files("of an unknown type"))]),
    "volume label": (tar_member(X, kind=b"V"), [(X, only_files("of an unknown type"))]),
    "sparse by type": (tar_member(X, b"abc", kind=b"S"), [(X, only_files("a sparse file"))]),
    "sparse by extended header": (
        pax({"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}) + tar_member(X, b"abc"),
        [(X, only_files("a sparse file"))],
    ),
    "write through a link": (
        tar_member(X, kind=b"2", link=b"../../neighbour") + tar_member(X + "/file", b"owned"),
        [(X, only_files("a symbolic link"))],
    ),
    "link out of the wrapping folder": (
        tar_member("agent_code/a/b", kind=b"2", link=b"../../..")
        + tar_member("agent_code/a/b/file", b"owned"),
        [("agent_code/a/b", only_files("a symbolic link"))],
    ),
    "link in place of the root": (
        tar_member("./", kind=b"2", link=b"/tmp"),
        [("archive", only_files("a symbolic link"))],
    ),
    "hard link by long names": (
        tar_member("././@LongLink", b"y" * 150 + b"\0", kind=b"K") + tar_member(X, kind=b"1"),
        [(X, only_files("a hard link"))],
    ),
    "absolute": (tar_member("/etc/cron.d/x", b"x"), [("/etc/cron.d/x", ABSOLUTE)]),
    "absolute by extended header": (
        pax({"path": "/etc/x"}) + tar_member(X, b"x"),
        [("/etc/x", ABSOLUTE)],
    ),
    "absolute by prefix": (tar_member("x", b"x", prefix=b"/etc"), [("/etc/x", ABSOLUTE)]),
    "absolute by long name": (
        tar_member("././@LongLink", b"/etc/x\0", kind=b"L") + tar_member(X, b"x"),
        [("/etc/x", ABSOLUTE)],
    ),
    "leads out": (tar_member("../file", b"owned"), [("../file", LEADS_OUT)]),
    "leads out by extended header": (
        pax({"path": "tasks/../../file"}) + tar_member(X, b"x"),
        [("tasks/../../file", LEADS_OUT)],
    ),
    "NUL by extended header": (
        pax({"path": b"agent_code/x\0.py"}) + tar_member(X, b"x"),
        [("agent_code/x\N{REPLACEMENT CHARACTER}.py", CONTROL)],
    ),
    "name that is not UTF-8": (
        tar_member(b"agent_code/\xff", b"x"),
        [("agent_code/\N{REPLACEMENT CHARACTER}", CONTROL)],
    ),
    "no name": (tar_member("", b"x"), [("archive", "has no name; give it one")]),
    "setuid": (tar_member(X, b"x", mode=0o4755), [(X, SPECIAL)]),
    "setgid": (tar_member(X, b"x", mode=0o2755), [(X, SPECIAL)]),
    "sticky folder": (tar_member(X + "/", kind=b"5", mode=0o1777), [(X, SPECIAL)]),
    "folder with content": (
        tar_member(X + "/", b"content", kind=b"5"),
        [(X, "is a folder with content of its own; pack the archive again")],
    ),
    "wrong checksum": (tar_member(X, b"x", raw_checksum=b"000001\0 "), [DAMAGED]),
    "checksum that is no number": (tar_member(X, b"x", raw_checksum=b"zzzzzz\0 "), [DAMAGED]),
    "noise where a header should be": (b"\xa5" * 512, [DAMAGED]),
    "negative size": (tar_header(X, raw_size=b"\xff" * 12), [DAMAGED]),
    "size that is no number": (tar_header(X, raw_size=b"12 34567890\0"), [DAMAGED]),
    "mode that is no number": (tar_header(X, raw_mode=b"rwxr-xr\0"), [DAMAGED]),
    "negative mode": (tar_header(X, raw_mode=b"\xff" * 8), [DAMAGED]),
    "size beyond the end": (tar_header(X, size=10_000_000), [CUT_OFF]),
    "size of a quintillion": (tar_header(X, raw_size=b"\x80" + b"\x7f" * 11), [CUT_OFF]),
    "extended header with a huge size": (tar_header(X, kind=b"x", size=8_000_000_000), [EXTENDED]),
    "global header with a huge size": (tar_header(X, kind=b"g", size=8_000_000_000), [EXTENDED]),
    "long name of gigabytes": (tar_header(X, kind=b"L", size=8_000_000_000), [EXTENDED]),
    "long link of gigabytes": (tar_header(X, kind=b"K", size=8_000_000_000), [EXTENDED]),
    "extended header with a negative size": (
        tar_header(X, kind=b"x", raw_size=b"\xff" * 12),
        [DAMAGED],
    ),
    "extended size that is negative": (pax({"size": "-1"}) + tar_member(X), [DAMAGED]),
    "extended size of many digits": (pax({"size": "9" * 5000}) + tar_member(X), [DAMAGED]),
    "extended size beyond the end": (pax({"size": "99999999999"}) + tar_member(X), [CUT_OFF]),
    "extended record of a wrong length": (
        tar_member("x", b"99 path=x\n", kind=b"x") + tar_member(X),
        [DAMAGED],
    ),
    "extended record of length zero": (tar_member("x", b"0 path=x\n", kind=b"x"), [DAMAGED]),
    "extended record of length one": (tar_member("x", b"1 path=x\n", kind=b"x"), [DAMAGED]),
    "extended record without an end": (tar_member("x", b"8 path=xx", kind=b"x"), [DAMAGED]),
    "extended record without a key": (tar_member("x", b"10 pathxx\n", kind=b"x"), [DAMAGED]),
    "two extended headers for one member": (pax({"a": "b"}) * 2 + tar_member(X), [DAMAGED]),
    "extended header for nothing": (pax({"path": X}), [DAMAGED]),
    "one name for all": (
        pax({"path": "agent_code/same"}, kind=b"g") + tar_member(X),
        [("archive", "gives all its members one name or size; pack it again")],
    ),
    "name that is too long": (
        pax({"path": "agent_code/" + "n" * 256}) + tar_member(X),
        [("agent_code/" + "n" * 189 + "…", "has a name that is too long; use at most 255 bytes")],
    ),
    "path that is too long": (
        pax({"path": "agent_code/" + "/".join(["n" * 100] * 50)}) + tar_member(X),
        [
            (
                ("agent_code/" + "/".join(["n" * 100] * 50))[:200] + "…",
                "has a path that is too long; use at most 4096 bytes",
            )
        ],
    ),
    "path that this server has no room for": (
        pax(
            {
                "path": "agent_code/"
                + "n" * 4
                + "/n" * 2
                + "/"
                + "/".join(["n" * 254] * 15)
                + "/"
                + "n" * 244
            }
        )
        + tar_member(X),
        [
            (
                "agent_code/nnnn/n/n/" + "n" * 180 + "…",
                "has a path that is too long for this server; use shorter names",
            )
        ],
    ),
    "nested too deep": (
        pax({"path": "agent_code" + "/n" * 64}) + tar_member(X),
        [("agent_code" + "/n" * 64, "lies too deep; nest at most 64 folders")],
    ),
    "the same name twice": (
        tar_member(X, b"1") + tar_member(X, b"2"),
        [(X, "is in the archive twice; keep one")],
    ),
    "two broken members, both told": (
        tar_member(X, kind=b"2") + tar_member("../y", b"y"),
        [(X, only_files("a symbolic link")), ("../y", LEADS_OUT)],
    ),
    "junk that is a link": (
        tar_member("agent_code/.DS_Store", kind=b"2"),
        [("agent_code/.DS_Store", only_files("a symbolic link"))],
    ),
    "link outside of what is kept": (
        tar_member("docs/x", kind=b"2", link=b"/"),
        [("docs/x", only_files("a symbolic link"))],
    ),
}


@pytest.mark.parametrize(("blocks", "problems"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_tar_is_refused_without_a_trace(
    blocks: bytes, problems: list[tuple[str, str]], refuse: Callable[..., list[tuple[str, str]]]
) -> None:
    assert refuse(raw_tar(blocks)) == problems


ENDINGS = {
    "no end": (b"", [CUT_OFF]),
    "half an end": (bytes(300), [CUT_OFF]),
    "something behind the end": (bytes(1024) + b"x" * 512, [BEHIND]),
    "a member behind the end": (bytes(512) + tar_member(X, b"x") + bytes(1024), [BEHIND]),
    "endless zeros behind the end": (bytes(2 * 1024 * 1024), [BEHIND]),
}


@pytest.mark.parametrize(("end", "problems"), ENDINGS.values(), ids=ENDINGS)
def test_tar_has_to_end_as_tars_do(
    end: bytes, problems: list[tuple[str, str]], refuse: Callable[..., list[tuple[str, str]]]
) -> None:
    assert refuse(raw_tar(end=end)) == problems


@pytest.mark.parametrize("size", [513, 1000, 1536, 2000, 2559])
def test_tar_that_is_cut_off_anywhere_is_refused(
    size: int, refuse: Callable[..., list[tuple[str, str]]]
) -> None:
    assert refuse(raw_tar()[:size]) == [CUT_OFF]


ODD = {
    "one block of zeros at the end": raw_tar(end=bytes(512)),
    "a tape's worth of zeros at the end": raw_tar(end=bytes(1024 * 1024)),
    "signed checksum": raw_tar(tar_member("docs/\u00e9", b"x", signed=True)),
    "before there was a magic": raw_tar(tar_member("docs/x", b"x", magic=bytes(8), kind=b"\0")),
    "folder told by its slash alone": raw_tar(tar_member("docs/", kind=b"\0", magic=bytes(8))),
    "contiguous file": raw_tar(tar_member("docs/x", b"x", kind=b"7")),
    "binary size": raw_tar(tar_member("docs/x", b"x", raw_size=b"\x80" + bytes(10) + b"\x01")),
    "size in blanks": raw_tar(tar_member("docs/x", b"", raw_size=b" " * 12)),
    "what git archive writes": raw_tar(pax({"comment": "a" * 40}, kind=b"g"), tar_member("docs/x")),
    "folder twice": raw_tar(*[tar_member("agent_code/", kind=b"5")] * 2),
    "top named": raw_tar(tar_member("./", kind=b"5")),
    "extended size": raw_tar(pax({"size": "1"}) + tar_member("docs/x", b"x", raw_size=b"0" * 12)),
    "long link of nothing": raw_tar(tar_member("x", b"y\0", kind=b"K"), tar_member("docs/x")),
    "attributes that nobody needs": raw_tar(pax({"SCHILY.xattr.a": "b=c"}) + tar_member("docs/x")),
}


@pytest.mark.parametrize("data", ODD.values(), ids=ODD)
def test_odd_tar_is_accepted(data: bytes, accept: Callable[..., Submission]) -> None:
    submission = accept(data)

    assert [task.name for task in submission.tasks] == ["one"]
    assert (submission.root / "agent_code/agent.py").read_bytes() == GOOD["agent_code/agent.py"]


@pytest.mark.parametrize("dialect", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT], ids=["pax", "gnu"])
def test_long_and_foreign_names_survive_in_every_dialect(
    dialect: int, accept: Callable[..., Submission]
) -> None:
    name = f"agent_code/{'long/' * 30}übung"

    submission = accept(tarred({**GOOD, name: b"x"}, dialect))

    assert (submission.root / name).read_bytes() == b"x"


def test_prefix_of_a_header_is_part_of_the_name(accept: Callable[..., Submission]) -> None:
    submission = accept(raw_tar(tar_member("y.txt", b"x", prefix=b"agent_code/deep")))

    assert (submission.root / "agent_code/deep/y.txt").read_bytes() == b"x"


def test_records_are_measured_as_the_format_says() -> None:
    assert [pax_record("a", "b"), pax_record("path", "x" * 90)[:9]] == [b"6 a=b\n", b"99 path=x"]
