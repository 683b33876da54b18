"""The sandbox's promise: what every keeper does, in types that know nothing of how.

A keeper makes writable *layers* from frozen *snapshots*, runs commands in them
and hands back what became of each command. The pipeline speaks only these
names; ``bubblewrap``, ``process`` and the scripted keeper of the tests differ
in nothing that it can see but ``Capabilities``.

Every keeper promises, and one suite of tests checks on each of them:

- a command starts with a cleaned environment, an empty standard input and no
  inherited descriptors;
- when ``run`` returns, no process started by the command is alive, however it
  tried to get away;
- ``run`` never raises for what a command does: crashing, hanging, flooding its
  output or killing itself is a ``Finished``; only trouble of our own is an exception;
- output costs constant memory, whatever the command prints;
- what a command leaves on disk (links, FIFOs, devices, odd names and modes) cannot make
  the keeper read or write outside the layer, nor keep ``discard`` from removing it.

Nothing in this package imports Django: it can be tried in a shell.
"""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol


class Reason(StrEnum):
    """Why a command ended."""

    EXITED = "exited"
    """By itself; ``exit_code`` says how."""
    TIMEOUT = "timeout"
    OOM = "oom"
    OUTPUT = "output"
    DISK = "disk"
    KILLED = "killed"
    """By a signal that the keeper did not send; ``exit_code`` is minus its number."""
    CANCELLED = "cancelled"


class SandboxError(Exception):
    """The keeper's own machinery failed. Never the fault of what ran inside."""


class SandboxUnavailable(SandboxError):
    """This machine cannot keep the promise; the message says what is missing."""


class PatchRefused(Exception):
    """What the agent left cannot become a patch, or does not apply: the task's story, not ours."""


@dataclass(frozen=True)
class Capabilities:
    """What ``probe`` found: the keeper's name, whether it works here, and what it cannot hold."""

    keeper: str
    usable: bool
    isolated: bool
    """True when strangers' code cannot see or touch this machine."""
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Limits:
    """The most that one command may use. ``None`` leaves a resource alone."""

    output_bytes: int = 1024 * 1024
    """Kept of the output: half from its beginning, half from its end."""
    output_stop_bytes: int | None = None
    """Printing more than this ends the command with ``Reason.OUTPUT``."""
    memory_bytes: int | None = None
    processes: int | None = None
    file_bytes: int | None = 4 * 1024**3
    open_files: int | None = 4096


@dataclass(frozen=True)
class Command:
    """One program to run in a layer.

    ``argv`` is looked up on the sandbox's own PATH. ``env`` is added to the
    keeper's clean environment. ``cwd`` is a path as seen inside; the repository when ``None``.
    """

    argv: tuple[str, ...]
    timeout_seconds: float
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    limits: Limits = field(default_factory=Limits)
    network: str = "full"


@dataclass(frozen=True)
class Finished:
    """What became of a command. Times in seconds, sizes in bytes."""

    exit_code: int | None
    """The code it exited with, minus the signal's number, or ``None`` when the keeper stopped it."""
    reason: Reason
    head: bytes
    tail: bytes
    output_bytes: int
    """All that was printed; more than ``len(head) + len(tail)`` when the middle was cut."""
    wall_seconds: float
    cpu_seconds: float
    peak_memory_bytes: int
    survivors: int = 0
    """Processes that were still alive when the command itself had ended, and had to be killed."""

    @property
    def ok(self) -> bool:
        return self.reason is Reason.EXITED and self.exit_code == 0

    @property
    def truncated(self) -> bool:
        return self.output_bytes > len(self.head) + len(self.tail)


@dataclass(frozen=True)
class Snapshot:
    """Something frozen that layers are forked from. ``root`` is the keeper's own business."""

    root: Path


@dataclass(frozen=True)
class Layer:
    """A writable copy of the snapshot that it was forked from.

    ``repo`` and ``home`` are paths as commands see them inside.
    """

    root: Path
    repo: str
    home: str


@dataclass(frozen=True)
class FileToPut:
    """A file to write into a layer's repository; ``path`` is relative to the repository's root."""

    path: str
    source: Path
    executable: bool = False


@dataclass(frozen=True)
class Patch:
    """What the agent changed, as ``git diff --binary`` wrote it."""

    diff: bytes
    notes: tuple[str, ...] = ()
    """What could not be carried, in sentences: nested repositories, and the like."""


class Keeper(Protocol):
    """Keeps the promise. One object serves one task; ``workdir`` is its own and is removed with it."""

    def probe(self) -> Capabilities:
        """Try the real thing on this machine. Fails closed."""

    def open_base(self) -> Snapshot:
        """The frozen ground that every task starts from."""

    def fork(self, snapshot: Snapshot, name: str) -> Layer:
        """A new writable layer over ``snapshot``. ``name`` is unique within the task."""

    def show(self, layer: Layer, source: Path, name: str, *, ours: bool = False) -> str:
        """Make a file or folder of the server readable inside ``layer``; returns its path there.

        It lies outside the repository and the command cannot change ``source``
        through it. ``ours`` says that only commands of our own will see it: a
        keeper that has no mounts may then hand out the source itself, not a copy.
        """

    def put(self, layer: Layer, files: Iterable[FileToPut]) -> None:
        """Write ``files`` into the layer's repository, replacing what is there, never through a link."""

    def run(
        self, layer: Layer, command: Command, cancel: threading.Event | None = None
    ) -> Finished:
        """Run ``command`` to its end; when ``cancel`` is set, end it at once."""

    def freeze(self, layer: Layer) -> Snapshot:
        """Turn ``layer`` into a snapshot. The layer must not be used afterwards."""

    def export_patch(self, layer: Layer, since: Snapshot, max_bytes: int) -> Patch:
        """The difference between the repository in ``layer`` and in ``since``.

        Taken with a git directory that nothing in ``layer`` ever touched.
        Raises ``PatchRefused`` when it is larger than ``max_bytes``.
        """

    def apply_patch(self, layer: Layer, patch: Patch) -> None:
        """Apply a patch from ``export_patch`` to the repository in ``layer``; raises ``PatchRefused``."""

    def discard(self, layer: Layer | Snapshot) -> None:
        """Remove it from the disk, whatever was left in it."""

    def close(self) -> None:
        """Remove everything that this keeper made. Safe to call twice."""
