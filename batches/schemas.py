"""The JSON that clients see. Names, shapes and order are the public contract's."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from ninja import Schema

from batches.models import Batch, Run, Task


class Health(Schema):
    """The server answers."""

    status: str


class Status(Schema):
    """The server in numbers, counted from its rows."""

    version: str
    uptime_secs: int
    active_batches: int
    total_batches: int
    completed_batches: int
    tasks_passed: int
    tasks_failed: int
    max_concurrent_tasks: int
    has_active_batch: bool


class Accepted(Schema):
    """A submission that became a batch."""

    batch_id: UUID
    total_tasks: int
    concurrent_tasks: int
    ws_url: str


class Error(Schema):
    """A refusal: a code for programs and a sentence for people."""

    error: str
    message: str


class ArchiveProblem(Schema):
    """One reason why an archive was refused."""

    file: str
    message: str


class ArchiveError(Error):
    """A refusal with every problem that was found in the archive."""

    problems: list[ArchiveProblem] | None = None


class BatchLine(Schema):
    """A batch in the list of batches."""

    batch_id: UUID
    created_at: str
    status: str


class TaskResult(Schema):
    """A task as the batch's lists show it."""

    task_id: str
    status: str
    passed: bool | None
    reward: float
    test_output: str | None
    error: str | None
    duration_ms: int | None
    fault: str | None
    reason: str | None
    attempt: int
    base_commit: str | None

    @classmethod
    def of(cls, task: Task) -> "TaskResult":
        return cls(**task_fields(task))


class TestResult(Schema):
    """What one test script said in the latest attempt."""

    __test__ = False  # not for pytest to collect

    name: str
    passed: bool
    exit_code: int | None
    output: str
    reason: str
    wall_seconds: float


class TaskDetail(TaskResult):
    """A task with each of its tests."""

    test_results: list[TestResult]

    @classmethod
    def of_runs(cls, task: Task, runs: list[Run]) -> "TaskDetail":
        tests = [
            TestResult(
                name=run.name,
                passed=run.ok,
                exit_code=run.exit_code,
                output=run.output,
                reason=run.reason,
                wall_seconds=run.wall_seconds,
            )
            for run in runs
        ]
        return cls(**task_fields(task), test_results=tests)


class BatchTasks(Schema):
    """All tasks of a batch, in the order of the archive."""

    batch_id: UUID
    tasks: list[TaskResult]


class BatchDetail(Schema):
    """A batch, its numbers, and its tasks."""

    batch_id: UUID
    status: str
    total_tasks: int
    completed_tasks: int
    passed_tasks: int
    failed_tasks: int
    aggregate_reward: float
    error: str | None
    duration_ms: int | None
    tasks: list[TaskResult]
    created_at: str
    started_at: str | None
    finished_at: str | None
    concurrent_tasks: int


def task_fields(task: Task) -> dict[str, Any]:
    """A task in the API's words. Empty texts of the database are null there."""
    return {"test_output": task.test_output or None, **snapshot_fields(task)}


def snapshot_fields(task: Task) -> dict[str, Any]:
    """The same without the tests' output, which may be large and is one request away."""
    return {
        "task_id": task.name,
        "status": task.status,
        "passed": task.passed,
        "reward": task.reward,
        "error": task.error or None,
        "duration_ms": task.duration_ms,
        "fault": task.fault or None,
        "reason": task.reason or None,
        "attempt": task.attempt,
        "base_commit": task.base_commit or None,
    }


def batch_numbers(batch: Batch) -> dict[str, Any]:
    """The numbers that the API and the snapshot share. Needs ``with_progress``."""
    return {
        "status": batch.status,
        "total_tasks": batch.total_tasks,
        "completed_tasks": batch.ended,
        "passed_tasks": batch.passed,
        "failed_tasks": batch.failed,
        "aggregate_reward": batch.aggregate_reward,
    }


def rfc3339(moment: datetime | None) -> str | None:
    """A time in UTC as RFC 3339 writes it, with a Z."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
