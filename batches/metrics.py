"""Metrics, counted from rows when they are asked for.

So they survive restarts, and are the same from every server process.
"""

from collections.abc import Iterator

from django.db.models import Count, F, Q, Sum
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from batches import queue
from batches.models import Batch, Task
from batches.statuses import ACTIVE_BATCH, ENDED_BATCH, BatchStatus, TaskStatus


class Rows(Collector):
    """Counts batches and tasks. One query each, whatever their number."""

    def collect(self) -> Iterator[Metric]:
        batches, tasks = counted()
        yield number("batches_total", "Batches accepted.", batches["total"])
        yield number("batches_active", "Batches pending, extracting or running.", batches["active"])
        yield number(
            "batches_completed", "Batches whose every task has a verdict.", batches["completed"]
        )
        yield number("tasks_total", "Tasks of all batches.", tasks["total"])
        yield number("tasks_passed", "Tasks whose tests passed.", tasks["passed"])
        yield number("tasks_failed", "Tasks that ended without reward.", tasks["failed"])
        yield number(
            "duration_ms_sum", "Milliseconds that ended batches took, added up.", durations()
        )
        by_status = GaugeMetricFamily(
            "term_executor_tasks_by_status", "Tasks by status.", labels=["status"]
        )
        found = dict(Task.objects.order_by().values_list("status").annotate(Count("pk")))
        for status in TaskStatus:
            by_status.add_metric([status.value], found.get(status.value, 0))
        yield by_status
        yield number("lanes_waiting", "Lanes asked for and not yet ended.", queue.waiting())


def counted() -> tuple[dict[str, int], dict[str, int]]:
    """Batches by ``total``, ``active``, ``completed``, and tasks by ``total``, ``passed``, ``failed``."""
    batches: dict[str, int] = Batch.objects.aggregate(
        total=Count("pk"),
        active=Count("pk", filter=Q(status__in=ACTIVE_BATCH)),
        completed=Count("pk", filter=Q(status=BatchStatus.COMPLETED)),
    )
    tasks: dict[str, int] = Task.objects.aggregate(
        total=Count("pk"),
        passed=Count("pk", filter=Q(status=TaskStatus.COMPLETED)),
        failed=Count("pk", filter=Q(status=TaskStatus.FAILED)),
    )
    return batches, tasks


def durations() -> float:
    """The time that all ended batches took together, in milliseconds."""
    ended = Batch.objects.filter(status__in=ENDED_BATCH).aggregate(
        total=Sum(F("finished_at") - F("created_at"))
    )["total"]
    return 0.0 if ended is None else ended.total_seconds() * 1000


def number(name: str, text: str, value: float) -> Metric:
    """One number under the service's name. Typed as a gauge: rows can be deleted."""
    return GaugeMetricFamily(f"term_executor_{name}", text, value=value)


registry = CollectorRegistry()
registry.register(Rows())


def render() -> bytes:
    """All metrics in Prometheus' text format."""
    return generate_latest(registry)
