"""What reaches the disk, in which form, and which names exclude one another."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from batches.archive.budget import Budget
from batches.archive.members import Member
from batches.archive.specs import Submission
from batches.archive.tree import Place, Tree
from tests.archive.builders import GOOD, LIMITS, ZipEntry, raw_zip, zipped

TWINS = "is named like something else but for case or the way its letters are composed; rename one"
CLASH = "needs a folder where there is a file, or a file where there is a folder; rename one"
COMPOSED, DECOMPOSED = "agent_code/caf\u00e9.py", "agent_code/cafe\u0301.py"

CLASHES = {
    "case of a file": (["agent_code/Lib.py", "agent_code/lib.py"], "agent_code/lib.py", TWINS),
    "case of a folder": (["agent_code/Lib/a", "agent_code/lib/b"], "agent_code/lib/b", TWINS),
    "case of the top": (["Agent_Code/b"], "Agent_Code/b", TWINS),
    "sharp s": (["agent_code/stra\u00dfe", "agent_code/STRASSE"], "agent_code/STRASSE", TWINS),
    "kelvin sign": (["agent_code/\u212a", "agent_code/k"], "agent_code/k", TWINS),
    "composition": ([COMPOSED, DECOMPOSED], DECOMPOSED, TWINS),
    "composition and case": (
        ["agent_code/CAF\u00c9.py", DECOMPOSED],
        DECOMPOSED,
        TWINS,
    ),
    "file, then folder": (["agent_code/y", "agent_code/y/z"], "agent_code/y/z", CLASH),
    "folder, then file": (["agent_code/y/z", "agent_code/y"], "agent_code/y", CLASH),
    "file, then listed folder": (["agent_code/y", "agent_code/y/"], "agent_code/y", CLASH),
    "outside of what is kept": (["docs/Y", "docs/y"], "docs/y", TWINS),
}


@pytest.mark.parametrize(("names", "file", "message"), CLASHES.values(), ids=CLASHES)
def test_names_that_are_one_somewhere_are_refused(
    names: list[str], file: str, message: str, refuse: Callable[..., list[tuple[str, str]]]
) -> None:
    assert refuse(zipped({**GOOD, **dict.fromkeys(names, b"")})) == [(file, message)]


def test_modes_keep_nothing_but_whether_a_file_can_be_run(
    accept: Callable[..., Submission],
) -> None:
    modes = {"a": 0o777, "b": 0o100, "c": 0o666, "d": 0o000, "e": 0o640}
    entries = [
        ZipEntry(f"agent_code/{name}".encode(), mode=stat.S_IFREG | mode or 0)
        for name, mode in modes.items()
    ]
    before = os.umask(0o077)

    try:
        root = accept(raw_zip(*entries, ZipEntry(b"agent_code/f/", mode=stat.S_IFDIR))).root
    finally:
        os.umask(before)

    found = {name: stat.S_IMODE((root / "agent_code" / name).stat().st_mode) for name in "abcdef"}
    assert found == {"a": 0o755, "b": 0o755, "c": 0o644, "d": 0o644, "e": 0o644, "f": 0o755}
    tops = [
        stat.S_IMODE(path.stat().st_mode) for path in (root, root / "tasks", root / "tasks/one")
    ]
    assert tops == [0o700, 0o755, 0o755]


def test_nothing_but_the_two_folders_reaches_the_disk(accept: Callable[..., Submission]) -> None:
    more = ["README.md", "docs/a.md", "src/tasks/one/prompt.md", "a/b/c/d"]

    root = accept(zipped({**GOOD, **dict.fromkeys(more, b"x")})).root

    assert sorted(path.name for path in root.iterdir()) == ["agent_code", "tasks"]


def test_what_macs_add_is_left_out(accept: Callable[..., Submission]) -> None:
    junk = [
        "__MACOSX/tasks/one/._prompt.md",
        "__MACOSX/._agent_code",
        ".DS_Store",
        "tasks/.DS_Store",
        "tasks/._one",
        "tasks/one/._prompt.md",
        "tasks/one/tests/._check.sh",
        "agent_code/._agent.py",
        "agent_code/Icon\r",
    ]

    submission = accept(zipped({**dict.fromkeys(junk, b"\0\5\x16\7"), **GOOD}))

    files = [path for path in submission.root.rglob("*") if path.is_file()]
    assert sorted(path.relative_to(submission.root).as_posix() for path in files) == sorted(GOOD)
    assert submission.notes == ()


@pytest.mark.parametrize("planted", ["file", "link", "dangling link"])
def test_what_somebody_planted_is_never_written_to(planted: str, desk: Path) -> None:
    path = desk / "out" / "agent_code" / "x"
    path.parent.mkdir(parents=True)
    if planted == "file":
        path.write_text("planted")
    else:
        path.symlink_to(desk / ("file" if planted == "link" else "new"))
    tree = Tree(desk / "out", Budget(LIMITS, 1000))
    tree.top.inside["agent_code"] = Place("agent_code", is_folder=True)

    with pytest.raises(FileExistsError):
        tree.take(Member("agent_code/x", False, 0o644, [b"owned"]))

    assert (desk / "file").read_text() == "untouched"
    assert not (desk / "new").exists()
