"""Children that are watched, restarted when they die, and ended together."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from batches.processes import PARENT_VARIABLE, ProcessId, members

logger = logging.getLogger(__name__)

RESTART_SECONDS = (0.0, 0.5, 1.0, 2.0, 5.0)
"""Pauses before a child is started again; the last is repeated."""
STEADY_SECONDS = 30.0
"""A child that lived so long begins again with the first pause."""

ROOT = Path(__file__).resolve().parent.parent


class Child:
    """A process that leads a session of its own, with everything that it starts there."""

    def __init__(self, name: str, arguments: Sequence[str], environment: dict[str, str]) -> None:
        self.name = name
        self._arguments = [sys.executable, *arguments]
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._deaths = 0
        self._not_before = 0.0

    def start(self) -> None:
        """Start it. Call from a thread that lives on: its end would end the child too."""
        self._started = time.monotonic()
        self._process = subprocess.Popen(
            self._arguments,
            cwd=ROOT,
            env={**os.environ, **self._environment, PARENT_VARIABLE: str(os.getpid())},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def keep_alive(self) -> None:
        """Start it again when it has died, after a pause that grows with each death."""
        if self.running:
            return
        now = time.monotonic()
        if self._process is not None:
            code = self._process.returncode
            self.kill()
            steady = now - self._started > STEADY_SECONDS
            self._deaths = 1 if steady else self._deaths + 1
            pause = RESTART_SECONDS[min(self._deaths, len(RESTART_SECONDS)) - 1]
            self._not_before = now + pause
            logger.warning("%s ended with code %s, starting it again", self.name, code)
        if now >= self._not_before:
            self.start()

    def members(self) -> set[ProcessId]:
        """The live processes of its group."""
        return members(self.pid) if self.pid else set()

    def ask_to_end(self) -> None:
        """Send SIGTERM to the leader alone: it knows how to end what it started."""
        if self.running:
            os.kill(self.pid, signal.SIGTERM)

    def wait(self, seconds: float) -> bool:
        """Whether it ended within ``seconds``."""
        if self._process is None:
            return True
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """End the whole group at once, and wait for its leader."""
        if self._process is None:
            return
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()
        self._process = None


class Stop:
    """Whether SIGTERM or SIGINT has come. Later ones change nothing: ending is under way."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: object) -> None:
        self.asked = True

    def wait(self, seconds: float, meanwhile: Callable[[], bool] = lambda: False) -> None:
        """Sleep for ``seconds``, less when a stop is asked for or ``meanwhile`` comes true."""
        end = time.monotonic() + seconds
        while not self.asked and not meanwhile() and time.monotonic() < end:
            time.sleep(0.05)


def end_all(children: Sequence[Child], seconds: float) -> None:
    """Ask all children to end, give them ``seconds`` together, and kill the rest."""
    for child in children:
        child.ask_to_end()
    end = time.monotonic() + seconds
    for child in children:
        if not child.wait(max(end - time.monotonic(), 0)):
            logger.warning("%s did not end within %g s", child.name, seconds)
        child.kill()
