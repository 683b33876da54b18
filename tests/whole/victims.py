"""The processes of a running server by what they do, for tests that kill them."""

import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from batches.processes import ProcessId
from tests.whole.running import Server

SETTLED_TICKS = 3 * os.sysconf("SC_CLK_TCK")
"""From this age on, a cluster's processes are known to the worker that watches them."""


@dataclass(frozen=True)
class Cluster:
    """django-q2's processes, none of which says what it is. They are told apart by when they began."""

    main: int
    sentinel: int
    lanes: list[int]
    monitor: int
    pusher: int


def cluster(server: Server) -> Cluster:
    """The server's queue cluster, once it is complete and has been for a while."""
    found: Cluster = server.wait_for(lambda: _settled(server), 60, "a settled queue cluster")
    return found


def _settled(server: Server) -> Cluster | None:
    lanes = int(server.environment["MAX_CONCURRENT_TASKS"])
    members = [ProcessId.of(pid) for pid in server.pids("batches.cluster")]
    ages = [_now() - member.birth for member in members if member is not None]
    if len(ages) != lanes + 4 or None in members or min(ages) < SETTLED_TICKS:
        return None  # not complete, or a second one is there, which retires
    main, sentinel, *rest = sorted((m for m in members if m is not None), key=_age)
    # In the beginning the lanes, then the monitor, then the pusher; later only lanes are
    # put in place of lanes: the death of any other retires the whole cluster.
    first = [rest[0]]
    for member in rest[1:]:
        if member.birth - first[-1].birth < SETTLED_TICKS / 3:
            first.append(member)
    monitor, pusher = first[-2:]
    return Cluster(
        main.pid,
        sentinel.pid,
        [member.pid for member in rest if member not in (monitor, pusher)],
        monitor.pid,
        pusher.pid,
    )


def _age(process: ProcessId) -> tuple[int, int]:
    return process.birth, process.pid


def _now() -> int:
    uptime = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
    return int(uptime * os.sysconf("SC_CLK_TCK"))


def below(server: Server, pid: int) -> set[int]:
    """The descendants of a process."""
    found: set[int] = set()
    pending = [pid]
    while pending:
        children = server.children(pending.pop())
        pending += children
        found |= set(children)
    return found


def kill(*pids: int) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def alive(pids: Iterable[int]) -> list[int]:
    """Those that still run; to be asked soon, before a number is used again."""
    return [pid for pid in pids if ProcessId.of(pid) is not None]


def wait_until_gone(server: Server, pids: Iterable[int], seconds: float, what: str) -> float:
    """Wait for the end of processes; returns how long it took."""
    began = time.monotonic()
    server.wait_for(lambda: not alive(pids), seconds, f"the end of {what}")
    return time.monotonic() - began
