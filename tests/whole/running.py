"""A real server in processes of its own, for tests that look at it from outside."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

ROOT = Path(__file__).resolve().parents[2]
HOTKEY = "5GziQCcRpN8NCJktX343brnfuVe3w6gUYieeStXPD1Dag2At"
START_SECONDS = 60


class Server:
    """``manage.py serve`` with its state in ``folder``; can be killed and started again."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.workspaces = folder / "workspaces"
        self.log = folder / "server.log"
        self.environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": os.environ.get("HOME", "/nonexistent"),
            "PORT": "0",
            "STATE_DIR": str(self.state),
            "WORKSPACE_BASE": str(self.workspaces),
            "ALLOW_LOCAL_REPOS": "1",
            "MAX_CONCURRENT_TASKS": "4",
            "AGENT_TIMEOUT_SECS": "30",
            "GRACE_SECS": "3",
            **variables,
        }
        self._url = ""
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Server":
        (self.state / "address").unlink(missing_ok=True)
        with self.log.open("ab") as output:
            self.process = self.spawn(output)
        self.wait_for(self.read_address, START_SECONDS, "the server's address")
        return self

    @property
    def url(self) -> str:
        """Where it listens; another port each time that the listening process is started again."""
        with suppress(FileNotFoundError):
            self._url = (self.state / "address").read_text().strip() or self._url
        return self._url

    def spawn(self, output: Any, **variables: str) -> subprocess.Popen[bytes]:
        """Run the command that serves, as a terminal would: in a session of its own."""
        return subprocess.Popen(
            [sys.executable, "manage.py", "serve"],
            cwd=ROOT,
            env={**self.environment, **variables},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def read_address(self) -> str:
        if self.process is not None and self.process.poll() is not None:
            raise AssertionError(f"the server ended:\n{self.log.read_text()}")
        try:
            return (self.state / "address").read_text().strip()
        except FileNotFoundError:
            return ""

    def stop(self, timeout: float = 30, number: int = signal.SIGTERM) -> int:
        """End it as an operator or a terminal does, by its group; returns the exit code."""
        assert self.process is not None
        os.killpg(self.process.pid, number)
        return self.process.wait(timeout)

    def kill(self) -> None:
        """End the supervisor alone, at once; what it started must end by itself."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def cut_power(self) -> None:
        """End every process at once, none of which can do anything about it."""
        assert self.process is not None
        while left := self.processes():
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def rows(self, query: str, *values: Any) -> list[Any]:
        """What its database says to ``query``, read from outside."""
        with closing(sqlite3.connect(self.state / "db.sqlite3", timeout=30)) as database:
            database.row_factory = sqlite3.Row
            return database.execute(query, values).fetchall()

    def task(self, batch_id: str, name: str) -> Any:
        """The row of one task."""
        (row,) = self.rows(
            "SELECT * FROM batches_task WHERE batch_id = ? AND name = ?",
            batch_id.replace("-", ""),
            name,
        )
        return row

    def reached(self, batch_id: str, name: str, status: str, seconds: float = 60) -> Any:
        """The row of a task, once it has come to ``status``."""

        def look() -> Any:
            row = self.task(batch_id, name)
            return row if row["status"] == status else None

        return self.wait_for(look, seconds, f"task {name} to be {status}")

    def processes(self) -> dict[int, str]:
        """Every live process whose environment names this server's folder: pid and command line."""
        marker = os.fsencode(str(self.folder))
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                if marker not in (entry / "environ").read_bytes():
                    continue
                stat = (entry / "stat").read_text(encoding="latin-1")
                if stat.rpartition(")")[2].split()[0] in "ZX":
                    continue
                line = (
                    (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
            found[int(entry.name)] = line.strip()
        return found

    def children(self, pid: int) -> list[int]:
        """The children of a process."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    stat = (entry / "stat").read_text(encoding="latin-1")
                except (FileNotFoundError, ProcessLookupError):
                    continue
                if int(stat.rpartition(")")[2].split()[1]) == pid:
                    found.append(int(entry.name))
        return found

    def pids(self, part: str) -> list[int]:
        """The server's processes whose command line contains ``part``."""
        return sorted(pid for pid, line in self.processes().items() if part in line)

    def wait_for(self, look: Any, seconds: float, what: str) -> Any:
        """What ``look`` returns, as soon as that is something."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = look()
            if found:
                return found
            time.sleep(0.05)
        log = self.log.read_text(errors="replace")[-6000:]
        raise AssertionError(f"waited {seconds} s for {what}; the log ends with:\n{log}")

    def submit(self, archive: bytes, **query: Any) -> httpx.Response:
        return httpx.post(
            f"{self.url}/submit",
            params=query,
            headers={"X-Hotkey": HOTKEY},
            files={"archive": ("batch.tar.gz", archive)},
            timeout=60,
        )

    def accepted(self, archive: bytes, **query: Any) -> str:
        """Submit an archive that is good; returns the batch's id."""
        answer = self.submit(archive, **query)
        assert answer.status_code == 202, answer.text
        batch_id: str = answer.json()["batch_id"]
        return batch_id

    def get(self, path: str) -> Any:
        return httpx.get(f"{self.url}{path}", timeout=30).json()

    def ended(self, batch_id: str, seconds: float = 90) -> Any:
        """The batch, once it has ended."""

        def look() -> Any:
            batch = self.get(f"/batch/{batch_id}")
            return batch if batch["status"] in ("completed", "failed") else None

        return self.wait_for(look, seconds, f"the end of batch {batch_id}")

    def frames(self, batch_id: str, since: int | str | None = None) -> list[dict[str, Any]]:
        """Everything that a watcher is sent until the server closes."""
        query = f"?batch_id={batch_id}" + ("" if since is None else f"&since={since}")
        received = []
        with (
            connect(self.url.replace("http", "ws", 1) + f"/ws{query}") as socket,
            suppress(ConnectionClosedError),  # the code of a refusal, after its frame
        ):
            for text in socket:
                received.append(json.loads(text))
        return received

    def events(self, batch_id: str) -> list[dict[str, Any]]:
        """All events of a batch that has ended, from the first."""
        return self.frames(batch_id, since=0)


@contextmanager
def serving(folder: Path, **variables: str) -> Iterator[Server]:
    """A running server; at the end nothing of it is left, however the test went."""
    server = Server(folder, **variables)
    try:
        yield server.start()
    finally:
        if server.process is not None and server.process.poll() is None:
            server.process.terminate()
            try:
                server.process.wait(30)
            except subprocess.TimeoutExpired:
                server.process.kill()
        for pid in server.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
