"""Many watchers of one batch on a real server: all see the same, whatever the others do."""

import asyncio
import json
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from websockets.asyncio.client import connect

from tests.test_environments import BASH_AGENT, without_python
from tests.whole.archives import pack, task
from tests.whole.running import Server, serving

Frames = list[dict[str, Any]]

TASKS = 20
WATCHERS = 50
SECONDS = 240


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, repo: Path) -> Iterator[dict[str, Any]]:
    """What became of a batch, and what each kind of watcher was sent of it."""
    programs = without_python(tmp_path_factory.mktemp("programs"))
    with serving(tmp_path_factory.mktemp("watched"), TASK_PATH=str(programs)) as server:
        solved = task(repo, "echo 2 > number.txt")
        batch_id = server.accepted(
            pack({f"t{number:02}": solved for number in range(TASKS)}, BASH_AGENT)
        )
        stalled = [stall(server, batch_id) for _ in range(5)]
        frames = asyncio.run(asyncio.wait_for(watch_in_every_way(server, batch_id), SECONDS))
        for left in stalled:
            left.close()
        yield {"batch": server.ended(batch_id), "rows": server.events(batch_id), **frames}


async def watch_in_every_way(server: Server, batch_id: str) -> dict[str, Any]:
    url = f"{server.url.replace('http', 'ws', 1)}/ws?batch_id={batch_id}"
    chance = random.Random(7)  # noqa: S311 - for points to leave at
    replays = [watch(f"{url}&since=0") for _ in range(WATCHERS)]
    snapshots = [watch(url) for _ in range(WATCHERS)]
    fickle = [come_and_go(url, chance) for _ in range(5)]
    frames = await asyncio.gather(*replays, *snapshots, *fickle)
    return {
        "replays": frames[:WATCHERS],
        "snapshots": frames[WATCHERS : 2 * WATCHERS],
        "fickle": frames[2 * WATCHERS :],
    }


async def watch(url: str) -> Frames:
    """Everything until the server closes."""
    async with connect(url, open_timeout=SECONDS) as connection:
        return [json.loads(text) async for text in connection]


async def come_and_go(url: str, chance: random.Random) -> Frames:
    """Everything that a client gets who leaves after a few frames, and comes back for the rest."""
    seen: Frames = []
    while not seen or seen[-1]["event"] != "stream_closed":
        since = seen[-1]["seq"] if seen else 0
        async with connect(f"{url}&since={since}", open_timeout=SECONDS) as connection:
            few = chance.randint(1, 9)
            async for text in connection:
                seen.append(json.loads(text))
                few -= 1
                if few == 0:
                    connection.transport.abort()  # as a network does, without a word
                    break
    return seen


def stall(server: Server, batch_id: str) -> socket.socket:
    """A client that asks for everything and reads nothing of it."""
    host = urlsplit(server.url)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    client.connect((host.hostname, host.port))
    client.sendall(
        f"GET /ws?batch_id={batch_id}&since=0 HTTP/1.1\r\nHost: {host.netloc}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    return client


def test_batch_is_judged_while_it_is_watched(watched: dict[str, Any]) -> None:
    batch = watched["batch"]

    assert (batch["status"], batch["passed_tasks"], batch["aggregate_reward"]) == (
        *("completed", TASKS, 1.0),
    )


def test_every_watcher_sees_every_event_once_and_in_order(watched: dict[str, Any]) -> None:
    rows = watched["rows"]

    # Of the batch: started, complete, stream closed; of each task: started, four phases, complete.
    assert [row["seq"] for row in rows] == list(range(1, 3 + 6 * TASKS + 1))
    assert [frames == rows for frames in watched["replays"]] == [True] * WATCHERS


def test_snapshot_goes_on_where_it_ends(watched: dict[str, Any]) -> None:
    rows = watched["rows"]

    for snapshot, *events in watched["snapshots"]:
        assert snapshot["event"] == "snapshot"
        assert events == (rows[snapshot["seq"] :] or rows[-1:])  # late, it is only closed
        begun = {row["task_id"] for row in rows[: snapshot["seq"]] if "task_id" in row}
        shown = {row["task_id"] for row in snapshot["data"]["tasks"] if row["attempt"]}
        assert shown == begun


def test_watcher_who_comes_and_goes_sees_the_same(watched: dict[str, Any]) -> None:
    assert [frames == watched["rows"] for frames in watched["fickle"]] == [True] * 5
