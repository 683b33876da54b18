"""The demonstration: a server of its own, the sample batch over HTTP, and its progress live."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.live import Live
from rich.table import Table
from websockets.sync.client import connect

from batches import sample
from batches.processes import PARENT_VARIABLE

MANAGE = str(Path(__file__).resolve().parent.parent / "manage.py")
HOTKEY = "5GziQCcRpN8NCJktX343brnfuVe3w6gUYieeStXPD1Dag2At"
AGENT_SECONDS = 6
"""The sample's hanging agent is stopped after that."""
START_SECONDS = 60
COLOURS = {"completed": "green", "failed": "red", "queued": "dim"}


class DemoFailed(Exception):
    """The demonstration did not come to what the sample says; the message says where."""


@dataclass
class Row:
    """A task as the table shows it."""

    status: str = "queued"
    reward: float | None = None
    reason: str = ""
    started: float | None = None
    ended: float | None = None

    @property
    def seconds(self) -> str:
        if self.started is None:
            return ""
        return f"{(self.ended or time.monotonic()) - self.started:.1f} s"


@dataclass
class Progress:
    """What the WebSocket has told so far."""

    rows: dict[str, Row] = field(default_factory=dict)
    aggregate: float | None = None

    def take(self, frame: dict[str, Any]) -> None:
        data = frame.get("data", {})
        match frame["event"]:
            case "snapshot":
                self.rows = {task["task_id"]: Row(task["status"]) for task in data["tasks"]}
            case "task_started":
                self.rows[data["task_id"]].started = time.monotonic()
            case "task_status":
                self.rows[data["task_id"]].status = data["status"]
            case "task_complete":
                row = self.rows[data["task_id"]]
                row.status, row.reward, row.reason = data["status"], data["reward"], data["reason"]
                row.ended = time.monotonic()
                row.started = row.started or row.ended
            case "batch_complete":
                self.aggregate = data["reward"]

    def __rich__(self) -> Table:
        table = Table(title="The sample batch", title_justify="left")
        for name in ("task", "status"):
            table.add_column(name, no_wrap=True)
        for name in ("reward", "time"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("reason", overflow="fold")
        for name, row in self.rows.items():
            colour = COLOURS.get(row.status, "yellow")
            reward = "" if row.reward is None else f"{row.reward:.1f}"
            table.add_row(name, f"[{colour}]{row.status}[/]", reward, row.seconds, row.reason)
        if self.aggregate is not None:
            table.caption = f"aggregate reward {self.aggregate:.2f}"
        return table


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """A server of its own on a free port with its state in ``folder``; gives its address."""
    environment = {
        **os.environ,
        "PORT": "0",
        "HOST": "127.0.0.1",
        "STATE_DIR": str(folder / "state"),
        "WORKSPACE_BASE": str(folder / "workspaces"),
        "ALLOW_LOCAL_REPOS": "1",
        "AUTHORIZED_HOTKEYS": HOTKEY,
        "AGENT_TIMEOUT_SECS": str(AGENT_SECONDS),
        "MAX_CONCURRENT_TASKS": "4",
        PARENT_VARIABLE: str(os.getpid()),
    }
    # What would lead the demonstration away from its own folder.
    for name in ("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "TERM_EXECUTOR_ROLE"):
        environment.pop(name, None)
        environment.pop(f"{name}_FILE", None)
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, MANAGE, "serve"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield wait_for_address(process, folder / "state" / "address", log)
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for_address(process: subprocess.Popen[bytes], file: Path, log: Path) -> str:
    """The address of the server, once it answers there."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        if file.exists() and (url := file.read_text().strip()):
            return url
        time.sleep(0.05)
    raise DemoFailed(f"the server did not start:\n{log.read_text(errors='replace')[-4000:]}")


def run(folder: Path, console: Console) -> None:
    """Show the whole way of an upload; raises ``DemoFailed`` unless all came out as it must."""
    console.print("Making a repository and an archive with four tasks and an agent …")
    commit = sample.make_repository(folder / "project")
    archive = sample.make_archive(folder / "project", commit)
    with server(folder) as url:
        console.print(f"A server of its own listens on {url}.")
        batch_id, ws_url = submit(url, archive)
        accepted = f"POST /submit: {len(archive)} bytes, accepted as batch {batch_id}."
        console.print(accepted, soft_wrap=True)
        watch(url.replace("http://", "ws://") + ws_url, console)
        tasks = httpx.get(f"{url}/batch/{batch_id}").json()["tasks"]
    console.print("The server was stopped.")
    check(tasks)


def submit(url: str, archive: bytes) -> tuple[str, str]:
    """Upload the archive; returns the batch's id and where to watch it."""
    answer = httpx.post(
        f"{url}/submit",
        headers={"X-Hotkey": HOTKEY},
        files={"archive": ("sample.tar.gz", archive)},
        timeout=60,
    )
    if answer.status_code != 202:
        raise DemoFailed(f"the submission was refused: {answer.status_code} {answer.text}")
    body = answer.json()
    return body["batch_id"], body["ws_url"]


def watch(ws_url: str, console: Console) -> None:
    """Show the batch's progress from its WebSocket until the server closes it."""
    progress = Progress()
    with connect(ws_url) as socket:
        if console.is_terminal:
            with Live(progress, console=console, refresh_per_second=8):
                for text in socket:
                    progress.take(json.loads(text))
            return
        for text in socket:
            frame = json.loads(text)
            progress.take(frame)
            data = frame.get("data", {})
            if frame["event"] in ("task_status", "task_complete"):
                console.print(f"  {data['task_id']}: {data['status']}", highlight=False)
    console.print(progress)


def check(tasks: list[dict[str, Any]]) -> None:
    """Compare every task with what the sample says of it."""
    expected = sample.expected()
    found = {
        task["task_id"]: {name: task[name] for name in expected[task["task_id"]]} for task in tasks
    }
    wrong = [name for name in expected if found.get(name) != expected[name]]
    if wrong:
        raise DemoFailed(
            "\n".join(
                f"{name}: expected {expected[name]}, found {found.get(name)}" for name in wrong
            )
        )
