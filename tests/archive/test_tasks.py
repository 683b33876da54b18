"""A folder is a task: its name, its prompt, its tests."""

from collections.abc import Callable
from pathlib import Path

import pytest

from batches.archive.specs import BadArchive, Problem, TaskSpec, TestScript
from batches.archive.tasks import read_tasks
from tests.archive.builders import TASK, WORKSPACE

BASE = {name: content for name, content in TASK.items() if "tests" not in name}
NO_SCRIPT = (
    "holds no script, so that the task would pass by doing nothing; add tests/*.sh, or checks.txt"
)
NO_COMMAND = (
    "has no command, so that the task would pass by doing nothing; add one, or a script tests/*.sh"
)

Write = Callable[[dict[str, bytes]], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def run(files: dict[str, bytes]) -> Path:
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return tmp_path

    return run


def only_task(root: Path) -> TaskSpec:
    [task], _ = read_tasks(root)
    return task


def problems_of(root: Path) -> list[Problem]:
    with pytest.raises(BadArchive) as caught:
        read_tasks(root)
    return caught.value.problems


@pytest.mark.parametrize(
    "name",
    [
        "two words",
        "übung",
        "caf\u00e9",
        "cafe\u0301",
        ".github-1",
        "a&b?c#d%2F",
        "日本",
        "n" * 200,
        "--",
    ],
)
def test_folder_of_almost_any_name_is_a_task(name: str, write: Write) -> None:
    files = {path.replace("/one/", f"/{name}/"): content for path, content in TASK.items()}

    task = only_task(write(files))

    assert (task.name, task.folder) == (name, f"tasks/{name}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("n" * 201, "has a name that is too long; use at most 200 characters"),
        ("a\tb", "has control characters in its name; rename it"),
        ("a\u2028b", "has control characters in its name; rename it"),
    ],
    ids=["too long", "tab", "line separator"],
)
def test_name_that_no_page_could_show_is_refused(name: str, message: str, write: Write) -> None:
    files = {path.replace("/one/", f"/{name}/"): content for path, content in TASK.items()}

    assert problems_of(write(files)) == [Problem(f"tasks/{name}", message)]


def test_tasks_come_in_the_order_of_their_names(write: Write) -> None:
    names = ["b", "a", "C"]
    files = {
        path.replace("/one/", f"/{name}/"): content
        for name in names
        for path, content in TASK.items()
    }

    tasks, notes = read_tasks(write(files))

    assert ([task.name for task in tasks], notes) == (["C", "a", "b"], ())


def test_files_that_lie_in_no_task_are_noted(write: Write) -> None:
    stray = {f"tasks/{number:02}.txt": b"" for number in range(12)}

    tasks, notes = read_tasks(write(TASK | stray))

    assert len(tasks) == 1
    assert notes == (
        *(f"tasks/{number:02}.txt is ignored: it lies in no task's folder" for number in range(10)),
        "2 more files directly in tasks/ are ignored",
    )


def test_tasks_in_folders_of_their_owners_are_pointed_out(write: Write) -> None:
    files = {path.replace("/one/", "/owner/name-1/"): content for path, content in TASK.items()}

    assert problems_of(write(files)) == [
        Problem(
            "tasks/owner", "holds tasks one folder too deep; put their folders directly into tasks/"
        )
    ]


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"Mend it.", "Mend it."),
        (b"a\r\nb\rc\n", "a\nb\nc\n"),
        ("\ufeffübung".encode(), "übung"),
        ("übung\r\n".encode("utf-16"), "übung\n"),
        ("\ufeffübung".encode("utf-16-be"), "übung"),
        ("“übung” – €".encode("cp1252"), "“übung” – €"),
        (b"\x81\xfc", "\x81ü"),
    ],
    ids=["plain", "line ends", "UTF-8 BOM", "UTF-16", "UTF-16 BE", "cp1252", "latin-1"],
)
def test_prompt_is_rewritten_as_plain_utf8(raw: bytes, text: str, write: Write) -> None:
    task_folder = write(TASK | {"tasks/one/prompt.md": raw})

    folder = task_folder / only_task(task_folder).folder

    assert (folder / "prompt.md").read_bytes() == text.encode()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "is blank; say what the agent has to do"),
        (b"\xef\xbb\xbf \r\n\t", "is blank; say what the agent has to do"),
        (b"a\0b", "holds a NUL character; save it as UTF-8 text"),
        ("abc".encode("utf-32"), "holds a NUL character; save it as UTF-8 text"),
        (b"x" * (4 * 1024 * 1024 + 1), "is larger than 4194304 bytes; make it shorter"),
    ],
    ids=["empty", "blank", "NUL", "UTF-32", "too large"],
)
def test_prompt_that_says_nothing_is_refused(raw: bytes, message: str, write: Write) -> None:
    root = write(TASK | {"tasks/one/prompt.md": raw})

    assert problems_of(root) == [Problem("tasks/one/prompt.md", message)]


def test_scripts_are_tests_and_all_else_goes_into_the_repository(write: Write) -> None:
    files = {
        "b.sh": b"exit 0",
        "a/c.sh": b"exit 0",
        "a.sh": b"true",
        "test_x.py": b"a\r\n",
        "src/deep/__init__.py": b"",
        ".gitignore": b"x",
        "run.SH": b"x",
    }

    root = write(BASE | {f"tasks/one/tests/{name}": content for name, content in files.items()})
    task = only_task(root)

    assert task.tests == tuple(TestScript(name, file=name) for name in ("a.sh", "a/c.sh", "b.sh"))
    assert task.test_files == (".gitignore", "run.SH", "src/deep/__init__.py", "test_x.py")
    assert (root / "tasks/one/tests/test_x.py").read_bytes() == b"a\r\n"


