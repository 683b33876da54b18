"""Runs one command under a reaper and watches it: its output, its time, and whether it is still wanted."""

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import IO, Any, cast

from batches.sandbox import strays
from batches.sandbox.output import HeadAndTail, Pump
from batches.sandbox.promise import Command, Finished, Limits, Reason, SandboxError

REAPER = Path(__file__).with_name("reaper.py")
LOOK_SECONDS = 0.1
"""How often the wish to cancel is looked at."""
GRACE_SECONDS = 5.0
"""How long a reaper may take to end everything before it is itself taken for lost."""


@dataclass
class Report:
    """What the reaper has told so far."""

    pid: int | None = None
    end: dict[str, Any] | None = None
    unread: bytes = b""

    def feed(self, data: bytes) -> None:
        *lines, self.unread = (self.unread + data).split(b"\n")
        for line in lines:
            told = json.loads(line)
            if self.pid is None:
                self.pid = told["pid"]
            else:
                self.end = told


def supervise(
    command: Command,
    env: Mapping[str, str],
    cwd: str,
    below: Path,
    cancel: threading.Event | None = None,
) -> Finished:
    """Run ``command`` to its end, and return when no process that came of it is alive.

    The calling thread has to live as long as the command: the kernel tells the
    reaper of the end of the thread that started it, and the reaper then ends
    everything. That, too, is what happens when this process is killed.
    ``below`` is where strays of a killed reaper are recognised by.
    """
    mark = uuid.uuid4().hex
    with ExitStack() as stack:
        output, output_writer = _pipe(stack)
        status, status_writer = _pipe(stack)
        pump = Pump(output.fileno(), HeadAndTail(command.limits.output_bytes))
        started = time.monotonic()
        reaper = subprocess.Popen(
            [sys.executable, "-I", "-S", str(REAPER), str(status_writer.fileno())],
            stdin=subprocess.PIPE,
            stdout=output_writer,
            stderr=output_writer,
            pass_fds=(status_writer.fileno(),),
            start_new_session=True,
            cwd="/",
            env={"LC_ALL": "C.UTF-8"},
        )
        watch = _Watch(command, reaper, pump, status.fileno(), started, cancel)
        try:
            output_writer.close()
            status_writer.close()
            _send_order(reaper, command, {**env, strays.MARK: mark}, cwd)
            watch.until_the_end()
        finally:
            # Also the way out of an exception thrown into this thread.
            survivors = watch.leave_nothing(mark, below)
        pump.drain()
        wall_seconds = time.monotonic() - started
    return watch.finished(wall_seconds, survivors)


