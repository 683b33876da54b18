"""The WebSocket: snapshot or replay, then every event once and in order, whatever gets lost on the way."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from channels.layers import channel_layers
from channels.testing import WebsocketCommunicator
from pytest_django import Settings

from batches import consumers, events, feed, transitions
from batches.models import Batch, Event
from executor_site.asgi import application
from tests.factories import claimed, make_batch
from tests.test_feed import PATIENCE_SECONDS, in_thread, tell

pytestmark = pytest.mark.django_db(transaction=True)


class Watcher:
    """A client at the other end of the application's WebSocket."""

    def __init__(self, query: str, origin: str | None = None) -> None:
        headers = [] if origin is None else [(b"origin", origin.encode())]
        self.socket = WebsocketCommunicator(application, f"/ws?{query}", headers=headers)

    async def frame(self) -> dict[str, Any]:
        received: dict[str, Any] = json.loads(await self.socket.receive_from(PATIENCE_SECONDS))
        return received

    async def numbers(self, upto: int) -> list[int]:
        """The numbers of all frames until the one numbered ``upto``."""
        seen: list[int] = []
        while not seen or seen[-1] < upto:
            seen.append((await self.frame())["seq"])
        return seen

    async def close_code(self) -> int:
        """The code that the server closes with, which has to be the next thing that it does."""
        message = await self.socket.receive_output(PATIENCE_SECONDS)
        assert message["type"] == "websocket.close"
        code: int = message["code"]
        return code


@asynccontextmanager
async def watching(batch_id: object, since: object = None) -> AsyncIterator[Watcher]:
    query = f"batch_id={batch_id}" + ("" if since is None else f"&since={since}")
    watcher = Watcher(query)
    connected, _ = await watcher.socket.connect(PATIENCE_SECONDS)
    assert connected
    try:
        yield watcher
    finally:
        await watcher.socket.disconnect(timeout=PATIENCE_SECONDS)


@pytest.fixture
async def batch() -> Batch:
    made: Batch = await in_thread(make_batch, "a", "b")
    return made


Send = Callable[[str, dict[str, Any]], Awaitable[None]]


def on_its_way(monkeypatch: pytest.MonkeyPatch, carry: Callable[[Send], Send]) -> None:
    """Let ``carry`` decide what becomes of the messages of the channel layer."""
    layer = channel_layers["default"]
    monkeypatch.setattr(layer, "group_send", carry(layer.group_send))


async def test_watcher_gets_a_snapshot_and_then_what_happens(batch: Batch) -> None:
    task = await in_thread(batch.tasks.first)
    await in_thread(claimed, task)

    async with watching(batch.pk) as watcher:
        snapshot = await watcher.frame()
        await in_thread(transitions.advance, task, "installing_deps")
        event = await watcher.frame()

    fresh = {
        "passed": None,
        "reward": 0.0,
        "error": None,
        "duration_ms": None,
        "fault": None,
        "reason": None,
        "base_commit": None,
    }
    assert snapshot == {
        "event": "snapshot",
        "batch_id": str(batch.pk),
        "seq": 3,
        "data": {
            "status": "running",
            "total_tasks": 2,
            "completed_tasks": 0,
            "passed_tasks": 0,
            "failed_tasks": 0,
            "aggregate_reward": 0.0,
            "tasks": [
                {"task_id": "a", "status": "cloning_repo", "attempt": 1, **fresh},
                {"task_id": "b", "status": "queued", "attempt": 0, **fresh},
            ],
        },
    }
    assert event == {
        "event": "task_status",
        "batch_id": str(batch.pk),
        "seq": 4,
        "task_id": "a",
        "data": {"task_id": "a", "status": "installing_deps", "attempt": 1},
    }


async def test_end_of_the_batch_closes_the_socket(batch: Batch) -> None:
    async with watching(batch.pk) as watcher:
        await watcher.frame()
        await in_thread(transitions.stop_batch, batch, "cancelled")
        told = [(await watcher.frame())["event"] for _ in range(4)]
        code = await watcher.close_code()

    assert told == ["task_complete", "task_complete", "batch_complete", "stream_closed"]
    assert code == 1000


async def test_replay_of_many_events_comes_in_order_and_goes_on_live(batch: Batch) -> None:
    for _ in range(3):
        await in_thread(tell, batch.pk, 400)

    async with watching(batch.pk, since=0) as watcher:
        replayed = await watcher.numbers(1200)
        await in_thread(tell, batch.pk)
        live = await watcher.numbers(1201)

    assert replayed == list(range(1, 1201))
    assert live == [1201]


