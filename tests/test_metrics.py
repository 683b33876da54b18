"""Metrics: counted from the rows at hand, whatever happened to them before."""

from datetime import timedelta
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from batches import metrics, queue, transitions
from batches.models import Batch
from batches.statuses import TaskStatus
from tests.factories import claimed, make_batch

pytestmark = pytest.mark.django_db(transaction=True)


def shown() -> dict[str, float]:
    """What Prometheus reads, without what is zero and without the service's name."""
    return {
        sample.name.removeprefix("term_executor_") + "".join(sample.labels.values()): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
        if sample.value
    }


def ended_batch(*verdicts: bool, seconds: float = 2) -> Batch:
    """A batch whose tasks were judged so, and which took so long."""
    batch = make_batch(*(f"t{number}" for number in range(len(verdicts))))
    for task, passed in zip(batch.tasks.all(), verdicts, strict=True):
        claimed(task)
        transitions.advance(task, TaskStatus.RUNNING_AGENT)
        transitions.advance(task, TaskStatus.RUNNING_TESTS)
        transitions.judge(task, passed=passed, reward=float(passed), reason="", test_output="")
    batch.refresh_from_db()
    batch.finished_at = batch.created_at + timedelta(seconds=seconds)
    batch.save()
    return batch


def test_server_that_did_nothing_yet_shows_zeros() -> None:
    assert shown() == {}
    assert b"term_executor_tasks_total 0.0\n" in metrics.render()


def test_batches_and_tasks_are_counted_by_what_became_of_them() -> None:
    ended_batch(True, True, False, seconds=2)
    cancelled = make_batch("a", "b")
    transitions.stop_batch(cancelled, "cancelled")
    Batch.objects.filter(pk=cancelled.pk).update(
        finished_at=cancelled.created_at + timedelta(seconds=0.5)
    )
    active = make_batch("a", "b", "c")
    claimed(active.tasks.first())
    queue.ask_lanes(active, 2)

    assert shown() == {
        "batches_total": 3,
        "batches_active": 1,
        "batches_completed": 1,
        "tasks_total": 8,
        "tasks_passed": 2,
        "tasks_failed": 3,
        "duration_ms_sum": 2500,
        "tasks_by_statusqueued": 2,
        "tasks_by_statuscloning_repo": 1,
        "tasks_by_statuscompleted": 2,
        "tasks_by_statusfailed": 3,
        "lanes_waiting": 2,
    }


def test_deleted_batch_is_not_counted_any_more() -> None:
    ended_batch(False, seconds=1)
    kept = ended_batch(True, seconds=3)

    Batch.objects.exclude(pk=kept.pk).delete()

    assert shown() == {
        "batches_total": 1,
        "batches_completed": 1,
        "tasks_total": 1,
        "tasks_passed": 1,
        "duration_ms_sum": 3000,
        "tasks_by_statuscompleted": 1,
    }


def test_queries_do_not_grow_with_the_rows(django_assert_num_queries: Any) -> None:
    for count in (1, 3):
        for _ in range(count):
            ended_batch(*[True] * 5)
        with django_assert_num_queries(5):
            metrics.render()
