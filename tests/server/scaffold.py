"""Servers for tests: real processes on free ports, raw connections to them, and their memory."""

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MIB = 1024 * 1024
PATIENCE_SECONDS = 20.0


@dataclass(frozen=True)
class Answer:
    """One HTTP answer as it was read from a raw connection."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Ended:
    """What is left of a server that has ended."""

    exit_code: int
    log: str


@dataclass
class RunningServer:
    """A server in a process of its own. Its standard error goes to ``folder``/server.log."""

    process: "subprocess.Popen[str]"
    folder: Path
    port: int = 0
    connections: list[socket.socket] = field(default_factory=list)

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def connect(self) -> socket.socket:
        """A raw connection, closed with the server."""
        connection = socket.create_connection(("127.0.0.1", self.port), PATIENCE_SECONDS)
        self.connections.append(connection)
        return connection

    def get(self, path: str) -> "Answer":
        """An answer over a connection of its own, without the weight of a real client."""
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE_SECONDS) as connection:
            connection.sendall(head("GET", path, connection="close"))
            return read_answer(connection)

    def notes(self) -> list[Any]:
        """What the application has noted so far."""
        return list(json.loads(self.get("/notes").body))

    def reset_peak(self) -> None:
        """Let VmHWM begin again at what is used now."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def status_bytes(self, name: str) -> int:
        """A size from /proc/PID/status: VmHWM for the peak of its memory, VmRSS for now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(
            int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(name)
        )

    def written_bytes(self) -> int:
        """All that the process has ever passed to write(), files and pipes alike."""
        io = Path(f"/proc/{self.process.pid}/io").read_text()
        return next(int(line.split()[1]) for line in io.splitlines() if line.startswith("wchar"))

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self) -> Ended:
        return Ended(self.process.wait(PATIENCE_SECONDS), self.log.read_text())


@contextlib.contextmanager
def start_server(folder: Path, application: str, **options: Any) -> Iterator[RunningServer]:
    """Serve ``application`` ("module:name" in this package); ``options`` are ``serve``'s.

    Its temporary files go to ``folder``/tmp, and only there. Killed at the end if it still runs.
    """
    scratch = folder / "tmp"
    scratch.mkdir(parents=True)
    with (folder / "server.log").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.server.run", application, json.dumps(options)],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(scratch), "SITE_FOLDER": str(folder)},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    server = RunningServer(process, folder)
    try:
        server.port = read_port(process, server.log)
        yield server
    finally:
        for connection in server.connections:
            connection.close()
        process.kill()
        process.communicate()


def read_port(process: "subprocess.Popen[str]", log: Path) -> int:
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        line = process.stdout.readline() if selector.select(PATIENCE_SECONDS) else ""
    if not line:
        raise AssertionError(f"the server did not start:\n{log.read_text()}")
    return int(line)


def eventually(condition: Callable[[], Any]) -> Any:
    """What ``condition`` returns as soon as that is true."""
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not happen in time")


def head(method: str, path: str, **headers: str | int) -> bytes:
    """A request's head. ``content_length=3`` becomes ``content-length: 3``."""
    lines = [f"{method} {path} HTTP/1.1", "host: test"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def read_head(connection: socket.socket) -> tuple[int, dict[str, str]]:
    """The next status and headers, byte by byte so that nothing behind them is taken."""
    status = read_line(connection)
    headers = {}
    while line := read_line(connection):
        name, value = line.decode("latin1").lower().split(": ", 1)
        headers[name] = value
    return int(status.split()[1]), headers


def read_answer(connection: socket.socket) -> Answer:
    """The next answer, its body delimited by content-length or chunks."""
    status, headers = read_head(connection)
    if "content-length" in headers:
        return Answer(status, headers, read_exactly(connection, int(headers["content-length"])))
    body = b""
    while length := int(read_line(connection), 16):
        body += read_exactly(connection, length)
        read_line(connection)
    read_line(connection)
    return Answer(status, headers, body)


def read_line(connection: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\r\n"):
        line += read_exactly(connection, 1)
    return line.rstrip()


def read_exactly(connection: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        more = connection.recv(length - len(data))
        if not more:
            raise EOFError(f"the server closed after {data!r}")
        data += more
    return data


def read_to_end(connection: socket.socket) -> bytes:
    """Everything until the server closes, politely or not."""
    data = b""
    with contextlib.suppress(ConnectionError):
        while more := connection.recv(65536):
            data += more
    return data


def push(connection: socket.socket, total_bytes: int) -> int:
    """Send zeros until ``total_bytes`` are out or the server closes; returns how many it took."""
    block = bytes(256 * 1024)
    sent = 0
    with contextlib.suppress(ConnectionError):
        while sent < total_bytes:
            sent += connection.send(block[: total_bytes - sent])
    return sent


def push_until_stuck(
    connection: socket.socket, total_bytes: int, block: bytes = bytes(65536)
) -> int:
    """Send ``block`` again and again until the server takes no more for a second; returns how much."""
    connection.settimeout(1)
    sent = 0
    with contextlib.suppress(TimeoutError):
        while sent < total_bytes:
            start = sent % len(block)
            sent += connection.send(block[start : start + total_bytes - sent])
    connection.settimeout(PATIENCE_SECONDS)
    return sent
