"""The life of batches and tasks as data: every status, and every move that is legal."""

from django.db import models


class BatchStatus(models.TextChoices):
    """Where a batch stands. The words are the API's own."""

    PENDING = "pending"
    """Accepted; no task has been claimed yet."""
    EXTRACTING = "extracting"
    """The archive is being unpacked and read. A refused archive leaves no batch behind."""
    RUNNING = "running"
    """At least one task has been claimed."""
    COMPLETED = "completed"
    """Every task has ended with its own verdict."""
    FAILED = "failed"
    """The batch was ended from outside: cancelled, or out of time. ``error`` says which."""


class TaskStatus(models.TextChoices):
    """Where a task stands. The words are the API's own."""

    QUEUED = "queued"
    """Waits for a lane."""
    CLONING_REPO = "cloning_repo"
    """Claimed; its repository is being fetched at the base commit."""
    INSTALLING_DEPS = "installing_deps"
    """The install commands run."""
    RUNNING_AGENT = "running_agent"
    """The agent works on the repository."""
    RUNNING_TESTS = "running_tests"
    """The agent's patch is judged in a fresh copy."""
    COMPLETED = "completed"
    """Judged, and every test passed."""
    FAILED = "failed"
    """Judged and red (``passed`` false), or not judged at all (``passed`` null, ``error`` set)."""


class Fault(models.TextChoices):
    """Whose doing it was that a task ended without reward."""

    NONE = "", "none"
    AGENT = "agent"
    """The tests were red: the agent did not solve the task."""
    TASK = "task"
    """The task cannot be judged as it is written: no such commit, an install that fails."""
    INFRA = "infra"
    """This server's trouble. The only fault that is tried again."""
    CANCELLED = "cancelled"
    """Somebody ended it, or its batch ran out of time."""


class Phase(models.TextChoices):
    """The part of a task's life that a command belongs to."""

    CLONE = "clone"
    INSTALL = "install"
    AGENT = "agent"
    PATCH = "patch"
    TESTS = "tests"


ACTIVE_BATCH = frozenset({BatchStatus.PENDING, BatchStatus.EXTRACTING, BatchStatus.RUNNING})
ENDED_BATCH = frozenset({BatchStatus.COMPLETED, BatchStatus.FAILED})

IN_HAND = frozenset(
    {
        TaskStatus.CLONING_REPO,
        TaskStatus.INSTALLING_DEPS,
        TaskStatus.RUNNING_AGENT,
        TaskStatus.RUNNING_TESTS,
    }
)
ENDED_TASK = frozenset({TaskStatus.COMPLETED, TaskStatus.FAILED})

BATCH_MOVES: dict[BatchStatus, frozenset[BatchStatus]] = {
    BatchStatus.EXTRACTING: frozenset({BatchStatus.PENDING}),
    BatchStatus.PENDING: frozenset({BatchStatus.RUNNING, BatchStatus.FAILED}),
    BatchStatus.RUNNING: frozenset({BatchStatus.COMPLETED, BatchStatus.FAILED}),
    BatchStatus.COMPLETED: frozenset(),
    BatchStatus.FAILED: frozenset(),
}

# A step back to the queue is what happens to a task whose worker died or shut down.
TASK_MOVES: dict[TaskStatus, frozenset[TaskStatus]] = {
    TaskStatus.QUEUED: frozenset({TaskStatus.CLONING_REPO, TaskStatus.FAILED}),
    TaskStatus.CLONING_REPO: frozenset(
        {TaskStatus.INSTALLING_DEPS, TaskStatus.RUNNING_AGENT, TaskStatus.FAILED, TaskStatus.QUEUED}
    ),
    TaskStatus.INSTALLING_DEPS: frozenset(
        {TaskStatus.RUNNING_AGENT, TaskStatus.FAILED, TaskStatus.QUEUED}
    ),
    TaskStatus.RUNNING_AGENT: frozenset(
        {TaskStatus.RUNNING_TESTS, TaskStatus.FAILED, TaskStatus.QUEUED}
    ),
    TaskStatus.RUNNING_TESTS: frozenset(
        {TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.QUEUED}
    ),
    TaskStatus.COMPLETED: frozenset(),
    TaskStatus.FAILED: frozenset(),
}
