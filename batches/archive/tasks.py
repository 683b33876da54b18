"""``tasks/``: a folder for each task, and what each is about."""

import os
import unicodedata
from pathlib import Path

from batches.archive.problems import shown
from batches.archive.specs import BadArchive, Problem, TaskSpec, TestScript
from batches.archive.text import BadText, any_text, read_bytes, shell_script
from batches.archive.workspace import Workspace, read_workspace

MAX_TASK_ID_CHARACTERS = 200
MAX_CHECKS = 1000


def read_tasks(root: Path) -> tuple[tuple[TaskSpec, ...], tuple[str, ...]]:
    """The tasks of the archive unpacked to ``root``, and notes on what was ignored.

    Texts are rewritten on the way so that a program can use them. Raises
    ``BadArchive`` with the problems of all tasks: one that cannot be used
    would change the mean over those that can.
    """
    folder = root / "tasks"
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    specs, problems = [], []
    for entry in entries:
        if entry.is_dir():
            try:
                specs.append(read_task(entry))
            except BadArchive as bad:
                problems += bad.problems
    if not any(entry.is_dir() for entry in entries):
        problems.append(Problem("tasks", "holds no task; add a folder tasks/<task-id>/ for each"))
    if problems:
        raise BadArchive(problems)

    stray = [shown(entry.name) for entry in entries if not entry.is_dir()]
    notes = [f"tasks/{name} is ignored: it lies in no task's folder" for name in stray[:10]]
    if stray[10:]:
        notes.append(f"{len(stray) - 10} more files directly in tasks/ are ignored")
    return tuple(specs), tuple(notes)


def read_task(folder: Path) -> TaskSpec:
    """The task in ``folder``. Raises ``BadArchive`` with all its problems."""
    file = f"tasks/{folder.name}"
    reader = TaskReader(folder, file)
    if reader.is_one_level_too_high():
        raise BadArchive(
            [
                Problem(
                    file, "holds tasks one folder too deep; put their folders directly into tasks/"
                )
            ]
        )
    reader.check_name()
    workspace = reader.workspace()
    reader.rewrite_prompt()
    tests, test_files = reader.tests()
    if workspace is None or reader.problems:
        raise BadArchive(reader.problems)
    return TaskSpec(
        name=folder.name,
        folder=file,
        repo=workspace.repo,
        base_commit=workspace.base_commit,
        version=workspace.version,
        language=workspace.language,
        install=workspace.install,
        tests=tests,
        test_files=test_files,
    )


class TaskReader:
    """Reads the parts of one task, and gathers their problems."""

    def __init__(self, folder: Path, file: str) -> None:
        self.folder = folder
        self.file = file
        self.problems: list[Problem] = []

    def refuse(self, name: str, message: str) -> None:
        self.problems.append(Problem(f"{self.file}/{name}", message))

    def is_one_level_too_high(self) -> bool:
        """Whether this is the owner's folder of tasks that are called owner/name."""
        if (self.folder / "workspace.yaml").exists():
            return False
        return any(self.folder.glob("*/workspace.yaml"))

    def check_name(self) -> None:
        name = self.folder.name
        if len(name) > MAX_TASK_ID_CHARACTERS:
            message = (
                f"has a name that is too long; use at most {MAX_TASK_ID_CHARACTERS} characters"
            )
            self.problems.append(Problem(self.file, message))
        if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in name):
            message = "has control characters in its name; rename it"
            self.problems.append(Problem(self.file, message))

    def workspace(self) -> Workspace | None:
        try:
            return read_workspace(self.folder / "workspace.yaml", f"{self.file}/workspace.yaml")
        except BadArchive as bad:
            self.problems += bad.problems
            return None

    def rewrite_prompt(self) -> None:
        path = self.folder / "prompt.md"
        try:
            text = any_text(read_bytes(path))
        except BadText as bad:
            self.refuse(path.name, str(bad))
            return
        if not text.strip():
            self.refuse(path.name, "is blank; say what the agent has to do")
        path.write_bytes(text.encode())

    def tests(self) -> tuple[tuple[TestScript, ...], tuple[str, ...]]:
        """The tests, and the files that they need in the repository."""
        files = self.files_of_tests()
        scripts = [name for name in files if name.endswith(".sh")]
        for name in scripts:
            self.rewrite_script(name)
        tests = tuple(TestScript(name, file=name) for name in scripts) or self.checks()
        return tests, tuple(name for name in files if not name.endswith(".sh"))

    def files_of_tests(self) -> list[str]:
        """All files of ``tests/``, relative to it, in the order of their paths."""
        top = self.folder / "tests"
        if top.exists() and not top.is_dir():
            self.refuse("tests", "is a file; it has to be a folder")
        files = sorted(
            (Path(folder) / name).relative_to(top).as_posix()
            for folder, _, names in os.walk(top)
            for name in names
        )
        for name in files:
            if ".git" in name.casefold().split("/"):
                self.refuse(f"tests/{name}", "would land in the repository's .git; move it")
        return files

    def rewrite_script(self, name: str) -> None:
        path = self.folder / "tests" / name
        try:
            before = read_bytes(path)
            after = shell_script(before)
        except BadText as bad:
            self.refuse(f"tests/{name}", str(bad))
            return
        if not any(
            line.strip() and not line.lstrip().startswith(b"#") for line in after.split(b"\n")
        ):
            self.refuse(
                f"tests/{name}",
                "has no command, so that it would pass by doing nothing; add one, or remove it",
            )
        if after != before:
            path.write_bytes(after)

    def checks(self) -> tuple[TestScript, ...]:
        """The commands of ``checks.txt``, which stand in for scripts."""
        path = self.folder / "checks.txt"
        if not path.exists():
            self.refuse(
                "tests",
                "holds no script, so that the task would pass by doing nothing; "
                "add tests/*.sh, or checks.txt",
            )
            return ()
        try:
            lines = [line.strip() for line in any_text(read_bytes(path)).split("\n")]
        except BadText as bad:
            self.refuse(path.name, str(bad))
            return ()
        commands = [line for line in lines if line and not line.startswith("#")]
        if not commands:
            self.refuse(
                path.name,
                "has no command, so that the task would pass by doing nothing; "
                "add one, or a script tests/*.sh",
            )
        if len(commands) > MAX_CHECKS:
            self.refuse(path.name, f"has more than {MAX_CHECKS} commands; put them into a script")
            return ()
        return named_apart(commands)


def named_apart(commands: list[str]) -> tuple[TestScript, ...]:
    """A test for each command, called like it; one that is repeated gets a number."""
    tests: dict[str, TestScript] = {}
    for command in commands:
        name, number = command, 1
        while name in tests:
            number += 1
            name = f"{command} ({number})"
        tests[name] = TestScript(name, command=command)
    return tuple(tests.values())
