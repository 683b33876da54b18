"""Processes of this host by an identity that a reused pid cannot fake. No Django, no database."""

import ctypes
import os
from dataclasses import dataclass
from pathlib import Path

PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class ProcessId:
    """A pid and the moment, in clock ticks since boot, at which the process began."""

    pid: int
    birth: int

    @classmethod
    def of(cls, pid: int) -> "ProcessId | None":
        """The identity of a live process; ``None`` when there is none. A zombie is not alive."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="latin-1")
        except OSError:
            return None
        # The program's name stands in brackets and may contain blanks and brackets itself.
        fields = stat.rpartition(")")[2].split()
        return None if fields[0] in ("Z", "X") else cls(pid, int(fields[19]))

    @classmethod
    def own(cls) -> "ProcessId":
        own = cls.of(os.getpid())
        if own is None:
            raise RuntimeError("/proc is not mounted: this program needs Linux's process table")
        return own

    @property
    def alive(self) -> bool:
        return ProcessId.of(self.pid) == self


def boot_id() -> str:
    """The running kernel's own name for this boot; the same in every container of a host."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


PARENT_VARIABLE = "TERM_EXECUTOR_PARENT"
"""Holds the pid of the supervisor that started a process of ours."""


def die_with_parent(signal_number: int) -> None:
    """Ask the kernel for ``signal_number`` when the process that started this one ends.

    A parent that was gone before the question is noticed too: the pid that
    a supervisor left in the environment, or that the caller had, is no longer ours.
    """
    expected = os.environ.pop(PARENT_VARIABLE, None)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if expected is not None and os.getppid() != int(expected):
        raise SystemExit("the supervisor is gone")


def members(group: int) -> set[ProcessId]:
    """The live processes of a process group."""
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if os.getpgid(int(entry.name)) != group:
                continue
        except ProcessLookupError:
            continue
        process = ProcessId.of(int(entry.name))
        if process is not None:
            found.add(process)
    return found
