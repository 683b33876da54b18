"""Processes of a real server are killed while batches run: each task is judged, and once.

A server is shared by most tests: what one of them killed must not be missed by the next.
"""

import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.whole.archives import SOLVE, make_repository, pack, task
from tests.whole.running import HOTKEY, Server, serving
from tests.whole.upstream import hanging_once
from tests.whole.victims import Cluster, alive, below, cluster, kill, wait_until_gone
from tests.whole.watching import Watcher

LEASE_SECS = 5
VARIABLES = {
    # The tests talk with their agents through files, which only this sandbox lets them do.
    "SANDBOX": "process",
    "LEASE_SECS": str(LEASE_SECS),
    "MAX_CONCURRENT_TASKS": "3",
    "AGENT_TIMEOUT_SECS": "120",
}
GONE_SECONDS = 5
"""What a killed attempt may take to end; it takes a tenth of a second on an idle machine."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("crashes"), **VARIABLES) as running:
        yield running


@pytest.fixture
def server(shared: Server) -> Iterator[Server]:
    """The shared server, and another one in its place for the next test when this one fails."""
    yield shared
    if not is_up(shared) or shared.rows(UNFINISHED):
        shared.cut_power()
        shutil.rmtree(shared.state)
        shutil.rmtree(shared.workspaces)
        shared.start()


UNFINISHED = "SELECT id FROM batches_batch WHERE status NOT IN ('completed', 'failed')"


def linger_once(mark: Path) -> str:
    """A shell command that at first leaves a daemon behind and never ends, and later does nothing."""
    return f"mkdir {mark} 2>/dev/null || exit 0; (setsid sleep 601 &); sleep 600"


def by_agent(command: str) -> str:
    """A prompt that lets the agent run a shell command before it solves the task."""
    return f"import subprocess; subprocess.run(['sh', '-c', {command!r}])\n{SOLVE}"


def until(gate: Path) -> str:
    """A prompt that lets the agent wait for the file ``gate`` before it solves the task."""
    return (
        f"import os, time\nwhile not os.path.exists({str(gate)!r}):\n    time.sleep(0.05)\n{SOLVE}"
    )


def verdicts(batch: Any) -> dict[str, tuple[Any, ...]]:
    return {
        row["task_id"]: (row["passed"], row["reward"], row["attempt"]) for row in batch["tasks"]
    }


def check_story(server: Server, watcher: Watcher, batch: Any) -> None:
    """Events without a gap, each task begun and ended once, and the watcher told each of them once."""
    frames = server.events(batch["batch_id"])
    assert [frame["seq"] for frame in frames] == list(range(1, len(frames) + 1))
    names = sorted(row["task_id"] for row in batch["tasks"])
    for event in ("task_started", "task_complete"):
        assert sorted(f["task_id"] for f in frames if f["event"] == event) == names
    told = [frame["event"] for frame in frames]
    assert [told.count(event) for event in ("batch_started", "batch_complete")] == [1, 1]
    assert told[-2:] == ["batch_complete", "stream_closed"]
    assert watcher.all() == frames


def check_nothing_stays(server: Server, batch_id: str) -> None:
    """No workspace of the batch, and no process in one, a while after its end."""
    workspace = server.workspaces / batch_id
    server.wait_for(lambda: not workspace.exists(), 20, f"{workspace} to be removed")
    here = os.fsencode(str(workspace))
    inside = [pid for pid in server.processes() if here in environment(pid)]
    assert inside == []


def environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def check_takes_batches(server: Server, repo: Path) -> None:
    """The next batch is accepted and judged at the first attempt, as if nothing had been."""
    server.wait_for(lambda: is_up(server), 30, "the server to answer")
    batch = server.ended(server.accepted(pack({"after": task(repo, SOLVE)})))
    assert verdicts(batch) == {"after": (True, 1.0, 1)}


# A lane in each phase of its task


@pytest.fixture
def slow_task(
    request: pytest.FixtureRequest, tmp_path: Path, repo: Path
) -> Iterator[dict[str, str | bytes]]:
    """A task whose first attempt never leaves the phase that the parameter names."""
    linger = linger_once(tmp_path / "lingered")
    if request.param == "cloning_repo":
        make_repository(tmp_path / "served")
        with hanging_once(tmp_path / "served", tmp_path) as address:
            yield task(address, SOLVE)
    elif request.param == "installing_deps":
        yield task(repo, SOLVE, install=[linger])
    elif request.param == "running_agent":
        yield task(repo, by_agent(linger))
    else:
        yield task(repo, SOLVE, f"({linger}); grep -qx 2 number.txt")


@pytest.mark.parametrize(
    ("slow_task", "phase"),
    [(phase, phase) for phase in ("installing_deps", "running_agent", "running_tests")]
    + [("cloning_repo", "cloning_repo")],
    indirect=["slow_task"],
    ids=lambda value: value,
)
def test_lane_killed_in_any_phase_costs_one_attempt_of_its_own_task(
    server: Server, tmp_path: Path, repo: Path, slow_task: dict[str, str | bytes], phase: str
) -> None:
    gate = tmp_path / "gate"
    batch_id = server.accepted(pack({"hit": slow_task, "other": task(repo, until(gate))}))
    watcher = Watcher(server, batch_id)
    server.reached(batch_id, "other", "running_agent")
    lane = server.reached(batch_id, "hit", phase)["worker_pid"]
    sleeping = "sleep 601" if phase != "cloning_repo" else "fetch"
    server.wait_for(lambda: server.pids(sleeping), 30, "something to be at work")
    attempt = below(server, lane)

    kill(lane)

    wait_until_gone(server, attempt, GONE_SECONDS, "the attempt's processes")
    gate.touch()
    batch = server.ended(batch_id, 60)
    assert verdicts(batch) == {"hit": (True, 1.0, 2), "other": (True, 1.0, 1)}
    check_story(server, watcher, batch)
    assert watcher.connections == 1
    check_nothing_stays(server, batch_id)


# Each kind of process


def idle_lanes(server: Server, busy: int) -> None:
    """One of them holds the lock of the queue, and its death stops the others for ever."""
    found = cluster(server)
    assert busy in found.lanes
    for pid in found.lanes:
        if pid != busy:
            kill(pid)
            time.sleep(0.3)  # let django-q2 put another in its place, as it would


def one_of(part: Callable[[Cluster], int]) -> Callable[[Server, int], None]:
    return lambda server, _: kill(part(cluster(server)))


def command(name: str) -> Callable[[Server, int], None]:
    return lambda server, _: kill(*server.pids(f"manage.py {name}"))


KILLED = {
    "idle lanes": (idle_lanes, 1),
    "monitor": (one_of(lambda cluster: cluster.monitor), 1),
    "pusher": (one_of(lambda cluster: cluster.pusher), 1),
    "sentinel": (one_of(lambda cluster: cluster.sentinel), 2),
    "main": (one_of(lambda cluster: cluster.main), 2),
    "worker": (command("worker"), 2),
    "web": (command("web"), 1),
}


@pytest.mark.parametrize(("strike", "attempts"), KILLED.values(), ids=KILLED)
def test_batches_before_and_after_a_kill_are_judged(
    server: Server,
    tmp_path: Path,
    repo: Path,
    strike: Callable[[Server, int], None],
    attempts: int,
) -> None:
    cluster(server)
    gate = tmp_path / "gate"
    tasks = {"a": task(repo, until(gate)), "b": task(repo, SOLVE)}
    batch_id = server.accepted(pack(tasks), concurrent_tasks=1)
    watcher = Watcher(server, batch_id)
    lane = server.reached(batch_id, "a", "running_agent")["worker_pid"]

    strike(server, lane)
    gate.touch()

    watcher.all()
    batch = server.ended(batch_id)
    assert verdicts(batch) == {"a": (True, 1.0, attempts), "b": (True, 1.0, 1)}
    check_story(server, watcher, batch)
    check_takes_batches(server, repo)
    check_nothing_stays(server, batch_id)


def test_lanes_killed_before_the_cluster_is_known_are_missed_all_the_same(
    server: Server, repo: Path
) -> None:
    retired = cluster(server)
    kill(retired.main)
    server.wait_for(lambda: not alive([retired.main]), 10, "the end of the cluster")
    lanes = int(server.environment["MAX_CONCURRENT_TASKS"])
    young = server.wait_for(
        lambda: found if len(found := server.pids("batches.cluster")) == lanes + 4 else None,
        30,
        "a new cluster",
    )

    kill(*sorted(young)[2:-2])

    check_takes_batches(server, repo)


def test_server_whose_supervisor_is_killed_ends_and_goes_on_after_a_restart(
    server: Server, tmp_path: Path, repo: Path
) -> None:
    gate = tmp_path / "gate"
    tasks = {"a": task(repo, until(gate)), "b": task(repo, SOLVE)}
    batch_id = server.accepted(pack(tasks), concurrent_tasks=1)
    watcher = Watcher(server, batch_id)
    server.reached(batch_id, "a", "running_agent")

    server.kill()
    server.wait_for(lambda: not server.processes(), 15, "the end of every process")
    row = server.task(batch_id, "a")
    assert (row["status"], row["strikes"]) == ("queued", 0)  # it was handed back in good order
    gate.touch()
    server.start()

    batch = server.ended(batch_id)
    assert verdicts(batch) == {"a": (True, 1.0, 2), "b": (True, 1.0, 1)}
    check_story(server, watcher, batch)
    check_nothing_stays(server, batch_id)


def test_server_started_again_while_the_old_one_still_ends_judges_each_task_once(
    server: Server, tmp_path: Path, repo: Path
) -> None:
    gate = tmp_path / "gate"
    batch_id = server.accepted(pack({"a": task(repo, until(gate)), "b": task(repo, SOLVE)}))
    watcher = Watcher(server, batch_id)
    server.reached(batch_id, "a", "running_agent")

    server.kill()
    server.start()
    gate.touch()

    batch = server.ended(batch_id)
    assert {name: found[:2] for name, found in verdicts(batch).items()} == {
        "a": (True, 1.0),
        "b": (True, 1.0),
    }
    check_story(server, watcher, batch)
    check_nothing_stays(server, batch_id)


def test_power_cut_costs_running_tasks_an_attempt_and_finished_ones_nothing(
    server: Server, tmp_path: Path, repo: Path
) -> None:
    gate = tmp_path / "gate"
    tasks = {
        "done": task(repo, SOLVE),
        "cut": task(repo, until(gate)),
        "waiting": task(repo, SOLVE),
    }
    batch_id = server.accepted(pack(tasks), concurrent_tasks=1)
    watcher = Watcher(server, batch_id)
    server.reached(batch_id, "cut", "running_agent")

    server.cut_power()
    gate.touch()
    server.start()

    batch = server.ended(batch_id)
    assert verdicts(batch) == {
        "done": (True, 1.0, 1),
        "cut": (True, 1.0, 2),
        "waiting": (True, 1.0, 1),
    }
    check_story(server, watcher, batch)
    assert watcher.connections > 1
    check_nothing_stays(server, batch_id)


# A lane that sleeps


def test_lane_that_sleeps_past_its_lease_loses_its_task_and_writes_nothing_when_it_wakes(
    server: Server, tmp_path: Path, repo: Path
) -> None:
    linger = linger_once(tmp_path / "lingered")
    batch_id = server.accepted(pack({"a": task(repo, by_agent(linger))}))
    watcher = Watcher(server, batch_id)
    lane = server.reached(batch_id, "a", "running_agent")["worker_pid"]
    server.wait_for(lambda: server.pids("sleep 601"), 30, "the daemon of the agent")
    attempt = below(server, lane)
    os.kill(lane, signal.SIGSTOP)
    batch = server.ended(batch_id)
    before = history(server, batch_id)
    written = server.log.stat().st_size

    os.kill(lane, signal.SIGCONT)

    wait_until_gone(server, attempt, GONE_SECONDS, "the sleeper's sandbox")
    assert verdicts(batch) == {"a": (True, 1.0, 2)}
    check_story(server, watcher, batch)
    check_takes_batches(server, repo)
    check_nothing_stays(server, batch_id)
    assert history(server, batch_id) == before
    assert "Traceback" not in server.log.read_bytes()[written:].decode()


def history(server: Server, batch_id: str) -> list[tuple[Any, ...]]:
    """Every row that there is about a batch and its tasks."""
    batch = batch_id.replace("-", "")
    found = [
        *server.rows("SELECT * FROM batches_batch WHERE id = ?", batch),
        *server.rows("SELECT * FROM batches_task WHERE batch_id = ? ORDER BY id", batch),
        *server.rows("SELECT * FROM batches_event WHERE batch_id = ? ORDER BY id", batch),
        *server.rows(
            "SELECT batches_run.* FROM batches_run JOIN batches_task ON task_id = batches_task.id"
            " WHERE batch_id = ? ORDER BY batches_run.id",
            batch,
        ),
    ]
    return [tuple(row) for row in found]


# Uploads


def test_server_killed_in_the_middle_of_an_upload_keeps_nothing_of_it(
    server: Server, repo: Path
) -> None:
    incoming = server.state / "incoming"
    known = server.get("/batches")
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(beginning_of_an_upload())
        server.wait_for(
            lambda: any(path.stat().st_size for path in incoming.iterdir()), 30, "the file"
        )

        kill(*server.pids("manage.py web"))

    server.wait_for(lambda: not list(incoming.iterdir()), 30, "the file to be removed")
    server.wait_for(lambda: is_up(server), 30, "the next server process")
    assert server.get("/batches") == known
    check_takes_batches(server, repo)


def test_server_killed_while_it_unpacks_frees_its_place_and_keeps_nothing(
    server: Server, repo: Path
) -> None:
    known = {row["batch_id"] for row in server.get("/batches")}
    many = {f"files/{number}": "x" for number in range(20_000)}
    archive = pack({"big": {**task(repo, SOLVE), **many}})
    client = threading.Thread(target=submit_in_vain, args=(server, archive))
    client.start()
    unpacking = "SELECT id FROM batches_batch WHERE status = 'extracting'"
    server.wait_for(lambda: server.rows(unpacking), 30, "the archive to be unpacked")

    kill(*server.pids("manage.py web"))
    client.join()

    server.wait_for(lambda: not server.rows(unpacking), 15 + LEASE_SECS, "the place to be free")
    server.wait_for(lambda: is_up(server), 30, "the next server process")
    assert {row["batch_id"] for row in server.get("/batches")} == known
    assert {path.stem for path in (server.state / "archives").iterdir()} == known
    assert list(server.workspaces.iterdir()) == []
    assert list((server.state / "incoming").iterdir()) == []
    check_takes_batches(server, repo)


def submit_in_vain(server: Server, archive: bytes) -> None:
    with pytest.raises(httpx.TransportError):
        server.submit(archive)


def is_up(server: Server) -> bool:
    try:
        return httpx.get(f"{server.url}/health", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def beginning_of_an_upload() -> bytes:
    head = (
        "POST /submit HTTP/1.1\r\nHost: localhost\r\n"
        f"X-Hotkey: {HOTKEY}\r\nContent-Length: 50000000\r\n"
        "Content-Type: multipart/form-data; boundary=edge\r\n\r\n"
        '--edge\r\nContent-Disposition: form-data; name="archive"; filename="a.tar.gz"\r\n\r\n'
    )
    return head.encode() + os.urandom(2_000_000)
