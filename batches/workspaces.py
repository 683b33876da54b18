"""Where batches lie on this host's disk while they are worked on.

``WORKSPACE_BASE/<batch>/archive`` is the unpacked archive and
``WORKSPACE_BASE/<batch>/<task>-<attempt>`` belongs to one attempt's keeper.
All of it can be made again from the stored archive, on any host.
"""

import fcntl
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from django.conf import settings

from batches.archive.reader import read_archive
from batches.archive.specs import Limits, Submission
from batches.models import Batch, Task
from batches.sandbox import trees
from batches.transitions import StaleStatus


def limits() -> Limits:
    """What an archive may ask of the disk, by the settings."""
    return Limits(
        max_files=settings.MAX_ARCHIVE_FILES,
        max_unpacked_bytes=settings.MAX_UNPACKED_BYTES,
        max_ratio=settings.MAX_ARCHIVE_RATIO,
    )


def ensure_base() -> Path:
    """The folder of all workspaces. Shared as /tmp is: everybody may add, nobody may remove others'."""
    base = settings.WORKSPACE_BASE
    if not base.exists():
        base.mkdir(parents=True, exist_ok=True)
        base.chmod(0o1777)
    return Path(base)


def for_batch(batch: Batch) -> Path:
    """The batch's own folder; not made yet."""
    return ensure_base() / str(batch.pk)


def for_attempt(task: Task) -> Path:
    """The folder for the layers of one attempt at a task; not made yet."""
    return ensure_base() / str(task.batch_id) / f"{task.pk}-{task.attempt}"


def unpack(batch: Batch, archive: Path) -> Submission:
    """Unpack ``archive`` into the batch's folder and read it; raises ``BadArchive``.

    The folder ``archive`` appears complete or not at all.
    """
    folder = for_batch(batch)
    folder.mkdir(mode=0o711, exist_ok=True)
    draft = folder / "archive.unpacking"
    if draft.exists():
        trees.remove(draft)
    submission = read_archive(archive, draft, limits())
    draft.rename(folder / "archive")
    return submission


def unpacked(batch: Batch, cancel: threading.Event) -> Path:
    """The batch's unpacked archive on this host, fetched from storage when it is not here yet."""
    folder = for_batch(batch)
    ready = folder / "archive"
    if ready.is_dir():
        return ready
    folder.mkdir(mode=0o711, exist_ok=True)
    with (folder / "archive.lock").open("a") as lock:
        while not _try_lock(lock.fileno()):
            if cancel.is_set():
                raise StaleStatus(f"batch {batch.pk}: called off while its archive was unpacked")
            time.sleep(0.1)
        if not ready.is_dir():
            with tempfile.NamedTemporaryFile(dir=folder) as copy, batch.archive.open() as stored:
                shutil.copyfileobj(stored, copy, 1024 * 1024)
                copy.flush()
                unpack(batch, Path(copy.name))
    return ready


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def remove(batch: Batch) -> None:
    """Remove everything that the batch has in this host's workspaces."""
    folder = for_batch(batch)
    if folder.exists():
        trees.remove(folder)


def leftovers(known: Callable[[list[str]], set[str]]) -> list[Path]:
    """Folders of batches that nobody needs any more; ``known`` picks ids from the folders' names."""
    base = ensure_base()
    names = [entry.name for entry in base.iterdir() if entry.is_dir() and not entry.is_symlink()]
    return [base / name for name in sorted(known(names))]