class _Watch:
    def __init__(
        self,
        command: Command,
        reaper: "subprocess.Popen[bytes]",
        pump: Pump,
        status: int,
        started: float,
        cancel: threading.Event | None,
    ) -> None:
        self._limits = command.limits
        self._reaper = reaper
        self._pump = pump
        self._status = status
        self._deadline = started + command.timeout_seconds
        self._cancel = cancel
        self._stopped: Reason | None = None
        self._report = Report()

    def until_the_end(self) -> None:
        """Pump and watch until the reaper has reported the end, is gone, or does not answer."""
        events = select.poll()
        events.register(self._pump.pipe, select.POLLIN)
        events.register(self._status, select.POLLIN)
        give_up_at = float("inf")
        while self._report.end is None and time.monotonic() < give_up_at:
            wait = min(LOOK_SECONDS, max(0.0, self._deadline - time.monotonic()))
            if self._stopped is not None:
                wait = LOOK_SECONDS
            ready = {fd for fd, _ in events.poll(wait * 1000)}
            if self._pump.pipe in ready and not self._pump.read():
                events.unregister(self._pump.pipe)
            if self._status in ready:
                told = os.read(self._status, 65536)
                if not told:
                    return
                self._report.feed(told)
            if self._stopped is None and (reason := self._why_stop()) is not None:
                self._stopped = reason
                give_up_at = time.monotonic() + GRACE_SECONDS
                _ask_to_end(self._reaper)

    def _why_stop(self) -> Reason | None:
        if self._cancel is not None and self._cancel.is_set():
            return Reason.CANCELLED
        if self._printed_too_much():
            return Reason.OUTPUT
        if time.monotonic() >= self._deadline:
            return Reason.TIMEOUT
        return None

    def _printed_too_much(self) -> bool:
        most = self._limits.output_stop_bytes
        return most is not None and self._pump.kept.total > most

    def leave_nothing(self, mark: str, below: Path) -> int:
        """Have everything dead, the reaper too; returns how many survived the command."""
        _ask_to_end(self._reaper)
        try:
            self._reaper.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._reaper.kill()
            self._reaper.wait()
        if self._report.end is None:
            return strays.end(mark, self._report.pid, below)
        return int(self._report.end["survivors"])

    def finished(self, wall_seconds: float, survivors: int) -> Finished:
        kept = self._pump.kept
        if self._report.pid is None:
            last_words = kept.tail.decode(errors="replace").strip()
            raise SandboxError(f"the reaper failed with {self._reaper.returncode}: {last_words}")
        end = self._report.end or {"exit_code": None, "stopped": True}
        reason, exit_code = self._verdict(end["exit_code"], end["stopped"])
        return Finished(
            exit_code=exit_code,
            reason=reason,
            head=kept.head,
            tail=kept.tail,
            output_bytes=kept.total,
            wall_seconds=wall_seconds,
            cpu_seconds=end.get("cpu_seconds", 0.0),
            peak_memory_bytes=end.get("peak_memory_bytes", 0),
            survivors=survivors,
        )

    def _verdict(self, exit_code: int | None, stopped: bool) -> tuple[Reason, int | None]:
        if self._printed_too_much():
            return Reason.OUTPUT, None
        if stopped and self._stopped is not None:
            return self._stopped, None
        if stopped:  # the command went for its reaper, which took it along
            return Reason.KILLED, -signal.SIGKILL
        if exit_code == -signal.SIGXFSZ and self._limits.file_bytes is not None:
            return Reason.DISK, exit_code
        if exit_code is not None and exit_code < 0:
            return Reason.KILLED, exit_code
        return Reason.EXITED, exit_code


def _pipe(stack: ExitStack) -> tuple[FileIO, FileIO]:
    reading, writing = os.pipe()
    return stack.enter_context(FileIO(reading, "r")), stack.enter_context(FileIO(writing, "w"))


def _send_order(
    reaper: "subprocess.Popen[bytes]", command: Command, env: Mapping[str, str], cwd: str
) -> None:
    order = json.dumps(
        {
            "parent": os.getpid(),
            "argv": command.argv,
            "env": dict(env),
            "cwd": cwd,
            "limits": _resource_limits(command.limits),
        }
    ).encode()
    stdin = cast(IO[bytes], reaper.stdin)
    try:
        stdin.write(len(order).to_bytes(8, "big") + order)
        stdin.flush()
    except BrokenPipeError:
        pass  # it ended at once; its last words tell why


def _ask_to_end(reaper: "subprocess.Popen[bytes]") -> None:
    try:
        cast(IO[bytes], reaper.stdin).close()
    except BrokenPipeError:
        pass  # it is gone already
    if reaper.poll() is None:
        reaper.send_signal(signal.SIGCONT)  # the command may have stopped it


def _resource_limits(limits: Limits) -> dict[str, int]:
    wanted = {
        "core": 0,
        "fsize": limits.file_bytes,
        "nofile": limits.open_files,
        "data": limits.memory_bytes,
        "nproc": None,
    }
    if limits.processes is not None and os.geteuid() != 0:
        # The kernel counts all that this user runs, ourselves included, and root not at all.
        wanted["nproc"] = limits.processes + strays.count_tasks(os.geteuid())
    return {name: value for name, value in wanted.items() if value is not None}
