"""The one door through which batches and tasks change their status.

Every function is one transaction that changes rows and records the events that
tell of it. Each records first and changes after: recording locks the batch's
row, so that all transactions take their locks in the same order, batch before
task, and none can wait for another in a circle.
"""

import uuid
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models.functions import Now
from django.utils import timezone

from batches import events
from batches.models import Batch, Task, Worker
from batches.processes import ProcessId
from batches.statuses import (
    BATCH_MOVES,
    TASK_MOVES,
    BatchStatus,
    Fault,
    TaskStatus,
)

RELEASED: dict[str, Any] = {
    "lease": None,
    "lease_expires_at": None,
    "worker": None,
    "worker_pid": None,
    "worker_birth": None,
}


class StaleStatus(Exception):
    """Somebody else moved the row first. Stop, and leave it alone."""


def advance(task: Task, status: TaskStatus, **changes: Any) -> None:
    """Move ``task`` on to ``status``, store ``changes`` with it and tell the watchers.

    The update names the status and the lease that it expects to find. Two
    workers that hold the same task therefore cannot both move it: the slower
    one gets ``StaleStatus`` and should stop without touching the row.
    """
    with transaction.atomic():
        events.record(
            task.batch_id,
            "task_status",
            task.name,
            task_id=task.name,
            status=status,
            attempt=changes.get("attempt", task.attempt),
        )
        _swap(task, status, changes)


def claim(task: Task, worker: Worker | None, process: ProcessId, lease_seconds: float) -> None:
    """Take ``task`` from the queue for ``process`` under a lease of its own.

    The first claim of a batch starts the batch, the first claim of a task the task.
    """
    now = timezone.now()
    with transaction.atomic():
        batch = Batch.objects.filter(pk=task.batch_id, status=BatchStatus.PENDING)
        if batch.exists():
            events.record(
                task.batch_id,
                "batch_started",
                total_tasks=task.batch.total_tasks,
                concurrent_limit=task.batch.concurrent_tasks,
            )
            batch.update(status=BatchStatus.RUNNING, started_at=now)
        if task.started_at is None:
            events.record(task.batch_id, "task_started", task.name, task_id=task.name)
        advance(
            task,
            TaskStatus.CLONING_REPO,
            attempt=task.attempt + 1,
            started_at=task.started_at or now,
            not_before=None,
            lease=uuid.uuid4(),
            lease_expires_at=Now() + timedelta(seconds=lease_seconds),
            worker=worker,
            worker_pid=process.pid,
            worker_birth=process.birth,
        )


def requeue(
    task: Task, *, strike: bool, error: str = "", not_before: datetime | None = None
) -> None:
    """Give a task in hand back to the queue. ``strike`` counts against its attempts."""
    advance(
        task,
        TaskStatus.QUEUED,
        strikes=task.strikes + strike,
        reason=error,
        not_before=not_before,
        **RELEASED,
    )


def judge(task: Task, *, passed: bool, reward: float, reason: str, test_output: str) -> None:
    """End a task with the verdict of its tests."""
    _finish(
        task,
        TaskStatus.COMPLETED if passed else TaskStatus.FAILED,
        passed=passed,
        reward=reward,
        fault=Fault.NONE if passed else Fault.AGENT,
        error="",
        reason=reason,
        test_output=test_output,
    )


def fail(task: Task, fault: Fault, error: str, *, test_output: str = "") -> None:
    """End a task that could not be judged: no reward, ``passed`` unknown, and why."""
    _finish(
        task,
        TaskStatus.FAILED,
        passed=None,
        reward=0.0,
        fault=fault,
        error=error,
        reason=error,
        test_output=test_output,
    )


def open_batch(batch: Batch) -> None:
    """Let the lanes at a batch whose tasks have all been written."""
    _move_batch(batch, BatchStatus.PENDING, lease_expires_at=None)


def stop_batch(batch: Batch, error: str) -> bool:
    """End a batch from outside; each task that has not ended fails with ``error``.

    Workers find their lease gone and stop what they are running. False when
    the batch has already ended.
    """
    with transaction.atomic():
        _lock(batch.pk)
        batch.refresh_from_db()
        if batch.status not in (BatchStatus.PENDING, BatchStatus.RUNNING):
            return False
        for task in batch.tasks.unfinished().order_by("position"):
            _end(
                task,
                TaskStatus.FAILED,
                passed=None,
                fault=Fault.CANCELLED,
                error=error,
                reason=error,
            )
        _close_batch(batch, BatchStatus.FAILED, error)
    return True


def _finish(task: Task, status: TaskStatus, **verdict: Any) -> None:
    """End ``task``; when it was its batch's last, end the batch in the same transaction."""
    with transaction.atomic():
        _end(task, status, **verdict)
        if not Task.objects.filter(batch_id=task.batch_id).unfinished().exists():
            _close_batch(Batch.objects.get(pk=task.batch_id), BatchStatus.COMPLETED, "")


def _end(task: Task, status: TaskStatus, **verdict: Any) -> None:
    """Record and store the end of one task."""
    finished_at = timezone.now()
    with transaction.atomic():
        events.record(
            task.batch_id,
            "task_complete",
            task.name,
            task_id=task.name,
            status=status,
            passed=verdict["passed"],
            reward=verdict.get("reward", 0.0),
            error=verdict["error"] or None,
            fault=verdict["fault"] or None,
            reason=verdict["reason"],
        )
        _swap(task, status, {**verdict, **RELEASED, "finished_at": finished_at})


def _close_batch(batch: Batch, status: BatchStatus, error: str) -> None:
    """Move a batch to its end and record the two events that close its stream."""
    _move_batch(batch, status, error=error, finished_at=timezone.now())
    counted = Batch.objects.with_progress().get(pk=batch.pk)
    events.record(
        batch.pk,
        "batch_complete",
        status=status,
        total=batch.total_tasks,
        passed=counted.passed,
        failed=counted.failed,
        reward=counted.aggregate_reward,
        duration_ms=counted.duration_ms,
    )
    events.record(batch.pk, "stream_closed")


def _move_batch(batch: Batch, status: BatchStatus, **changes: Any) -> None:
    before = BatchStatus(batch.status)
    if status not in BATCH_MOVES[before]:
        raise ValueError(f"batch {batch.pk}: {before} does not lead to {status}")
    found = Batch.objects.filter(pk=batch.pk, status=before)
    if found.update(status=status, **changes) == 0:
        raise StaleStatus(f"batch {batch.pk} is no longer {before}")
    for name, value in {"status": status, **changes}.items():
        setattr(batch, name, value)


def _swap(task: Task, status: TaskStatus, changes: dict[str, Any]) -> None:
    """Compare and set: the row moves only if it still stands where ``task`` says it does."""
    before = TaskStatus(task.status)
    if status not in TASK_MOVES[before]:
        raise ValueError(f"task {task.name}: {before} does not lead to {status}")
    found = Task.objects.filter(pk=task.pk, status=before, lease=task.lease)
    if found.update(status=status, **changes) == 0:
        raise StaleStatus(f"task {task.name} is no longer {before} under this lease")
    for name, value in {"status": status, **changes}.items():
        if name != "lease_expires_at":  # an expression of the database's clock, not a time
            setattr(task, name, value)


def _lock(batch_id: uuid.UUID) -> None:
    """Hold the batch's row until the transaction ends. SQLite has locked everything already."""
    Batch.objects.select_for_update().filter(pk=batch_id).exists()
