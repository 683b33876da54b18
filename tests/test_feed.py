"""The feed: what it hands to the groups of watched batches, when, and what it survives."""

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from channels.db import database_sync_to_async
from channels.layers import channel_layers
from django.db import connection, transaction

from batches import events, feed
from batches.models import Batch
from tests.factories import make_batch

pytestmark = pytest.mark.django_db(transaction=True)

PATIENCE_SECONDS = 30


def in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run what touches the database outside of the event loop, as every writer of ours is."""
    return database_sync_to_async(function, thread_sensitive=False)(*arguments)


def tell(batch_id: uuid.UUID, count: int = 1) -> None:
    """Commit ``count`` events at once."""
    with transaction.atomic():
        for _ in range(count):
            events.record(batch_id, "told")


class Ear:
    """Stands where a consumer would: in the batch's group."""

    def __init__(self, batch_id: uuid.UUID) -> None:
        self.batch_id = batch_id
        self.layer = channel_layers["default"]

    async def message(self) -> dict[str, Any]:
        """The next message that is not a reminder of nothing new."""
        while True:
            message: dict[str, Any] = await asyncio.wait_for(
                self.layer.receive(self.channel), PATIENCE_SECONDS
            )
            if message.get("frames") != []:
                return message

    async def numbers(self, upto: int) -> list[int]:
        """The numbers of all events handed out until ``upto`` was among them."""
        heard: list[int] = []
        while not heard or heard[-1] < upto:
            heard += [seq for seq, _ in (await self.message())["frames"]]
        return heard


@asynccontextmanager
async def following(batch_id: uuid.UUID, seq: int = 0) -> AsyncIterator[Ear]:
    ear = Ear(batch_id)
    ear.channel = await ear.layer.new_channel()
    await ear.layer.group_add(feed.group(batch_id), ear.channel)
    feed.current().follow(batch_id, seq)
    try:
        yield ear
    finally:
        feed.current().leave(batch_id)
        await ear.layer.group_discard(feed.group(batch_id), ear.channel)


def feeds_running() -> int:
    """How many feeds look for events in this event loop."""
    coroutines = [task.get_coro() for task in asyncio.all_tasks()]
    return [getattr(found, "__qualname__", "") for found in coroutines].count("Feed._run")


async def test_events_of_one_commit_come_in_one_message() -> None:
    batch = await in_thread(make_batch)
    await in_thread(tell, batch.pk, 2)

    async with following(batch.pk, seq=2) as ear:
        await in_thread(tell, batch.pk, 3)
        message = await ear.message()

    rows = await in_thread(events.since, batch.pk, 2, 10)
    assert message == {
        "type": "batch.events",
        "seq": 5,
        "frames": [(row.seq, events.frame(row)) for row in rows],
    }


async def test_more_events_than_fit_into_a_message_come_in_several(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feed, "LOOK_LIMIT", 10)
    batch = await in_thread(make_batch)

    async with following(batch.pk) as ear:
        await in_thread(tell, batch.pk, 25)
        sizes = [len((await ear.message())["frames"]) for _ in range(3)]

    assert sizes == [10, 10, 5]


async def test_batches_are_kept_apart() -> None:
    one = await in_thread(make_batch)
    await in_thread(lambda: Batch.objects.update(slot=1))
    other = await in_thread(make_batch)

    async with following(one.pk) as ear, following(other.pk) as other_ear:
        await in_thread(tell, one.pk)
        await in_thread(tell, other.pk, 2)

        assert await ear.numbers(1) == [1]
        assert await other_ear.numbers(2) == [1, 2]


async def test_feed_ends_with_its_last_watcher_and_begins_again() -> None:
    batch = await in_thread(make_batch)

    async with following(batch.pk):
        async with following(batch.pk):
            assert feeds_running() == 1
        assert feeds_running() == 1
    await asyncio.sleep(0)  # lets what was cancelled end
    await asyncio.sleep(0)
    assert feeds_running() == 0

    async with following(batch.pk) as ear:
        await in_thread(tell, batch.pk)
        assert await ear.numbers(1) == [1]


async def test_second_watcher_does_not_make_the_feed_go_back() -> None:
    batch = await in_thread(make_batch)

    async with following(batch.pk) as ear:
        await in_thread(tell, batch.pk, 2)
        assert await ear.numbers(2) == [1, 2]
        async with following(batch.pk):
            await in_thread(tell, batch.pk)
            assert await ear.numbers(3) == [3]


async def test_feed_survives_a_database_in_trouble(caplog: pytest.LogCaptureFixture) -> None:
    batch = await in_thread(make_batch)

    async with following(batch.pk) as ear:
        with caplog.at_level(logging.ERROR, "batches.feed"):
            await in_thread(execute, "ALTER TABLE batches_event RENAME TO away")
            async with asyncio.timeout(PATIENCE_SECONDS):
                while "the feed stumbled and starts again" not in caplog.messages:
                    await asyncio.sleep(0.02)
        await in_thread(execute, "ALTER TABLE away RENAME TO batches_event")
        await in_thread(tell, batch.pk)

        assert await ear.numbers(1) == [1]


def execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


async def test_watchers_are_reminded_of_the_latest_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "REMIND_SECONDS", 0.0)
    batch = await in_thread(make_batch)
    await in_thread(tell, batch.pk, 4)

    async with following(batch.pk, seq=4) as ear:
        message = await asyncio.wait_for(ear.layer.receive(ear.channel), PATIENCE_SECONDS)

    assert message == {"type": "batch.events", "seq": 4, "frames": []}


async def test_watchers_of_a_deleted_batch_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "REMIND_SECONDS", 0.0)
    deleted = await in_thread(make_batch)
    await in_thread(lambda: Batch.objects.update(slot=1))
    kept = await in_thread(make_batch)

    async with following(deleted.pk) as ear, following(kept.pk) as other:
        await in_thread(lambda: Batch.objects.filter(pk=deleted.pk).delete())

        assert await ear.message() == {"type": "batch.gone"}
        await in_thread(tell, kept.pk)
        assert await other.numbers(1) == [1]


async def test_database_without_a_counter_is_looked_at_on_a_timer_and_on_knocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feed, "connection", SimpleNamespace(vendor="postgresql"))
    monkeypatch.setattr(feed, "LOOK_SECONDS", 0.01)

    with feed.Changes() as changes:
        await changes.wait(asyncio.Event())  # by the timer
        monkeypatch.setattr(feed, "LOOK_SECONDS", 3600)
        knocked = asyncio.Event()
        knocked.set()
        await asyncio.wait_for(changes.wait(knocked), PATIENCE_SECONDS)