async def test_replay_begins_after_what_the_watcher_has_seen(batch: Batch) -> None:
    await in_thread(tell, batch.pk, 10)

    async with watching(batch.pk, since=7) as watcher:
        assert await watcher.numbers(10) == [8, 9, 10]


async def test_watcher_who_claims_to_have_seen_the_future_is_told_of_it_all_the_same(
    batch: Batch,
) -> None:
    async with watching(batch.pk, since=100) as watcher:
        await in_thread(transitions.stop_batch, batch, "cancelled")

        assert await watcher.numbers(4) == [1, 2, 3, 4]
        assert await watcher.close_code() == 1000


async def test_replay_of_a_batch_that_has_ended_closes_the_socket(batch: Batch) -> None:
    await in_thread(transitions.stop_batch, batch, "cancelled")

    for since, expected in ((0, [1, 2, 3, 4]), (3, [4]), (4, [4])):
        async with watching(batch.pk, since=since) as watcher:
            assert await watcher.numbers(4) == expected
            assert await watcher.close_code() == 1000


@pytest.mark.parametrize("since", [None, 0])
async def test_event_between_joining_and_reading_is_told_once(
    batch: Batch, since: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = channel_layers["default"]
    join = layer.group_add

    async def join_and_lose_time(group: str, channel: str) -> None:
        await join(group, channel)
        await in_thread(tell, batch.pk)

    monkeypatch.setattr(layer, "group_add", join_and_lose_time)
    async with watching(batch.pk, since) as watcher:
        first = await watcher.numbers(1)
        async with watching(batch.pk, since) as other:
            # A snapshot has the number of the last event that is contained in it.
            assert await other.numbers(2) == ([2] if since is None else [1, 2])
            await in_thread(tell, batch.pk)

            assert await other.numbers(3) == [3]
        assert first + await watcher.numbers(3) == [1, 2, 3]


async def test_event_between_reading_and_following_is_told_once(
    batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = consumers.read_snapshot

    def read_and_lose_time(batch_id: uuid.UUID) -> dict[str, Any] | None:
        snapshot = read(batch_id)
        tell(batch_id)
        return snapshot

    monkeypatch.setattr(consumers, "read_snapshot", read_and_lose_time)
    async with watching(batch.pk) as watcher:
        assert await watcher.numbers(1) == [0, 1]


async def test_gap_of_a_lost_message_is_filled_from_the_rows(
    batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = asyncio.Event()

    def lose_the_first(send: Send) -> Send:
        async def carry(group: str, message: dict[str, Any]) -> None:
            if message["frames"] and not lost.is_set():
                lost.set()
            else:
                await send(group, message)

        return carry

    on_its_way(monkeypatch, lose_the_first)
    async with watching(batch.pk) as watcher:
        await watcher.frame()
        await in_thread(tell, batch.pk, 3)
        await asyncio.wait_for(lost.wait(), PATIENCE_SECONDS)
        await in_thread(tell, batch.pk, 2)

        assert await watcher.numbers(5) == [1, 2, 3, 4, 5]


async def test_messages_that_come_twice_are_told_once(
    batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def double(send: Send) -> Send:
        async def carry(group: str, message: dict[str, Any]) -> None:
            await send(group, message)
            await send(group, message)

        return carry

    on_its_way(monkeypatch, double)
    async with watching(batch.pk) as watcher:
        await watcher.frame()
        for _ in range(3):
            await in_thread(tell, batch.pk, 2)

        assert await watcher.numbers(6) == [1, 2, 3, 4, 5, 6]


async def test_reminder_makes_up_for_the_last_message_when_that_was_lost(
    batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose_all_events(send: Send) -> Send:
        async def carry(group: str, message: dict[str, Any]) -> None:
            if not message["frames"]:
                await send(group, message)

        return carry

    monkeypatch.setattr(feed, "REMIND_SECONDS", 0.1)
    on_its_way(monkeypatch, lose_all_events)
    async with watching(batch.pk) as watcher:
        await watcher.frame()
        await in_thread(transitions.stop_batch, batch, "cancelled")

        assert await watcher.numbers(4) == [1, 2, 3, 4]
        assert await watcher.close_code() == 1000


async def test_hundred_watchers_see_everything_in_order(batch: Batch) -> None:
    async with AsyncExitStack() as stack:
        watchers = [await stack.enter_async_context(watching(batch.pk)) for _ in range(100)]
        for watcher in watchers:
            await watcher.frame()
        for size in (1, 19, 60, 120):
            await in_thread(tell, batch.pk, size)
        seen = await asyncio.gather(*(watcher.numbers(200) for watcher in watchers))

    assert seen == [list(range(1, 201))] * 100


async def test_watcher_of_a_batch_that_is_deleted_is_turned_away(
    batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "REMIND_SECONDS", 0.1)

    async with watching(batch.pk) as watcher:
        await watcher.frame()
        await in_thread(lambda: Batch.objects.all().delete())

        assert await watcher.frame() == {"error": "batch_not_found", "batch_id": str(batch.pk)}
        assert await watcher.close_code() == 4404


async def test_watcher_whose_missing_events_were_deleted_is_turned_away(batch: Batch) -> None:
    async with watching(batch.pk) as watcher:
        await watcher.frame()
        message = {"type": "batch.events", "seq": 5, "frames": [(5, "{}")]}
        await channel_layers["default"].group_send(feed.group(batch.pk), message)

        assert await watcher.frame() == {"error": "batch_not_found", "batch_id": str(batch.pk)}
        assert await watcher.close_code() == 4404


@pytest.mark.parametrize("asked", [uuid.UUID(int=0), "not-a-uuid", "", "%00", "ä"])
async def test_watcher_of_an_unknown_batch_is_turned_away(asked: object) -> None:
    async with watching(asked) as watcher:
        frame = await watcher.frame()
        code = await watcher.close_code()

    assert frame["error"] == "batch_not_found"
    assert code == 4404


@pytest.mark.parametrize("since", ["-1", "x", "1.5", "%20", "٣", "9" * 40])
async def test_number_that_is_none_is_refused(batch: Batch, since: str) -> None:
    async with watching(batch.pk, since=since) as watcher:
        assert await watcher.frame() == {"error": "invalid_since", "batch_id": str(batch.pk)}
        assert await watcher.close_code() == 4404


async def test_what_watchers_say_is_ignored(batch: Batch) -> None:
    async with watching(batch.pk) as watcher:
        await watcher.frame()
        await watcher.socket.send_to(text_data="{")
        await watcher.socket.send_to(bytes_data=b"\xff")
        await in_thread(tell, batch.pk)

        assert await watcher.numbers(1) == [1]


async def test_watcher_who_leaves_is_forgotten(batch: Batch) -> None:
    layer = channel_layers["default"]
    async with watching(batch.pk):
        pass
    async with watching(uuid.uuid4()):
        pass
    await in_thread(tell, batch.pk)

    assert layer.groups == {}
    assert not any(
        getattr(task.get_coro(), "__qualname__", "") == "Feed._run" and not task.cancelling()
        for task in asyncio.all_tasks()
    )


async def test_snapshot_is_read_with_as_many_queries_for_many_tasks_as_for_one(
    django_assert_num_queries: Any,
) -> None:
    def count() -> None:
        for names in (("a",), tuple("abcdefgh")):
            made = make_batch(*names)
            with django_assert_num_queries(4):  # begin, batch, tasks, commit
                consumers.read_snapshot(made.pk)
            Batch.objects.all().delete()

    await in_thread(count)


@pytest.mark.parametrize(
    ("origin", "welcome"),
    [
        (None, True),
        ("https://good.example", True),
        ("HTTP://GOOD.example:8080", True),
        ("https://evil.example", False),
        ("https://good.example.evil.example", False),
        ("https://good.example@evil.example", False),
        ("null", False),
        ("", False),
        ("good.example", False),
        ("https://[::1", False),
    ],
)
async def test_pages_of_other_sites_are_kept_out(
    batch: Batch, settings: Settings, origin: str | None, welcome: bool
) -> None:
    settings.ALLOWED_HOSTS = ["good.example"]
    watcher = Watcher(f"batch_id={batch.pk}", origin)

    connected, code = await watcher.socket.connect(PATIENCE_SECONDS)

    assert (connected, None if connected else code) == (welcome, None if welcome else 4403)
    if welcome:
        await watcher.socket.disconnect(timeout=PATIENCE_SECONDS)


async def test_frames_of_the_rows_and_of_the_feed_are_the_same(batch: Batch) -> None:
    async with watching(batch.pk) as live:
        await live.frame()
        await in_thread(transitions.stop_batch, batch, "cancelled")
        first = [await live.frame() for _ in range(4)]
    async with watching(batch.pk, since=0) as late:
        second = [await late.frame() for _ in range(4)]

    rows = await in_thread(lambda: [events.frame(row) for row in Event.objects.order_by("seq")])
    assert first == second == [json.loads(row) for row in rows]
