"""What django-q2 calls: a lane, which works through a batch task by task until none is left."""

import logging
import uuid

from django.db import DatabaseError

from batches import lanes, pipeline
from batches.faults import InfraFault
from batches.leases import Held
from batches.models import Task
from batches.sandbox.promise import SandboxError
from batches.transitions import StaleStatus

logger = logging.getLogger(__name__)


def lane(batch_id: str) -> None:
    """Claim and run tasks of a batch, one at a time. Safe to be delivered twice, or too late."""
    while (task := lanes.claim(uuid.UUID(batch_id))) is not None:
        run(task)


def run(task: Task) -> None:
    """Run one claimed task. However it ends, the task is judged, failed or back in the queue.

    Also for a ``SystemExit``, which is how django-q2 tells a lane that its time is up.
    """
    with Held(lambda: lanes.renew(task)) as held:
        try:
            pipeline.run_task(task, held.lost)
        except StaleStatus:
            logger.info("task %s of batch %s was taken away", task.name, task.batch_id)
        except BaseException as error:
            put_back(task, error)
            if not isinstance(error, Exception):
                raise


def put_back(task: Task, error: BaseException) -> None:
    """Return a task that our own trouble ended. A row that cannot be written is left to the sweeper.

    A task that is not ours any more is left alone: it was taken away, or it is
    judged, and clearing up after it went wrong.
    """
    try:
        if not lanes.renew(task):
            logger.info("task %s of batch %s is over here: %r", task.name, task.batch_id, error)
            return
        task.refresh_from_db(fields=["status", "strikes"])
        lanes.give_back(task, explain(task, error))
    except (StaleStatus, DatabaseError) as trouble:
        logger.warning(
            "task %s of batch %s was not put back after %r: %s",
            *(task.name, task.batch_id, error, trouble),
        )


def explain(task: Task, error: BaseException) -> str:
    """What users are told of ``error``. Operators find all of it in the log."""
    if isinstance(error, InfraFault | SandboxError):
        logger.warning("task %s of batch %s: %s", task.name, task.batch_id, error)
        return str(error)
    logger.error("task %s of batch %s failed", task.name, task.batch_id, exc_info=error)
    return f"internal error ({type(error).__name__})"
