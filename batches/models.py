"""The rows that are the truth: batches, their tasks, the commands run for them, and events."""

import uuid
from datetime import datetime
from typing import Any

from django.db import models
from django.db.models import Count, Q, Sum
from django.db.models.functions import Coalesce
from django.utils import timezone

from batches.archive.specs import AgentSpec, TaskSpec
from batches.statuses import (
    ACTIVE_BATCH,
    ENDED_TASK,
    IN_HAND,
    BatchStatus,
    Fault,
    Phase,
    TaskStatus,
)


class BatchQuerySet(models.QuerySet["Batch"]):
    """Batches, and the numbers that are derived from their tasks."""

    def active(self) -> "BatchQuerySet":
        """Batches that are accepted and not yet ended. There is at most one per ``slot``."""
        return self.filter(status__in=ACTIVE_BATCH)

    def with_progress(self) -> "BatchQuerySet":
        """Adds ``ended``, ``passed``, ``failed`` and ``reward_sum``, counted from the tasks.

        Counted and never stored, they cannot contradict the tasks that stand beside them.
        """
        return self.annotate(**PROGRESS)


PROGRESS: dict[str, Any] = {
    "ended": Count("tasks", filter=Q(tasks__status__in=ENDED_TASK)),
    "passed": Count("tasks", filter=Q(tasks__status=TaskStatus.COMPLETED)),
    "failed": Count("tasks", filter=Q(tasks__status=TaskStatus.FAILED)),
    "reward_sum": Coalesce(Sum("tasks__reward"), 0.0),
}


