"""The record of a task's commands: one ``Run`` for each, written under the task's lease."""

import shlex
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from django.db import transaction

from batches.models import Run, Task, TaskPatch
from batches.sandbox.promise import Finished, Patch
from batches.statuses import Phase
from batches.transitions import StaleStatus


class Journal:
    """Writes down what is run for one attempt at ``task``.

    Everything in it refuses to go on once the lease is lost: ``cancel`` is the
    event that says so, and is what commands in the sandbox are ended by.
    """

    def __init__(self, task: Task, cancel: threading.Event) -> None:
        self.task = task
        self.cancel = cancel

    def check(self) -> None:
        """Raise ``StaleStatus`` when this attempt is no longer ours."""
        if self.cancel.is_set():
            raise StaleStatus(f"the lease of task {self.task.name} is lost")

    def record(
        self, phase: Phase, name: str, command: str | Sequence[str], finished: Finished
    ) -> Run:
        """Store what became of a command; raises ``StaleStatus`` when the lease is gone."""
        with self.held():
            return Run.objects.create(
                task=self.task,
                attempt=self.task.attempt,
                phase=phase,
                name=name[:255],
                command=command if isinstance(command, str) else shlex.join(command),
                exit_code=finished.exit_code,
                reason=finished.reason,
                wall_seconds=finished.wall_seconds,
                cpu_seconds=finished.cpu_seconds,
                peak_memory_bytes=finished.peak_memory_bytes,
                output_head=printable(finished.head),
                output_tail=printable(finished.tail),
                output_bytes=finished.output_bytes,
                truncated=finished.truncated,
            )

    def keep_patch(self, patch: Patch) -> None:
        """Store what the agent changed; raises ``StaleStatus`` when the lease is gone."""
        with self.held():
            TaskPatch.objects.create(
                task=self.task,
                attempt=self.task.attempt,
                diff=patch.diff,
                notes=list(patch.notes),
            )

    @contextmanager
    def held(self) -> Iterator[None]:
        """A transaction in which the lease is ours, to its end."""
        self.check()
        with transaction.atomic():
            held = Task.objects.select_for_update().filter(pk=self.task.pk, lease=self.task.lease)
            if not held.exists():
                raise StaleStatus(f"the lease of task {self.task.name} is lost")
            yield


def printable(output: bytes) -> str:
    """Output as text that every database stores: odd bytes replaced, NULs shown as a symbol."""
    return output.decode("utf-8", errors="replace").replace("\0", "\N{SYMBOL FOR NULL}")
