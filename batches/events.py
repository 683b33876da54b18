"""What watchers are told: numbered rows, and the frames that are made of them."""

import json
import uuid
from typing import Any

from django.db import transaction
from django.db.models import F

from batches import knocks
from batches.models import Batch, Event


def record(batch_id: uuid.UUID, event: str, task_name: str = "", **data: Any) -> Event:
    """Store an event of a batch, numbered next after its latest.

    Belongs into the transaction of the change that it tells of. Raising the
    number locks the batch's row until that transaction commits, so numbers
    become visible in their order, whatever the database.
    """
    with transaction.atomic():
        Batch.objects.filter(pk=batch_id).update(last_seq=F("last_seq") + 1)
        seq = Batch.objects.values_list("last_seq", flat=True).get(pk=batch_id)
        stored = Event.objects.create(
            batch_id=batch_id, seq=seq, event=event, task_name=task_name, data=data
        )
        transaction.on_commit(knocks.knock)
    return stored


def frame(event: Event) -> str:
    """The text of the WebSocket frame that carries ``event``."""
    body: dict[str, Any] = {
        "event": event.event,
        "batch_id": str(event.batch_id),
        "seq": event.seq,
    }
    if event.task_name:
        body["task_id"] = event.task_name
    if event.event != "stream_closed":
        body["data"] = event.data
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))


def since(batch_id: uuid.UUID, seq: int, limit: int) -> list[Event]:
    """The batch's events after ``seq`` in their order, ``limit`` at most."""
    return list(Event.objects.filter(batch_id=batch_id, seq__gt=seq).order_by("seq")[:limit])
