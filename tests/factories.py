"""Rows for tests, as accepted submissions leave them."""

from typing import Any

from batches.models import Batch, Task
from batches.processes import ProcessId
from batches.statuses import BatchStatus
from batches.transitions import claim

HOTKEY = "5GziQCcRpN8NCJktX343brnfuVe3w6gUYieeStXPD1Dag2At"

SPEC: dict[str, Any] = {
    "name": "task",
    "folder": "tasks/task",
    "repo": "owner/name",
    "base_commit": None,
    "version": "1",
    "language": "python",
    "install": [],
    "tests": [{"name": "run.sh", "file": "run.sh", "command": None}],
    "test_files": [],
}


def make_batch(*names: str, concurrent_tasks: int = 8, **changes: Any) -> Batch:
    """A pending batch with a queued task for each of ``names``; one called ``a`` when there is none."""
    names = names or ("a",)
    batch = Batch.objects.create(
        **{
            "status": BatchStatus.PENDING,
            "hotkey": HOTKEY,
            "concurrent_tasks": concurrent_tasks,
            "total_tasks": len(names),
            "agent": {"folder": "agent_code", "entry": "agent.py", "language": "python"},
            **changes,
        }
    )
    for position, name in enumerate(names):
        Task.objects.create(batch=batch, name=name, position=position, spec={**SPEC, "name": name})
    return batch


def claimed(task: Task, lease_seconds: float = 60) -> Task:
    """``task``, claimed by this process."""
    claim(task, None, ProcessId.own(), lease_seconds)
    return task
