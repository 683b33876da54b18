"""Finding processes that nobody holds any more: what is left to do when a reaper was killed.

A command without isolation runs as our own user and can kill the reaper that
holds its processes. They are then looked for by what they carry: the mark in
their environment, their session, their working directory. A program that sheds
all three gets away. That is why this keeper does not count as isolated.
"""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from batches.sandbox.promise import SandboxError

MARK = "TERM_EXECUTOR_SANDBOX"
PATIENCE_SECONDS = 30.0


def end(mark: str, session: int | None, below: Path) -> int:
    """Kill what carries ``mark``, is in ``session`` or works below a folder, and wait until it is dead.

    Returns how many processes were killed.
    """
    killed: set[int] = set()
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    quiet = 0
    # Twice, since a process has no environment to look at while it changes its program.
    while quiet < 2:
        found = set(_find(f"{MARK}={mark}".encode(), session, below))
        quiet = 0 if found else quiet + 1
        killed |= found
        if time.monotonic() > give_up_at:
            raise SandboxError(f"processes that do not die: {sorted(found)}")
        time.sleep(0.01)
    return len(killed)


def count_tasks(user: int) -> int:
    """How many processes and threads ``user`` has now, all of which a limit on processes counts."""
    return sum(
        len([task for task in _list(folder / "task") if _owner(task) == user])
        for folder in _processes()
    )


def _find(mark: bytes, session: int | None, below: Path) -> Iterator[int]:
    for folder in _processes():
        pid = int(folder.name)
        if pid == os.getpid():
            continue
        try:
            held = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            # Looked at and killed through one descriptor: the number may mean another by now.
            if _is_stray(folder, mark, session, below):
                signal.pidfd_send_signal(held, signal.SIGKILL)
                yield pid
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            pass  # it ended meanwhile, or is not ours
        finally:
            os.close(held)


def _is_stray(folder: Path, mark: bytes, session: int | None, below: Path) -> bool:
    fields = (folder / "stat").read_bytes().rpartition(b")")[2].split()
    state, its_session, threads = fields[0], int(fields[3]), int(fields[17])
    if state in (b"Z", b"X") and threads <= 1:
        return False
    if its_session == session:
        return True
    if mark in (folder / "environ").read_bytes().split(b"\0"):
        return True
    return (folder / "cwd").readlink().is_relative_to(below)


def _owner(folder: Path) -> int | None:
    try:
        return folder.stat().st_uid
    except (FileNotFoundError, ProcessLookupError):
        return None


def _processes() -> list[Path]:
    return [folder for folder in _list(Path("/proc")) if folder.name.isdigit()]


def _list(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, ProcessLookupError):
        return []
