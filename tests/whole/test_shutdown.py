"""How a real server is ended on purpose, how it refuses to begin, and how a batch is cancelled."""

import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.whole.archives import SOLVE, pack, task
from tests.whole.running import Server, serving
from tests.whole.victims import alive, below, wait_until_gone
from tests.whole.watching import Watcher

GRACE_SECS = 2
STUBBORN = """
import os, signal, sys, time

def run_on():
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
        signal.signal(number, signal.SIG_IGN)
    while True:
        time.sleep(1)

if not os.path.exists(GATE):
    for _ in range(3):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                run_on()
            os._exit(0)
    open(READY, "w").close()
    run_on()
"""
"""An agent that ignores every signal, as its daemons do, until there is a gate."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    # The tests talk with their agents through files, which only this sandbox lets them do.
    folder = tmp_path_factory.mktemp("shutdown")
    with serving(folder, SANDBOX="process", GRACE_SECS=str(GRACE_SECS)) as running:
        yield running


def stubborn(folder: Path) -> str:
    names = f"GATE, READY = {str(folder / 'gate')!r}, {str(folder / 'ready')!r}\n"
    return names + STUBBORN + SOLVE


def begun(server: Server, folder: Path, repo: Path) -> str:
    """A batch whose first task is solved, whose second is being worked on by a stubborn agent."""
    tasks = {
        "done": task(repo, SOLVE),
        "running": task(repo, stubborn(folder)),
        "waiting": task(repo, SOLVE),
    }
    batch_id = server.accepted(pack(tasks), concurrent_tasks=1)
    server.reached(batch_id, "running", "running_agent")
    server.wait_for((folder / "ready").exists, 30, "the agent to be at work")
    return batch_id


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_stop_hands_running_tasks_back_and_a_restart_goes_on(
    server: Server, tmp_path: Path, repo: Path, number: int
) -> None:
    batch_id = begun(server, tmp_path, repo)
    watcher = Watcher(server, batch_id)

    code = server.stop(GRACE_SECS + 10, number)

    left = server.processes()
    server.wait_for(lambda: not server.processes(), 5, f"the end of {left}")
    row = server.task(batch_id, "running")
    assert (code, row["status"], row["strikes"]) == (0, "queued", 0)
    (tmp_path / "gate").touch()
    server.start()
    batch = server.ended(batch_id)
    assert [(row["task_id"], row["reward"], row["attempt"]) for row in batch["tasks"]] == [
        ("done", 1.0, 1),
        ("running", 1.0, 2),
        ("waiting", 1.0, 1),
    ]
    frames = server.events(batch_id)
    assert [frame["seq"] for frame in frames] == list(range(1, len(frames) + 1))
    assert watcher.all() == frames


def test_stop_lets_a_task_finish_that_ends_within_the_grace(tmp_path: Path, repo: Path) -> None:
    ready, gate = tmp_path / "ready", tmp_path / "gate"
    nearly_done = (
        f"import os, time\nopen({str(ready)!r}, 'w').close()\n"
        f"while not os.path.exists({str(gate)!r}):\n    time.sleep(0.05)\n"
    )
    with serving(tmp_path, SANDBOX="process", GRACE_SECS="120") as server:
        batch_id = server.accepted(pack({"a": task(repo, nearly_done + SOLVE)}))
        server.wait_for(ready.exists, 60, "the agent to be at work")

        threading.Timer(1, gate.touch).start()
        code = server.stop(100)

        row = server.task(batch_id, "a")
    assert (code, row["status"], row["passed"], row["attempt"]) == (0, "completed", 1, 1)


def test_idle_server_stops_at_once(server: Server) -> None:
    began = time.monotonic()

    code = server.stop()

    took = time.monotonic() - began
    left = server.processes()
    server.start()
    assert (code, left) == (0, {})
    assert took < 3 * patience()


def patience() -> float:
    """How much slower than an idle machine this one is: the time to start Python, compared."""
    began = time.monotonic()
    subprocess.run(["python3", "-c", "import json, asyncio"], check=True)
    return max(1.0, (time.monotonic() - began) / 0.2)


def test_second_server_on_the_same_state_refuses_and_names_the_folder(server: Server) -> None:
    second = server.spawn(subprocess.PIPE)

    output = second.communicate(timeout=60)[0].decode()

    assert output == (
        f"CommandError: another server uses {server.state}; "
        "stop it, or set STATE_DIR to another folder\n"
    )
    assert second.returncode == 1
    assert httpx.get(f"{server.url}/health").json() == {"status": "ok"}


def test_server_whose_port_is_taken_refuses_and_names_the_setting(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = Server(tmp_path, PORT=str(port))
        process = server.spawn(subprocess.PIPE)
        output = process.communicate(timeout=60)[0].decode()

    assert output == (
        f"CommandError: cannot listen on 127.0.0.1:{port}: Address already in use; "
        "set PORT to a free one (0 picks one)\n"
    )
    assert process.returncode == 1


def test_cancelled_batch_ends_though_its_agent_ignores_every_signal(
    server: Server, tmp_path: Path, repo: Path
) -> None:
    batch_id = begun(server, tmp_path, repo)
    watcher = Watcher(server, batch_id)
    attempt = below(server, server.task(batch_id, "running")["worker_pid"])
    assert len(alive(attempt)) == 5  # the reaper, the agent and its three daemons

    with signed_in(server) as admin:
        chosen = {"action": "cancel", "_selected_action": batch_id}
        answer = post(admin, "/admin/batches/batch/", chosen)

    assert answer.status_code == 302
    wait_until_gone(server, attempt, 5, "the agent and its daemons")
    batch = server.ended(batch_id)
    assert (batch["status"], batch["error"]) == ("failed", "cancelled")
    assert [(row["task_id"], row["passed"], row["fault"]) for row in batch["tasks"]] == [
        ("done", True, None),
        ("running", None, "cancelled"),
        ("waiting", None, "cancelled"),
    ]
    frames = watcher.all()
    assert frames == server.events(batch_id)
    assert [frame["event"] for frame in frames[-4:]] == [
        *("task_complete", "task_complete", "batch_complete", "stream_closed")
    ]
    workspace = server.workspaces / batch_id
    server.wait_for(lambda: not workspace.exists(), 20, f"{workspace} to be removed")


@contextmanager
def signed_in(server: Server) -> Iterator[httpx.Client]:
    """A client that has signed in to the admin, with the password that the server made."""
    password = (server.state / "admin.password").read_text().strip()
    with httpx.Client(base_url=server.url, timeout=30) as client:
        answer = post(client, "/admin/login/", {"username": "admin", "password": password})
        assert answer.status_code == 302
        yield client


def post(client: httpx.Client, path: str, fields: dict[str, str]) -> httpx.Response:
    """Fill in the form at ``path``."""
    form = client.get(path).text
    found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', form)
    assert found is not None
    return client.post(path, data={**fields, "csrfmiddlewaretoken": found[1]})
