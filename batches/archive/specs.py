"""What an archive says, as plain values: the tasks, the agent and the problems found."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Problem:
    """One reason to refuse an archive, and the file inside it that the reason is about."""

    file: str
    message: str

    def as_json(self) -> dict[str, str]:
        return asdict(self)


class BadArchive(Exception):
    """The archive cannot be accepted. Carries every problem that was found, not just the first."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("; ".join(f"{p.file}: {p.message}" for p in problems))


@dataclass(frozen=True)
class Limits:
    """What an archive may ask of the disk.

    ``max_ratio`` is unpacked bytes per archive byte; it is only looked at
    beyond ``ratio_free_bytes``, since small texts compress very well.
    """

    max_files: int
    max_unpacked_bytes: int
    max_ratio: int
    ratio_free_bytes: int = 16 * 1024 * 1024


@dataclass(frozen=True)
class TestScript:
    """One test: a script of ``tests/`` (``file`` is relative to it) or a shell command line."""

    __test__ = False  # not for pytest to collect

    name: str
    file: str | None = None
    command: str | None = None


@dataclass(frozen=True)
class TaskSpec:
    """One task as its author wrote it.

    ``folder`` is where the task's files lie, relative to the unpacked archive:
    ``prompt.md`` (rewritten as UTF-8) and ``tests/`` are found there.
    ``test_files`` are the files of ``tests/`` that belong into the repository
    before the tests run, relative to ``tests/`` and to the repository's root alike.
    """

    name: str
    folder: str
    repo: str
    base_commit: str | None
    version: str | None
    language: str | None
    install: tuple[str, ...]
    tests: tuple[TestScript, ...]
    test_files: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "TaskSpec":
        return cls(
            **{
                **data,
                "install": tuple(data["install"]),
                "tests": tuple(TestScript(**test) for test in data["tests"]),
                "test_files": tuple(data["test_files"]),
            }
        )


@dataclass(frozen=True)
class AgentSpec:
    """The agent: its tree (``folder``, relative to the unpacked archive) and its entry file in it."""

    folder: str
    entry: str
    language: str

    def as_json(self) -> dict[str, str]:
        return asdict(self)


@dataclass(frozen=True)
class Submission:
    """An accepted archive. ``root`` is the folder that it was unpacked to."""

    root: Path
    tasks: tuple[TaskSpec, ...]
    agent: AgentSpec
    notes: tuple[str, ...] = field(default=())
