"""From an uploaded archive to a batch that runs: admission, and its undoing."""

import os
import uuid
from datetime import timedelta
from pathlib import Path
from typing import IO

from django.conf import settings
from django.core.files import File
from django.db import IntegrityError, transaction
from django.db.models.functions import Now
from django.utils import timezone

from batches import queue, repositories, transitions, workspaces
from batches.archive.specs import BadArchive, Problem, Submission
from batches.leases import Held
from batches.models import Batch, Task
from batches.statuses import BatchStatus


class Busy(Exception):
    """Another batch is pending, extracting or running."""


class Interrupted(Exception):
    """This server was taken for dead while it unpacked; the batch is gone."""


def is_busy() -> bool:
    """Whether a submission would be refused now. Only ``accept`` decides."""
    return Batch.objects.active().exists()


def accept(archive: Path, sha256: str, hotkey: str, concurrent_tasks: int) -> Batch:
    """Make a batch of the uploaded file ``archive`` and set it going.

    The batch takes its place before anything is unpacked, so of many that
    arrive at once exactly one goes on; the others get ``Busy``. When the archive
    is refused (``BadArchive``) or anything else goes wrong, nothing stays behind.
    The file ``archive`` is moved away on success.
    """
    batch = reserve(hotkey, concurrent_tasks, sha256, archive.stat().st_size)
    try:
        with Held(lambda: renew(batch)) as held:
            submission = workspaces.unpack(batch, archive)
            check_repositories(submission)
            store(batch, archive)
            if held.lost.is_set():
                raise Interrupted
            fill(batch, submission)
    except transitions.StaleStatus:
        forget(batch)
        raise Interrupted from None
    except BaseException:
        forget(batch)
        raise
    return batch


def reserve(hotkey: str, concurrent_tasks: int, sha256: str, size: int) -> Batch:
    """Take the one place for a batch in progress; the database decides who gets it."""
    try:
        with transaction.atomic():
            batch = Batch.objects.create(
                status=BatchStatus.EXTRACTING,
                hotkey=hotkey,
                concurrent_tasks=concurrent_tasks,
                archive_sha256=sha256,
                archive_bytes=size,
            )
            renew(batch)
    except IntegrityError:
        raise Busy from None
    return batch


def renew(batch: Batch) -> bool:
    """Tell the sweepers that the archive is still being unpacked."""
    found = Batch.objects.filter(pk=batch.pk, status=BatchStatus.EXTRACTING)
    return found.update(lease_expires_at=Now() + timedelta(seconds=settings.LEASE_SECS)) == 1


def check_repositories(submission: Submission) -> None:
    """Refuse addresses and revisions that would not be fetched anyway."""
    problems = []
    for task in submission.tasks:
        file = f"{task.folder}/workspace.yaml"
        try:
            repositories.address(task.repo, allow_local=settings.ALLOW_LOCAL_REPOS)
        except repositories.BadRepository as error:
            problems.append(Problem(file, f"repo {error}"))
        try:
            if task.base_commit is not None:
                repositories.revision(task.base_commit)
        except repositories.BadRepository as error:
            problems.append(Problem(file, f"base_commit {error}"))
    if problems:
        raise BadArchive(problems)


def store(batch: Batch, archive: Path) -> None:
    """Move the uploaded file into the archive storage; on the same disk that is a rename."""
    with archive.open("rb") as file:
        stored = MovableFile(file, archive)
        batch.archive.save(f"{batch.pk}.archive", stored, save=False)
    Batch.objects.filter(pk=batch.pk).update(archive=batch.archive.name)


class MovableFile(File):  # type: ignore[type-arg]  # generic for the type checker only
    """An open file that a storage on this disk may rename instead of copying."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        super().__init__(file, name=path.name)
        self._path = path

    def temporary_file_path(self) -> str:
        return os.fspath(self._path)


def fill(batch: Batch, submission: Submission) -> None:
    """Write the tasks and open the batch, in one transaction; lanes are asked for once it holds."""
    with transaction.atomic():
        transitions.open_batch(batch)
        Task.objects.bulk_create(
            [
                Task(batch=batch, name=spec.name, position=position, spec=spec.as_json())
                for position, spec in enumerate(submission.tasks)
            ],
            batch_size=500,
        )
        batch.total_tasks = len(submission.tasks)
        batch.agent = submission.agent.as_json()
        batch.lanes_asked_at = timezone.now()
        batch.save(update_fields=["total_tasks", "agent", "lanes_asked_at"])
        wanted = min(batch.total_tasks, batch.concurrent_tasks)
        transaction.on_commit(lambda: queue.ask_lanes(batch, wanted))


def forget(batch: Batch) -> None:
    """Remove a batch with everything that it has on this host's disk and in the storage.

    The row goes even where the disk fails: its place must not stay taken.
    """
    batch_id: uuid.UUID = batch.pk
    name = Batch.objects.filter(pk=batch_id).values_list("archive", flat=True).first()
    try:
        workspaces.remove(batch)
        Batch._meta.get_field("archive").storage.delete(name or f"{batch_id}.archive")
    finally:
        Batch.objects.filter(pk=batch_id).delete()
