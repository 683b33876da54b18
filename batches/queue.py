"""The only module that knows django-q2: it delivers lanes, and decides nothing.

A lane that is lost, doubled or late is harmless: claims decide who runs what,
and the sweeper asks again for lanes that do not come.
"""

from django_q.models import OrmQ
from django_q.tasks import async_task

from batches.models import Batch

LANE = "batches.jobs.lane"


def ask_lanes(batch: Batch, count: int) -> None:
    """Ask for ``count`` more lanes for ``batch``."""
    for _ in range(count):
        async_task(LANE, str(batch.pk), task_name=f"lane of {batch.pk}")


def renew_lanes(batch: Batch, count: int) -> None:
    """Ask again, in place of everything that waits: it may wait for a cluster that is gone.

    A lane that is under way is not touched by the removal of its message.
    """
    OrmQ.objects.all().delete()
    ask_lanes(batch, count)


def waiting() -> int:
    """How many lanes have been asked for and not yet ended."""
    count: int = OrmQ.objects.count()
    return count
