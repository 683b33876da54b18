"""The process in between: runs one command and ends everything that came of it.

Started as a script by ``supervise`` in an interpreter without site-packages,
and never imported from it, so it imports nothing of ours. It adopts every
process that the command leaves behind (``PR_SET_CHILD_SUBREAPER``), which makes
them its children, however often they forked or changed their session, and it
does not end before the last of them is dead.

Standard input brings the order (eight bytes of length, then JSON) and stays
open: its end, or the death of the thread that started us, or a SIGTERM, means
"end it now". Standard output and error are the command's. The status pipe,
whose number is the only argument, gets one line of JSON when the command has started
and one when all is over.
"""

import ctypes
import errno
import json
import os
import resource
import select
import signal
import sys
from typing import Any, NamedTuple, NoReturn

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

LIMITS = {
    "core": resource.RLIMIT_CORE,
    "data": resource.RLIMIT_DATA,
    "fsize": resource.RLIMIT_FSIZE,
    "nofile": resource.RLIMIT_NOFILE,
    "nproc": resource.RLIMIT_NPROC,
}


def main() -> None:
    status = int(sys.argv[1])
    os.set_inheritable(status, False)
    woken = listen_to_signals()
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    # A command of our own user could otherwise trace us or write into the status pipe.
    prctl(PR_SET_DUMPABLE, 0)
    order = read_order()
    if os.getppid() != order["parent"]:  # it died before PR_SET_PDEATHSIG
        return

    command = os.fork()
    if command == 0:
        become(order)
    tell(status, pid=command)

    exit_code, stopped = wait(command, woken)
    killed = end_descendants(woken)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    tell(
        status,
        exit_code=exit_code,
        stopped=stopped,
        survivors=0 if stopped else killed,
        cpu_seconds=used.ru_utime + used.ru_stime,
        peak_memory_bytes=used.ru_maxrss * 1024,
    )


def listen_to_signals() -> int:
    """Turn SIGCHLD and SIGTERM into bytes on a pipe, whose reading end is returned; ignore the rest."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return reading


def prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")


def read_order() -> dict[str, Any]:
    size = int.from_bytes(read_exactly(8), "big")
    order: dict[str, Any] = json.loads(read_exactly(size))
    return order


def read_exactly(size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = os.read(0, size - len(data))
        if not more:
            raise SystemExit("no order came")
        data += more
    return data


def tell(status: int, **report: Any) -> None:
    try:
        os.write(status, json.dumps(report).encode() + b"\n")
    except BrokenPipeError:
        pass  # the server is gone, and with it whoever wanted to know


def become(order: dict[str, Any]) -> NoReturn:
    """Turn this process, just forked, into the command. Failing to is told as a shell would."""
    code, message = 126, "the command could not be started"
    try:
        signal.set_wakeup_fd(-1)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        # Its own session: `kill 0` and the like must not reach the reaper.
        os.setsid()
        os.umask(0o022)
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        # Without it, a setuid program could become a process that we may not kill.
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        try:
            os.chdir(order["cwd"])
        except OSError as error:
            raise OSError(error.errno, f"cannot work in {order['cwd']}: {error.strerror}") from None
        for name, value in order["limits"].items():
            set_limit(LIMITS[name], value)
        os.execvpe(order["argv"][0], order["argv"], order["env"])  # noqa: S606 - no shell is meant
    except OSError as error:
        program = order["argv"][0]
        message = f"{program}: {error.strerror}"
        if error.errno in (errno.ENOENT, errno.ENOTDIR) and error.filename is not None:
            code, message = 127, f"{program}: not found"
    except ValueError as error:
        message = f"{order['argv'][0]!r}: {error}"
    finally:
        # Whatever went wrong, this copy of the reaper must not go on as a second one.
        os.write(2, message.encode(errors="backslashreplace") + b"\n")
        os._exit(code)


def set_limit(limit: int, value: int) -> None:
    """Lower both limits to ``value``, or to what is allowed at all."""
    _, hard = resource.getrlimit(limit)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(limit, (value, value))


def wait(command: int, woken: int) -> tuple[int | None, bool]:
    """Wait for the command's end (its exit code) or for the order to stop it (``True``)."""
    events = select.poll()
    events.register(woken, select.POLLIN)
    events.register(0, select.POLLIN)
    while True:
        ready = {fd for fd, _ in events.poll()}
        signals = os.read(woken, 4096) if woken in ready else b""
        while (ended := reap()) is not None:
            pid, exit_code = ended
            if pid == command:
                return exit_code, False
        if 0 in ready or signal.SIGTERM in signals:
            return None, True


def reap() -> tuple[int, int] | None:
    """Bury one dead child; ``None`` when none is dead. ChildProcessError when there is none at all."""
    pid, status = os.waitpid(-1, os.WNOHANG)
    return (pid, os.waitstatus_to_exitcode(status)) if pid else None


def end_descendants(woken: int) -> int:
    """Kill and bury until no descendant is left; returns how many were found alive."""
    killed: set[int] = set()
    events = select.poll()
    events.register(woken, select.POLLIN)
    while True:
        try:
            while reap() is not None:
                pass
        except ChildProcessError:
            return len(killed)
        alive = descendants()
        # Groups first: the kernel ends a group at once, a loop over pids can lose to a fork bomb.
        for group in {process.group for process in alive} - {os.getpgrp()}:
            kill(-group)
        for process in alive:
            kill(process.pid)
            killed.add(process.pid)
        if events.poll(5):
            os.read(woken, 4096)


def kill(target: int) -> None:
    try:
        os.kill(target, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # already gone, or a user's that we may not touch: waiting for it is all that is left


class Process(NamedTuple):
    pid: int
    parent: int
    group: int
    alive: bool


def descendants() -> list[Process]:
    """Everything alive below this process."""
    children: dict[int, list[Process]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208 - slow to import
        process = look_at(name)
        if process is not None:
            children.setdefault(process.parent, []).append(process)
    below: list[Process] = []
    pending = [os.getpid()]
    while pending:
        found = children.get(pending.pop(), [])
        pending += [process.pid for process in found]
        below += [process for process in found if process.alive]
    return below


def look_at(pid: str) -> Process | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - likewise
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, parent, group, threads = fields[0], int(fields[1]), int(fields[2]), int(fields[17])
    # A program whose first thread has ended looks like a zombie while its other threads run.
    alive = state not in (b"Z", b"X") or threads > 1
    return Process(int(pid), parent, group, alive)


if __name__ == "__main__":
    main()