class Batch(models.Model):
    """One submitted archive: an agent, and the tasks that it is judged on."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    status = models.CharField(
        max_length=16, choices=BatchStatus.choices, default=BatchStatus.EXTRACTING
    )
    slot = models.PositiveSmallIntegerField(
        default=0, help_text="Which of the server's places for a batch in progress this one takes."
    )
    hotkey = models.CharField(max_length=64, help_text="Who sent it. Shown to staff only.")
    concurrent_tasks = models.PositiveIntegerField()
    total_tasks = models.PositiveIntegerField(default=0)
    agent = models.JSONField(
        default=dict, help_text="Where the agent's entry lies; never its code."
    )
    archive = models.FileField(max_length=255, blank=True)
    archive_sha256 = models.CharField(max_length=64, blank=True)
    archive_bytes = models.PositiveBigIntegerField(default=0)
    error = models.TextField(blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    last_seq = models.PositiveIntegerField(
        default=0, help_text="The number of this batch's latest event."
    )
    lease_expires_at = models.DateTimeField(
        null=True,
        blank=True,
        help_text="While extracting: until when the server that unpacks is believed alive.",
    )
    lanes_asked_at = models.DateTimeField(null=True, blank=True)

    # Set by ``with_progress`` and missing without it.
    ended: int
    passed: int
    failed: int
    reward_sum: float

    objects = BatchQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "batches"
        ordering = ["-created_at", "-id"]
        constraints = [
            # "One batch at a time" is decided here, not by whoever looked first.
            models.UniqueConstraint(
                fields=["slot"],
                condition=Q(status__in=sorted(ACTIVE_BATCH)),
                name="one_active_batch_per_slot",
            ),
        ]
        indexes = [models.Index(fields=["-created_at", "-id"], name="batch_newest")]

    def __str__(self) -> str:
        return str(self.id)

    @property
    def agent_spec(self) -> AgentSpec:
        return AgentSpec(**self.agent)

    @property
    def aggregate_reward(self) -> float:
        """The mean reward over all tasks; one that has not ended counts nothing yet.

        Needs the annotations of ``with_progress``.
        """
        return self.reward_sum / self.total_tasks if self.total_tasks else 0.0

    @property
    def duration_ms(self) -> int | None:
        """Milliseconds from acceptance to the last verdict; ``None`` until then."""
        return milliseconds(self.created_at, self.finished_at)


class TaskQuerySet(models.QuerySet["Task"]):
    """Tasks by where they stand."""

    def in_hand(self) -> "TaskQuerySet":
        return self.filter(status__in=IN_HAND)

    def queued(self) -> "TaskQuerySet":
        return self.filter(status=TaskStatus.QUEUED)

    def unfinished(self) -> "TaskQuerySet":
        return self.exclude(status__in=ENDED_TASK)


class Task(models.Model):
    """One task of a batch, and the claim under which it is being worked on.

    ``lease`` is the claim: a worker may write to the row only as long as it
    finds its own lease there. ``attempt`` counts claims; ``strikes`` counts
    those that ended through trouble of ours, and only they are limited.
    """

    batch = models.ForeignKey(Batch, on_delete=models.CASCADE, related_name="tasks")
    name = models.CharField("task id", max_length=255)
    position = models.PositiveIntegerField()
    spec = models.JSONField()
    status = models.CharField(max_length=16, choices=TaskStatus.choices, default=TaskStatus.QUEUED)
    passed = models.BooleanField(null=True, blank=True)
    reward = models.FloatField(default=0.0)
    fault = models.CharField(max_length=16, choices=Fault.choices, default=Fault.NONE, blank=True)
    error = models.TextField(blank=True)
    reason = models.TextField(blank=True, help_text="The verdict in a sentence.")
    test_output = models.TextField(blank=True)
    base_commit = models.CharField(max_length=64, blank=True, help_text="The commit judged.")
    attempt = models.PositiveSmallIntegerField(default=0)
    strikes = models.PositiveSmallIntegerField(default=0)
    not_before = models.DateTimeField(null=True, blank=True)
    lease = models.UUIDField(null=True, blank=True)
    lease_expires_at = models.DateTimeField(null=True, blank=True)
    worker = models.ForeignKey(
        "Worker", null=True, blank=True, on_delete=models.SET_NULL, related_name="tasks"
    )
    worker_pid = models.PositiveIntegerField(null=True, blank=True)
    worker_birth = models.BigIntegerField(
        null=True, blank=True, help_text="When that process began, in clock ticks since boot."
    )
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = TaskQuerySet.as_manager()

    class Meta:
        ordering = ["batch", "position"]
        constraints = [
            models.UniqueConstraint(fields=["batch", "name"], name="task_name_in_batch"),
            models.CheckConstraint(
                condition=~Q(status=TaskStatus.COMPLETED) | Q(passed=True),
                name="completed_means_passed",
            ),
            models.CheckConstraint(
                condition=(
                    Q(status__in=sorted(IN_HAND), lease__isnull=False)
                    | (~Q(status__in=sorted(IN_HAND)) & Q(lease__isnull=True))
                ),
                name="lease_while_in_hand",
            ),
        ]
        indexes = [
            models.Index(fields=["batch", "status", "position"], name="task_next"),
            models.Index(
                fields=["lease_expires_at"],
                condition=Q(lease__isnull=False),
                name="task_lease",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def task_spec(self) -> TaskSpec:
        return TaskSpec.from_json(self.spec)

    @property
    def duration_ms(self) -> int | None:
        """Milliseconds from the first claim to the verdict; ``None`` until then."""
        return milliseconds(self.started_at, self.finished_at)


class Run(models.Model):
    """One command of one phase of one attempt, and what became of it."""

    task = models.ForeignKey(Task, on_delete=models.CASCADE, related_name="runs")
    attempt = models.PositiveSmallIntegerField()
    phase = models.CharField(max_length=16, choices=Phase.choices)
    name = models.CharField(max_length=255)
    command = models.TextField()
    exit_code = models.IntegerField(null=True, blank=True)
    reason = models.CharField(max_length=16)
    wall_seconds = models.FloatField()
    cpu_seconds = models.FloatField()
    peak_memory_bytes = models.PositiveBigIntegerField()
    output_head = models.TextField(blank=True)
    output_tail = models.TextField(blank=True)
    output_bytes = models.PositiveBigIntegerField(help_text="All that was printed.")
    truncated = models.BooleanField(help_text="Between head and tail something is missing.")
    ended_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["task", "attempt", "id"]

    def __str__(self) -> str:
        return f"{self.phase}: {self.name}"

    @property
    def ok(self) -> bool:
        return self.reason == "exited" and self.exit_code == 0

    @property
    def output(self) -> str:
        """Head and tail, with a line that says how much is missing between them."""
        if not self.truncated:
            return self.output_head + self.output_tail
        kept = len(self.output_head.encode()) + len(self.output_tail.encode())
        cut = max(self.output_bytes - kept, 1)
        return f"{self.output_head}\n[... {cut} bytes cut ...]\n{self.output_tail}"


class TaskPatch(models.Model):
    """What the agent changed in one attempt at a task. It can hold what the agent brought: for staff."""

    task = models.ForeignKey(Task, on_delete=models.CASCADE, related_name="patches")
    attempt = models.PositiveSmallIntegerField()
    diff = models.BinaryField()
    notes = models.JSONField(
        default=list, help_text="What could not be carried over, in sentences."
    )

    class Meta:
        verbose_name_plural = "task patches"
        ordering = ["task", "attempt"]
        constraints = [
            models.UniqueConstraint(fields=["task", "attempt"], name="patch_of_attempt"),
        ]

    def __str__(self) -> str:
        return f"{self.task_id} attempt {self.attempt}"


class Event(models.Model):
    """Something that watchers of a batch are told. Numbered per batch: 1, 2, 3 … without a gap."""

    batch = models.ForeignKey(Batch, on_delete=models.CASCADE, related_name="events")
    seq = models.PositiveIntegerField()
    event = models.CharField(max_length=32)
    task_name = models.CharField("task id", max_length=255, blank=True)
    data = models.JSONField(default=dict)
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["batch", "seq"]
        constraints = [models.UniqueConstraint(fields=["batch", "seq"], name="event_seq_in_batch")]

    def __str__(self) -> str:
        return f"{self.seq} {self.event}"


class Worker(models.Model):
    """One ``manage.py worker`` somewhere: the supervisor of a queue cluster on one host."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    host = models.CharField(max_length=255)
    boot = models.CharField(
        max_length=64, help_text="The host's boot id: pids mean nothing beyond it."
    )
    pid = models.PositiveIntegerField()
    lanes = models.PositiveIntegerField()
    draining = models.BooleanField(default=False, help_text="It takes no further tasks.")
    started_at = models.DateTimeField(default=timezone.now)
    heartbeat_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["-heartbeat_at"]

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}"


def milliseconds(start: datetime | None, end: datetime | None) -> int | None:
    """Whole milliseconds between two times, or ``None`` when one of them is missing."""
    if start is None or end is None:
        return None
    return max(round((end - start).total_seconds() * 1000), 0)
