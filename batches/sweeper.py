"""Puts right what crashes leave behind. Runs in every worker, and is safe to run many times."""

import logging
from datetime import timedelta

from django.conf import settings
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from batches import lanes, queue, submissions, transitions
from batches.models import Batch, Task, Worker
from batches.processes import ProcessId
from batches.statuses import BatchStatus

logger = logging.getLogger(__name__)

LANES_OVERDUE_SECONDS = 3
"""A lane that was asked for should have claimed something by then."""
WORKER_FORGOTTEN_HOURS = 24


def sweep(worker: Worker) -> None:
    """Do everything that is due, once; lanes are asked for by the worker itself."""
    return_lost_tasks(worker)
    expire_batches()
    forget_unfinished_uploads()
    forget_workers()


def return_lost_tasks(worker: Worker) -> None:
    """Return tasks to the queue whose worker process is gone.

    A lease that ran out tells it anywhere. On this worker's own host the
    process table tells it at once.
    """
    expired = Task.objects.in_hand().filter(lease_expires_at__lt=Now())
    for task in expired:
        _return(task, "its worker stopped answering")
    here = Task.objects.in_hand().filter(worker__boot=worker.boot, worker__host=worker.host)
    for task in here.exclude(worker_pid=None):
        process = ProcessId(task.worker_pid or 0, task.worker_birth or 0)
        if not process.alive:
            _return(task, "its worker process died")


def _return(task: Task, why: str) -> None:
    try:
        lanes.give_back(task, why)
    except transitions.StaleStatus:
        return  # it ended after all, or another sweeper was faster
    logger.warning("task %s of batch %s: %s", task.name, task.batch_id, why)


def expire_batches() -> None:
    """End batches that outstay ``SESSION_TTL_SECS``."""
    too_old = timezone.now() - timedelta(seconds=settings.SESSION_TTL_SECS)
    for batch in Batch.objects.active().filter(created_at__lt=too_old):
        if transitions.stop_batch(batch, "expired"):
            logger.warning("batch %s expired", batch.pk)


def forget_unfinished_uploads() -> None:
    """Remove batches whose archive was being unpacked by a server that died.

    Nobody was told their id: the client got no answer and will submit again.
    """
    for batch in Batch.objects.filter(status=BatchStatus.EXTRACTING, lease_expires_at__lt=Now()):
        submissions.forget(batch)


def ask_missing_lanes() -> bool:
    """Ask again for lanes where tasks wait, a place is free and nobody claimed for a while.

    ``lanes_asked_at`` is moved by compare-and-set, so that of many sweepers
    one asks. Returns whether this one had to.
    """
    had_to = False
    overdue = timezone.now() - timedelta(seconds=LANES_OVERDUE_SECONDS)
    for batch in Batch.objects.filter(status__in=(BatchStatus.PENDING, BatchStatus.RUNNING)):
        free = batch.concurrent_tasks - batch.tasks.in_hand().count()
        waiting = lanes.claimable(batch).count()
        if min(free, waiting) <= 0:
            continue
        not_asked_lately = Q(lanes_asked_at=None) | Q(lanes_asked_at__lt=overdue)
        found = Batch.objects.filter(not_asked_lately, pk=batch.pk)
        if found.update(lanes_asked_at=timezone.now()):
            queue.renew_lanes(batch, min(free, waiting))
            had_to = True
    return had_to


def forget_workers() -> None:
    """Remove the rows of workers that have been gone for a day."""
    long_ago = timezone.now() - timedelta(hours=WORKER_FORGOTTEN_HOURS)
    Worker.objects.filter(heartbeat_at__lt=long_ago).delete()
