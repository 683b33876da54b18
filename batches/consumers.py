"""The WebSocket: a snapshot or a replay, then the batch's events as they happen, then the close."""

import json
import logging
import uuid
from typing import Any
from urllib.parse import parse_qs

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer

from batches import feed
from batches.models import Batch
from batches.moments import one_moment
from batches.schemas import batch_numbers, snapshot_fields

logger = logging.getLogger(__name__)

REPLAY_CHUNK = 500
MAX_SEQ = 2**31 - 1


class BatchConsumer(AsyncWebsocketConsumer):
    """One watcher of one batch.

    ``sent`` is the number of the last event on the wire. Rows are sent in their
    order and once each, whatever the channel layer does with its messages: one
    that comes twice is skipped, and a gap is filled from the rows.
    """

    batch_id: uuid.UUID | None = None
    sent: int = 0
    following = False
    closed = False

    async def dispatch(self, message: dict[str, Any]) -> None:
        """Hand a message to its method.

        Channels would first close old database connections, in the one thread that
        all consumers share; this one reads in threads that clean up after themselves.
        """
        await getattr(self, message["type"].replace(".", "_"))(message)

    async def connect(self) -> None:
        await self.accept()
        query = parse_qs(self.scope["query_string"].decode("latin-1"))
        asked = query.get("batch_id", [""])[0]
        try:
            self.batch_id = uuid.UUID(asked)
        except ValueError:
            return await self.refuse("batch_not_found", asked)
        since = query.get("since", [None])[0]
        if since is not None and not (
            since.isascii() and since.isdigit() and int(since) <= MAX_SEQ
        ):
            return await self.refuse("invalid_since", asked)

        # Joined before anything is read: what happens in between arrives twice, not never.
        await self.channel_layer.group_add(feed.group(self.batch_id), self.channel_name)
        snapshot = await database_sync_to_async(read_snapshot, thread_sensitive=False)(
            self.batch_id
        )
        if snapshot is None:
            return await self.refuse("batch_not_found", asked)
        latest = snapshot["seq"]
        if since is None:
            self.sent = latest
            await self.send(text_data=dump(snapshot))
        else:
            # Nobody has seen what has not happened: such a watcher would wait for ever.
            self.sent = min(int(since), latest)
        feed.current().follow(self.batch_id, latest)
        self.following = True
        await self.catch_up(latest)
        if snapshot["data"]["status"] in ("completed", "failed"):
            await self.end()
        return None

    async def batch_events(self, message: dict[str, Any]) -> None:
        """Events from the feed, or a reminder of the number of the latest one."""
        if self.closed:
            return
        for seq, text in message["frames"]:
            if seq == self.sent + 1:
                await self.put(seq, text)
        await self.catch_up(message["seq"])

    async def batch_gone(self, message: dict[str, Any]) -> None:
        """The batch was deleted."""
        if not self.closed:
            await self.refuse("batch_not_found", str(self.batch_id))

    async def catch_up(self, latest: int) -> None:
        """Send the rows up to ``latest`` that have not been sent yet."""
        while self.batch_id is not None and self.sent < latest and not self.closed:
            found = await feed.read(self.batch_id, self.sent, REPLAY_CHUNK)
            if not found:
                return await self.refuse("batch_not_found", str(self.batch_id))
            for seq, text in found:
                await self.put(seq, text)
        return None

    async def put(self, seq: int, text: str) -> None:
        """Send one event; the one that closes the stream closes the socket."""
        if self.closed:
            return
        self.sent = seq
        await self.send(text_data=text)
        if text.startswith('{"event":"stream_closed"'):
            self.closed = True
            await self.close(1000)

    async def end(self) -> None:
        """Tell a watcher of a batch that has ended that nothing will follow."""
        if not self.closed:
            self.closed = True
            body = {"event": "stream_closed", "batch_id": str(self.batch_id), "seq": self.sent}
            await self.send(text_data=dump(body))
            await self.close(1000)

    async def refuse(self, code: str, asked: str) -> None:
        self.closed = True
        await self.send(text_data=dump({"error": code, "batch_id": asked}))
        await self.close(4404)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Watchers only listen; what they say is ignored."""

    async def disconnect(self, code: int) -> None:
        self.closed = True
        if self.batch_id is not None:
            await self.channel_layer.group_discard(feed.group(self.batch_id), self.channel_name)
        if self.following and self.batch_id is not None:
            feed.current().leave(self.batch_id)
            self.following = False


def read_snapshot(batch_id: uuid.UUID) -> dict[str, Any] | None:
    """The batch as it stands, and the number of the last event that is contained in it."""
    with one_moment():
        batch = Batch.objects.with_progress().filter(pk=batch_id).first()
        if batch is None:
            return None
        rows = batch.tasks.defer("spec", "test_output")
        tasks = [snapshot_fields(task) for task in rows]
    return {
        "event": "snapshot",
        "batch_id": str(batch_id),
        "seq": batch.last_seq,
        "data": {**batch_numbers(batch), "tasks": tasks},
    }


def dump(body: dict[str, Any]) -> str:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))
