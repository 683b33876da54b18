"""Claims: which lane runs which task, and what happens to a task whose worker is gone."""

import os
import uuid
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from batches import transitions
from batches.models import Batch, Task, TaskQuerySet, Worker
from batches.processes import ProcessId
from batches.statuses import BatchStatus, Fault

WORKER_VARIABLE = "TERM_EXECUTOR_WORKER"
"""Names the ``Worker`` row whose cluster a process belongs to; set by the supervisor."""


def claim(batch_id: uuid.UUID) -> Task | None:
    """The batch's next task, claimed for this process, or ``None`` when there is nothing to do.

    Refused while the batch has as many tasks in hand as it may, so that lanes
    which were delivered twice cannot exceed ``concurrent_tasks``.
    """
    with transaction.atomic():
        batch = Batch.objects.select_for_update().filter(pk=batch_id).first()
        if batch is None or batch.status not in (BatchStatus.PENDING, BatchStatus.RUNNING):
            return None
        worker = this_worker()
        if worker is not None and worker.draining:
            return None
        if batch.tasks.in_hand().count() >= batch.concurrent_tasks:
            return None
        task = claimable(batch).select_related("batch").order_by("position").first()
        if task is None:
            return None
        transitions.claim(task, worker, ProcessId.own(), settings.LEASE_SECS)
        return task


def claimable(batch: Batch) -> TaskQuerySet:
    """Queued tasks whose pause after a failed attempt, if they had one, is over."""
    return batch.tasks.queued().filter(Q(not_before=None) | Q(not_before__lte=timezone.now()))


def this_worker() -> Worker | None:
    """The worker that this process belongs to; ``None`` outside of a cluster."""
    name = os.environ.get(WORKER_VARIABLE)
    return Worker.objects.filter(pk=name).first() if name else None


def renew(task: Task) -> bool:
    """Prolong the lease of ``task``; False when it was lost, or the task was ended by somebody.

    Time is taken from the database, which all hosts share.
    """
    found = Task.objects.in_hand().filter(pk=task.pk, lease=task.lease)
    expires = Now() + timedelta(seconds=settings.LEASE_SECS)
    return found.update(lease_expires_at=expires) == 1


def give_back(task: Task, error: str) -> None:
    """Put a task that failed through our own trouble back into the queue, or end it after the last try.

    The pause before the next try doubles: 1, 2, 4 … seconds.
    """
    if task.strikes + 1 >= settings.MAX_ATTEMPTS:
        transitions.fail(
            task, Fault.INFRA, f"could not be judged: {error} ({task.attempt} attempts)"
        )
        return
    pause = timedelta(seconds=2**task.strikes)
    transitions.requeue(task, strike=True, error=error, not_before=timezone.now() + pause)


def hand_back(worker: Worker) -> int:
    """Return what ``worker`` has in hand to the queue, without a strike; how many tasks that was."""
    count = 0
    for task in Task.objects.in_hand().filter(worker=worker):
        try:
            transitions.requeue(task, strike=False, error="handed back by a worker that shut down")
        except transitions.StaleStatus:
            continue
        count += 1
    return count
