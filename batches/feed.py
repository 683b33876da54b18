"""The feed: follows the events of watched batches and hands them to the batches' groups.

One for each server process. It looks when the database changed (SQLite says so
for 3 µs), when another host knocked, and a few times a second all the same. What it finds in one look
goes out as one message for each batch, however many events and watchers there are.
"""

import asyncio
import contextlib
import logging
import sqlite3
import uuid
import weakref
from dataclasses import dataclass

from channels.db import database_sync_to_async
from channels.layers import channel_layers
from django.conf import settings
from django.db import connection

from batches import events, knocks
from batches.models import Batch

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.025
"""How often SQLite is asked whether anything was committed."""
QUIET_POLLS = 40
"""After so many quiet answers the rows are looked at all the same."""
LOOK_SECONDS = 0.25
"""How often a database that has no such counter is looked through."""
REMIND_SECONDS = 5.0
"""How often watchers are told the number of the latest event, in case a message was lost,
or that their batch was deleted."""
LOOK_LIMIT = 1000
"""Events of one batch in one message."""


@dataclass
class Followed:
    """A watched batch: how many watch it, and the number of the last event handed out."""

    watchers: int
    seq: int


def group(batch_id: uuid.UUID) -> str:
    """The name of the group of a batch's watchers."""
    return f"batch.{batch_id.hex}"


class Feed:
    """Follows batches for the watchers of one event loop; idle while there are none."""

    def __init__(self) -> None:
        self._followed: dict[uuid.UUID, Followed] = {}
        self._task: asyncio.Task[None] | None = None
        self._knocked = asyncio.Event()

    def follow(self, batch_id: uuid.UUID, seq: int) -> None:
        """Hand out the batch's events after ``seq``, or from wherever the feed already is."""
        followed = self._followed.setdefault(batch_id, Followed(0, seq))
        followed.watchers += 1
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    def leave(self, batch_id: uuid.UUID) -> None:
        """One watcher less. The feed stops with the last."""
        followed = self._followed[batch_id]
        followed.watchers -= 1
        if followed.watchers == 0:
            del self._followed[batch_id]
        if not self._followed and self._task is not None:
            self._task.cancel()
            self._task = None

    async def _run(self) -> None:
        """Look for ever. Whatever goes wrong on the way costs the watchers a pause and nothing else."""
        while True:
            try:
                await self._watch()
            except Exception:
                logger.exception("the feed stumbled and starts again")
                await asyncio.sleep(LOOK_SECONDS)

    async def _watch(self) -> None:
        clock = asyncio.get_running_loop().time
        reminded = clock()
        listener = asyncio.create_task(self._listen())
        try:
            with Changes() as changes:
                while True:
                    await changes.wait(self._knocked)
                    self._knocked.clear()
                    remind = clock() - reminded > REMIND_SECONDS
                    if remind:
                        reminded = clock()
                    await self._look(remind)
        finally:
            listener.cancel()

    async def _look(self, remind: bool) -> None:
        """Hand out what is new. A reminder goes out even when nothing is."""
        layer = channel_layers["default"]
        gone = await missing(list(self._followed)) if remind else set()
        for batch_id, followed in list(self._followed.items()):
            if batch_id in gone:
                await layer.group_send(group(batch_id), {"type": "batch.gone"})
                continue
            while True:
                found = await read(batch_id, followed.seq, LOOK_LIMIT)
                if found:
                    followed.seq = found[-1][0]
                if found or remind:
                    message = {"type": "batch.events", "seq": followed.seq, "frames": found}
                    await layer.group_send(group(batch_id), message)
                if len(found) < LOOK_LIMIT:
                    break

    async def _listen(self) -> None:
        """Turn the knocks of other hosts into wake-ups. Without Redis there is nobody to hear."""
        if "knocks" not in settings.CHANNEL_LAYERS:
            return
        layer = channel_layers["knocks"]
        while True:
            try:
                channel = await layer.new_channel()
                await layer.group_add(knocks.GROUP, channel)
                while True:
                    await layer.receive(channel)
                    self._knocked.set()
            except OSError as error:
                logger.warning("knocks cannot be heard, looking on a timer: %s", error)
                await asyncio.sleep(1)


class Changes:
    """Tells when it is worth looking: the database's own change counter, where it has one."""

    def __init__(self) -> None:
        self._counter: sqlite3.Connection | None = None
        self._version = -1

    def __enter__(self) -> "Changes":
        if connection.vendor == "sqlite":
            # A connection of its own in autocommit: it must see others' commits and make none.
            name = connection.settings_dict["NAME"]
            self._counter = sqlite3.connect(name, isolation_level=None)
        return self

    def __exit__(self, *_: object) -> None:
        if self._counter is not None:
            self._counter.close()

    async def wait(self, knocked: asyncio.Event) -> None:
        """Return when something was committed, somebody knocked, or a while has passed."""
        if self._counter is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(knocked.wait(), LOOK_SECONDS)
            return
        for _ in range(QUIET_POLLS):
            version = self._counter.execute("PRAGMA data_version").fetchone()[0]
            if version != self._version:
                self._version = version
                return
            await asyncio.sleep(POLL_SECONDS)


async def read(batch_id: uuid.UUID, seq: int, limit: int) -> list[tuple[int, str]]:
    """The batch's events after ``seq`` as numbered frames.

    Read in any free thread: the one that consumers share by default would make them queue.
    """

    def look() -> list[tuple[int, str]]:
        return [(event.seq, events.frame(event)) for event in events.since(batch_id, seq, limit)]

    return await database_sync_to_async(look, thread_sensitive=False)()


async def missing(batch_ids: list[uuid.UUID]) -> set[uuid.UUID]:
    """Those batches that have been deleted, and with them their events."""

    def look() -> set[uuid.UUID]:
        found = Batch.objects.filter(pk__in=batch_ids).values_list("pk", flat=True)
        return set(batch_ids) - set(found)

    return await database_sync_to_async(look, thread_sensitive=False)()


_feeds: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Feed]" = weakref.WeakKeyDictionary()


def current() -> Feed:
    """The feed of the running event loop."""
    return _feeds.setdefault(asyncio.get_running_loop(), Feed())