@pytest.mark.parametrize(
    ("raw", "script"),
    [
        (b"#!/bin/bash\r\nexit 0\r\n", b"#!/bin/bash\nexit 0\n"),
        (b"\xef\xbb\xbfexit 0\n", b"exit 0\n"),
        ("exit 0\r\n".encode("utf-16"), b"exit 0\n"),
        (b"echo '\xfc'\r\n", b"echo '\xfc'\n"),
        (b"printf 'a\rb'\n", b"printf 'a\rb'\n"),
        (b"exit 0\r\n\0payload\r\n", b"exit 0\r\n\0payload\r\n"),
    ],
    ids=["line ends", "BOM", "UTF-16", "other bytes", "lone return", "payload"],
)
def test_script_is_rewritten_so_that_a_shell_can_run_it(
    raw: bytes, script: bytes, write: Write
) -> None:
    root = write(BASE | {"tasks/one/tests/t.sh": raw})
    (root / "tasks/one/tests/t.sh").chmod(0o755)

    read_tasks(root)

    path = root / "tasks/one/tests/t.sh"
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (script, 0o755)


def test_checks_stand_in_for_scripts(write: Write) -> None:
    checks = b"\xef\xbb\xbf# comment\r\n\r\n  make test \r\n\t# more\r\nmake test\r\nmake test (2)\r\nmake test"

    task = only_task(write(BASE | {"tasks/one/checks.txt": checks, "tasks/one/tests/help.py": b""}))

    assert task.test_files == ("help.py",)
    assert task.tests == (
        TestScript("make test", command="make test"),
        TestScript("make test (2)", command="make test"),
        TestScript("make test (2) (2)", command="make test (2)"),
        TestScript("make test (3)", command="make test"),
    )


def test_checks_are_not_looked_at_where_there_is_a_script(write: Write) -> None:
    assert only_task(write(TASK | {"tasks/one/checks.txt": b"\0"})).tests == (
        TestScript("check.sh", file="check.sh"),
    )


REFUSED = {
    "no tests": ({}, "tests", NO_SCRIPT),
    "only other files": ({"tests/a.py": b""}, "tests", NO_SCRIPT),
    "blank checks": ({"checks.txt": b"\r\n"}, "checks.txt", NO_COMMAND),
    "only comments": ({"checks.txt": b"# a\n # b"}, "checks.txt", NO_COMMAND),
    "NUL in checks": (
        {"checks.txt": b"a\0"},
        "checks.txt",
        "holds a NUL character; save it as UTF-8 text",
    ),
    "checks is a folder": ({"checks.txt/a": b""}, "checks.txt", "is a folder; it has to be a file"),
    "too many checks": (
        {"checks.txt": b"a\n" * 1001},
        "checks.txt",
        "has more than 1000 commands; put them into a script",
    ),
    "tests is a file": (
        {"tests": b"", "checks.txt": b"a"},
        "tests",
        "is a file; it has to be a folder",
    ),
    "into git": (
        {"tests/.git/hooks/post-commit": b"", "tests/a.sh": b"true"},
        "tests/.git/hooks/post-commit",
        "would land in the repository's .git; move it",
    ),
    "into git in capitals": (
        {"tests/.GIT/config": b"", "tests/a.sh": b"true"},
        "tests/.GIT/config",
        "would land in the repository's .git; move it",
    ),
    "into a nested git": (
        {"tests/sub/.git": b"", "tests/a.sh": b"true"},
        "tests/sub/.git",
        "would land in the repository's .git; move it",
    ),
    "half a UTF-16 script": (
        {"tests/a.sh": b"\xff\xfea"},
        "tests/a.sh",
        "is not valid UTF-16; save it as UTF-8",
    ),
    "script that is too large": (
        {"tests/a.sh": b"#" * (4 * 1024 * 1024 + 1)},
        "tests/a.sh",
        "is larger than 4194304 bytes; make it shorter",
    ),
}


@pytest.mark.parametrize(("files", "file", "message"), REFUSED.values(), ids=REFUSED)
def test_tests_that_cannot_judge_are_refused(
    files: dict[str, bytes], file: str, message: str, write: Write
) -> None:
    root = write(BASE | {f"tasks/one/{name}": content for name, content in files.items()})

    assert problems_of(root) == [Problem(f"tasks/one/{file}", message)]


def test_task_without_anything_is_refused_for_each_part(write: Write) -> None:
    root = write(TASK | {"tasks/two/README.md": b"", "tasks/one/workspace.yaml": WORKSPACE})

    assert problems_of(root) == [
        Problem("tasks/two/workspace.yaml", "is missing; add it"),
        Problem("tasks/two/prompt.md", "is missing; add it"),
        Problem("tasks/two/tests", NO_SCRIPT),
    ]


@pytest.mark.parametrize(
    "script",
    [b"", b"\n \t\r\n", b"#!/bin/bash\n", b"\xef\xbb\xbf#!/bin/bash\r\n# later\r\n"],
    ids=["empty", "blank", "only a first line", "only comments"],
)
def test_script_without_a_command_is_refused(script: bytes, write: Write) -> None:
    root = write({**BASE, "tasks/one/tests/ok.sh": b"true\n", "tasks/one/tests/void.sh": script})

    assert problems_of(root) == [
        Problem(
            "tasks/one/tests/void.sh",
            "has no command, so that it would pass by doing nothing; add one, or remove it",
        )
    ]
