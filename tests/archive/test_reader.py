"""The door as a whole: what is understood, what is said, what is left behind."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batches.archive.reader import read_archive
from batches.archive.specs import AgentSpec, BadArchive, Limits, Submission, TaskSpec, TestScript
from tests.archive.builders import (
    AGENT,
    GOOD,
    LIMITS,
    TASK,
    ZipEntry,
    raw_tar,
    raw_zip,
    streamed_zip,
    tar_member,
    tarred,
    tgz,
    zipped,
)
from tests.archive.conftest import snapshot

NOWHERE = (
    "archive",
    "holds neither tasks/ nor agent_code/, at its top or in one folder; add both",
)
NO_FORMAT = (
    "archive",
    "is no zip, tar.gz or tar archive, whatever it is called; pack it as one of these",
)
NO_TASK = ("tasks", "holds no task; add a folder tasks/<task-id>/ for each")
NO_AGENT = ("agent_code", "is missing or empty; put the agent into it")
LINK = "is a symbolic link; only plain files and folders are accepted"

FORMATS = {"zip": zipped, "streamed zip": streamed_zip, "tar": tarred, "tar.gz": tgz}


def below(folder: str, files: dict[str, bytes] = GOOD) -> dict[str, bytes]:
    return {f"{folder}{name}": content for name, content in files.items()}


@pytest.mark.parametrize("pack", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("around", ["", "./", "my agent/", "./v1.0/"])
def test_archive_is_understood_in_every_format_and_wrapping(
    pack: Callable[..., bytes], around: str, accept: Callable[..., Submission], desk: Path
) -> None:
    submission = accept(pack(below(around)))

    assert submission == Submission(
        root=desk / "out",
        tasks=(
            TaskSpec(
                name="one",
                folder="tasks/one",
                repo="owner/name",
                base_commit=None,
                version="1.0",
                language=None,
                install=(),
                tests=(TestScript("check.sh", file="check.sh"),),
                test_files=(),
            ),
        ),
        agent=AgentSpec("agent_code", "agent.py", "python"),
        notes=(),
    )
    files = {name: content for name, (_, content) in snapshot(submission.root).items() if content}
    assert files == GOOD


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.exe", "noname"])
@pytest.mark.parametrize("pack", FORMATS.values(), ids=FORMATS)
def test_name_of_the_archive_does_not_matter(
    pack: Callable[..., bytes], name: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(pack(GOOD))

    assert len(read_archive(tmp_path / name, tmp_path / "out", LIMITS).tasks) == 1


STRANGE = {
    "nothing": (b"", [NO_FORMAT]),
    "one byte": (b"P", [NO_FORMAT]),
    "text": (b"hello" * 1000, [NO_FORMAT]),
    "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(1000), [NO_FORMAT]),
    "xz": (b"\xfd7zXZ\0" + bytes(1000), [NO_FORMAT]),
    "empty zip": (zipped({}), [NOWHERE]),
    "empty tar": (raw_tar()[-1024:], [NOWHERE]),
    "zeros": (bytes(10240), [NOWHERE]),
    "other things": (zipped({"README.md": b"", "src/a.py": b""}), [NOWHERE]),
    "two folders around": (
        zipped(below("a/") | below("b/")),
        [("archive", "holds tasks/ and agent_code/ in several folders; keep one of them")],
    ),
    "wrapped twice": (zipped(below("a/b/")), [NOWHERE]),
    "other case": (zipped({"Tasks/x": b"", "Agent_code/agent.py": b""}), [NOWHERE]),
    "files instead of folders": (zipped({"tasks": b"", "agent_code": b""}), [NOWHERE]),
    "no agent": (zipped(TASK), [NO_AGENT]),
    "no tasks": (zipped(AGENT), [NO_TASK]),
    "tasks is a file": (zipped(AGENT | {"tasks": b""}), [NO_TASK]),
    "empty tasks": (zipped(AGENT | {"tasks/": b""}), [NO_TASK]),
    "only files in tasks": (zipped(AGENT | {"tasks/README.md": b""}), [NO_TASK]),
    "agent in the folder, tasks at the top": (zipped(TASK | below("x/", AGENT)), [NO_AGENT]),
    "empty folders": (zipped({"tasks/": b"", "agent_code/": b""}), [NO_TASK, NO_AGENT]),
}


@pytest.mark.parametrize(("data", "problems"), STRANGE.values(), ids=STRANGE)
def test_archive_of_something_else_is_refused(
    data: bytes, problems: list[tuple[str, str]], refuse: Callable[..., list[tuple[str, str]]]
) -> None:
    assert refuse(data) == problems


def test_every_problem_is_told_at_once_and_the_same_from_all_formats(
    refuse: Callable[..., list[tuple[str, str]]],
) -> None:
    files = below(
        "wrap/",
        TASK
        | {
            "../../x": b"",
            "tasks/two/workspace.yaml": b"repo: ''\n",
            "tasks/two/prompt.md": b" \n",
            "tasks/three/": b"",
        },
    )
    expected = [
        ("../../x", "leads out of its folder with ..; name files relative to the archive's top"),
        ("tasks/three/workspace.yaml", "is missing; add it"),
        ("tasks/three/prompt.md", "is missing; add it"),
        (
            "tasks/three/tests",
            "holds no script, so that the task would pass by doing nothing; "
            "add tests/*.sh, or checks.txt",
        ),
        ("tasks/two/workspace.yaml", "`repo` is required: write a text that is not blank"),
        ("tasks/two/workspace.yaml", "`version` is required: write a text, a number or null"),
        ("tasks/two/prompt.md", "is blank; say what the agent has to do"),
        (
            "tasks/two/tests",
            "holds no script, so that the task would pass by doing nothing; "
            "add tests/*.sh, or checks.txt",
        ),
        NO_AGENT,
    ]

    found = [refuse(pack(files)) for pack in (zipped, tarred, tgz)]

    assert found == [expected] * 3


def test_what_a_refused_member_explains_is_not_told_twice(
    refuse: Callable[..., list[tuple[str, str]]],
) -> None:
    files = {name: content for name, content in TASK.items() if not name.endswith("prompt.md")}
    links = ["tasks/one/prompt.md", "tasks/two", "agent_code/agent.py"]
    entries = [ZipEntry(name.encode(), mode=stat.S_IFLNK | 0o777) for name in links]

    found = refuse(raw_zip(*entries, good=below("./", files)))

    assert found == [(name, LINK) for name in links]


def test_refused_member_does_not_hide_what_else_is_wrong_with_its_task(
    refuse: Callable[..., list[tuple[str, str]]],
) -> None:
    link = ZipEntry(b"tasks/one/notes", mode=stat.S_IFLNK | 0o777)
    files = {**GOOD, "tasks/one/prompt.md": b""}

    assert refuse(raw_zip(link, good=files)) == [
        ("tasks/one/notes", LINK),
        ("tasks/one/prompt.md", "is blank; say what the agent has to do"),
    ]


def test_names_of_problems_leave_the_wrapping_folder_out(
    refuse: Callable[..., list[tuple[str, str]]],
) -> None:
    entries = [tar_member(f"./w/{name}", content) for name, content in TASK.items()]
    link = tar_member("./w/tasks/one/link", kind=b"2")

    assert refuse(b"".join([*entries, link, bytes(1024)])) == [
        ("tasks/one/link", LINK),
        NO_AGENT,
    ]


def test_long_list_of_problems_ends_with_how_many_more(
    refuse: Callable[..., list[tuple[str, str]]],
) -> None:
    data = raw_tar(*[tar_member(f"agent_code/{number}", kind=b"2") for number in range(250)])

    problems = refuse(data)

    assert problems[:100] == [(f"agent_code/{number}", LINK) for number in range(100)]
    assert problems[100:] == [("archive", "has 150 more problems")]


def test_agent_code_and_contents_stay_out_of_messages(
    refuse: Callable[..., list[tuple[str, str]]],
) -> None:
    secret = b"s3cret: [unclosed\n\ttab: &anchor *unknown"
    files = dict.fromkeys([*TASK, "agent_code/readme.md", "tasks/one/checks.txt"], secret)

    problems = refuse(zipped(files))

    assert [file for file, _ in problems] == ["tasks/one/workspace.yaml", "agent_code"]
    assert not any(word in str(problems) for word in ("s3cret", "unclosed", "anchor", "unknown"))


def test_destination_that_exists_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(zipped(GOOD))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").write_text("untouched")

    with pytest.raises(FileExistsError):
        read_archive(tmp_path / "archive", tmp_path / "out", LIMITS)

    assert (tmp_path / "out" / "file").read_text() == "untouched"


def test_trouble_of_ours_rises_and_leaves_nothing_either(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_archive(tmp_path / "no-archive", tmp_path / "out", LIMITS)

    assert list(tmp_path.iterdir()) == []


def test_ten_thousand_small_files_are_no_trouble(accept: Callable[..., Submission]) -> None:
    files = {f"agent_code/lib/{number % 100}/{number}.txt": b"x" for number in range(10_000)}
    limits = Limits(max_files=20_000, max_unpacked_bytes=10**6, max_ratio=100)

    root = accept(tgz(GOOD | files), limits).root

    assert sum(len(names) for _, _, names in os.walk(root)) == 10_000 + len(GOOD)


def offer(data: bytes, folder: Path) -> Submission | BadArchive:
    """What becomes of ``data``; nothing but these two is allowed to happen."""
    (folder / "archive").write_bytes(data)
    try:
        return read_archive(folder / "archive", folder / "out", LIMITS)
    except BadArchive as bad:
        assert not (folder / "out").exists()
        return bad


QUICK = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@QUICK
@given(
    start=st.sampled_from([b"", b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b\x08\0", raw_tar()[:512]]),
    rest=st.binary(max_size=2000),
)
def test_any_bytes_are_answered(
    start: bytes, rest: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    result = offer(start + rest, tmp_path_factory.mktemp("any"))

    assert isinstance(result, BadArchive)
    assert result.problems


@QUICK
@given(data=st.data())
@pytest.mark.parametrize("whole", [raw_zip(), streamed_zip(GOOD), raw_tar(), tgz(GOOD)])
def test_archive_with_changed_bytes_is_answered(
    whole: bytes, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    changed = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))

    result = offer(bytes(changed), tmp_path_factory.mktemp("changed"))

    assert isinstance(result, Submission | BadArchive)


@QUICK
@given(size=st.integers(0, len(tgz(GOOD)) - 1))
def test_archive_that_is_cut_off_is_refused(
    size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert isinstance(offer(tgz(GOOD)[:size], tmp_path_factory.mktemp("cut")), BadArchive)
