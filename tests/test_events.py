"""What watchers are told: numbered rows, their frames, and the knocks that follow them."""

import json
import logging
import socket

import pytest
from django.db import transaction
from pytest_django import Settings

from batches import events, knocks
from batches.models import Batch, Event
from tests.factories import make_batch

pytestmark = pytest.mark.django_db(transaction=True)


def test_events_are_numbered_per_batch() -> None:
    one = make_batch()
    Batch.objects.update(slot=1)
    other = make_batch()

    numbers = [events.record(batch.pk, "x").seq for batch in (one, other, one, other, one)]

    assert numbers == [1, 1, 2, 2, 3]
    assert list(Batch.objects.order_by("slot").values_list("last_seq", flat=True)) == [2, 3]


def test_event_that_is_rolled_back_leaves_no_gap() -> None:
    batch = make_batch()
    events.record(batch.pk, "first")

    with transaction.atomic():
        events.record(batch.pk, "lost")
        transaction.set_rollback(True)
    events.record(batch.pk, "second")

    assert list(Event.objects.values_list("seq", "event")) == [(1, "first"), (2, "second")]


def test_event_of_a_batch_that_is_gone_is_refused() -> None:
    batch = make_batch()
    Batch.objects.all().delete()

    with pytest.raises(Batch.DoesNotExist):
        events.record(batch.pk, "late")

    assert not Event.objects.exists()


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (
            Event(event="batch_started", data={"total_tasks": 2, "concurrent_limit": 1}),
            {"event": "batch_started", "data": {"total_tasks": 2, "concurrent_limit": 1}},
        ),
        (
            Event(event="task_started", task_name="ünï\n", data={"task_id": "ünï\n"}),
            {"event": "task_started", "task_id": "ünï\n", "data": {"task_id": "ünï\n"}},
        ),
        (Event(event="stream_closed"), {"event": "stream_closed"}),
    ],
    ids=["of the batch", "of a task", "the last"],
)
def test_frame_has_the_shape_of_the_contract(event: Event, expected: dict[str, object]) -> None:
    batch = make_batch()
    event.batch, event.seq = batch, 7

    text = events.frame(event)

    assert json.loads(text) == {**expected, "batch_id": str(batch.pk), "seq": 7}
    assert "\n" not in text


def test_rows_after_a_number_are_read_in_their_order() -> None:
    batch = make_batch()
    for number in range(1, 8):
        events.record(batch.pk, str(number))

    assert [row.event for row in events.since(batch.pk, 2, 3)] == ["3", "4", "5"]
    assert [row.event for row in events.since(batch.pk, 5, 1000)] == ["6", "7"]
    assert events.since(batch.pk, 7, 1000) == []


def test_without_redis_nobody_is_knocked_for(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    assert list(settings.CHANNEL_LAYERS) == ["default"]

    knocks.knock()

    assert caplog.records == []


def test_event_stays_when_redis_cannot_be_reached(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings.CHANNEL_LAYERS = {
        **settings.CHANNEL_LAYERS,
        "knocks": {
            "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
            "CONFIG": {"hosts": [f"redis://127.0.0.1:{port}"]},
        },
    }
    batch = make_batch()

    with caplog.at_level(logging.WARNING):
        events.record(batch.pk, "told")

    assert [event.event for event in Event.objects.all()] == ["told"]
    assert [(record.levelname, record.name) for record in caplog.records] == [
        ("WARNING", "batches.knocks")
    ]
