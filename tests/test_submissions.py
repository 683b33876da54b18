"""Admission: one archive at a time becomes a batch, and a refused one leaves nothing behind."""

import hashlib
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.core.files.storage import default_storage
from django.db import connections
from django_q.models import OrmQ
from pytest_django import Settings

from batches import queue, submissions, sweeper, workspaces
from batches.archive.specs import BadArchive
from batches.models import Batch, Task
from batches.statuses import BatchStatus
from batches.submissions import Busy, Interrupted
from tests.factories import HOTKEY, make_batch
from tests.whole.archives import IDLE, SOLVE, pack, task

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def disk(settings: Settings, tmp_path: Path) -> Path:
    return own_disk(settings, tmp_path / "disk")


def own_disk(settings: Settings, folder: Path) -> Path:
    """Folders of the test's own for everything that the server stores."""
    for name in ("workspaces", "archives", "incoming", "mirrors"):
        (folder / name).mkdir(parents=True)
    settings.WORKSPACE_BASE = folder / "workspaces"
    settings.MIRRORS_DIR = folder / "mirrors"
    default = {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": folder / "archives"},
    }
    settings.STORAGES = {**settings.STORAGES, "default": default}
    return folder


GOOD = {"b": task("owner/name", SOLVE, base_commit="main"), "a": task("owner/name", IDLE)}


def upload(disk: Path, content: bytes, name: str = "upload") -> Path:
    path = disk / "incoming" / name
    path.write_bytes(content)
    return path


def accept(archive: Path, concurrent_tasks: int = 2) -> Batch:
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    return submissions.accept(archive, sha256, HOTKEY, concurrent_tasks)


def everything(disk: Path) -> tuple[dict[str, bytes | None], dict[str, list[Any]]]:
    """All files and folders on the disk, and all rows of the database."""
    files = {
        str(path.relative_to(disk)): path.read_bytes() if path.is_file() else None
        for path in disk.rglob("*")
    }
    rows = {
        model.__name__: list(model._default_manager.order_by("pk").values())
        for label in ("batches", "django_q")
        for model in apps.get_app_config(label).get_models()
    }
    return files, rows


def test_good_archive_becomes_a_batch_that_asks_for_lanes(disk: Path) -> None:
    content = pack(GOOD)
    archive = upload(disk, content)

    batch = accept(archive, concurrent_tasks=3)

    stored = Batch.objects.get()
    assert stored == batch
    assert (stored.status, stored.hotkey, stored.total_tasks) == (BatchStatus.PENDING, HOTKEY, 2)
    assert (stored.archive_sha256, stored.archive_bytes, stored.lease_expires_at) == (
        hashlib.sha256(content).hexdigest(),
        len(content),
        None,
    )
    tasks = Task.objects.values_list("position", "name", "status", "spec__base_commit")
    assert list(tasks) == [(0, "a", "queued", None), (1, "b", "queued", "main")]
    assert (disk / "archives" / stored.archive.name).read_bytes() == content
    assert not archive.exists()
    assert sorted(path.name for path in (disk / "archives").iterdir()) == [f"{batch.pk}.archive"]
    unpacked = workspaces.for_batch(batch) / "archive"
    assert sorted(path.name for path in unpacked.iterdir()) == ["agent_code", "tasks"]
    assert OrmQ.objects.count() == queue.waiting() == 2


Trouble = Callable[[Path, pytest.MonkeyPatch], None]


def no_trouble(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pass


def busy(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accept(upload(disk, pack(GOOD), "earlier"))


def file_for_archives(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (disk / "archives").rmdir()
    (disk / "archives").touch()


def file_for_workspaces(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (disk / "workspaces").rmdir()
    (disk / "workspaces").touch()


def taken_for_dead(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it stores the archive, a sweeper removes the batch, and the lease notices."""
    store = submissions.store

    def store_late(batch: Batch, archive: Path) -> None:
        store(batch, archive)
        submissions.forget(batch)
        held.lost.wait(30)

    class Remembered(submissions.Held):
        def __enter__(self) -> "Remembered":
            nonlocal held
            held = self
            super().__enter__()
            return self

    held: submissions.Held
    monkeypatch.setattr(submissions, "Held", Remembered)
    monkeypatch.setattr(submissions, "store", store_late)


def taken_for_dead_at_the_last_moment(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweeper removes the batch when it was looked at for the last time."""
    fill = submissions.fill

    def fill_late(*arguments: Any) -> None:
        submissions.forget(arguments[0])
        fill(*arguments)

    monkeypatch.setattr(submissions, "fill", fill_late)


def stopped(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is ended, as by a signal, while it unpacks."""

    def stop(*_: object) -> None:
        raise SystemExit

    monkeypatch.setattr(submissions, "check_repositories", stop)


EXT = pack({"a": task("ext::sh -c id", SOLVE)})
NO_TESTS = pack({"a": {"workspace.yaml": "repo: o/n\nversion: 1\n", "prompt.md": "x"}})


@pytest.mark.parametrize(
    ("content", "trouble", "raised"),
    [
        pytest.param(b"no archive", no_trouble, BadArchive, id="no archive"),
        pytest.param(pack(GOOD)[:-200], no_trouble, BadArchive, id="cut short"),
        pytest.param(NO_TESTS, no_trouble, BadArchive, id="task without tests"),
        pytest.param(EXT, no_trouble, BadArchive, id="address that runs programs"),
        pytest.param(pack(GOOD), busy, Busy, id="busy"),
        pytest.param(pack(GOOD), file_for_archives, OSError, id="nowhere to store"),
        pytest.param(pack(GOOD), file_for_workspaces, OSError, id="nowhere to unpack"),
        pytest.param(pack(GOOD), taken_for_dead, Interrupted, id="taken for dead"),
        pytest.param(
            pack(GOOD), taken_for_dead_at_the_last_moment, Interrupted, id="dead at the last moment"
        ),
        pytest.param(pack(GOOD), stopped, SystemExit, id="stopped"),
    ],
)
def test_refused_archive_leaves_nothing_behind(
    disk: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes,
    trouble: Trouble,
    raised: type[BaseException],
) -> None:
    trouble(disk, monkeypatch)
    archive = upload(disk, content)
    files, rows = everything(disk)
    del files["incoming/upload"]  # the request's, which removes it if it is still there

    with pytest.raises(raised):
        accept(archive)

    archive.unlink(missing_ok=True)
    assert everything(disk) == (files, rows)


def test_every_task_that_cannot_be_fetched_is_named(disk: Path, settings: Settings) -> None:
    settings.ALLOW_LOCAL_REPOS = False
    archive = upload(
        disk,
        pack(
            {
                "a": task("/srv/git/x", IDLE),
                "b": task("owner/name", IDLE),
                "c": task("https://me:secret@example.org/x", IDLE, base_commit="main~1"),
                "d": task("https://[::1/x", IDLE),
            }
        ),
    )

    with pytest.raises(BadArchive) as refusal:
        accept(archive)

    assert [(problem.file, problem.message) for problem in refusal.value.problems] == [
        (
            "tasks/a/workspace.yaml",
            "repo is a local path; the server accepts those with ALLOW_LOCAL_REPOS=1",
        ),
        ("tasks/c/workspace.yaml", "repo must not contain a user name or password"),
        ("tasks/c/workspace.yaml", "base_commit is not the name of a commit, branch or tag"),
        ("tasks/d/workspace.yaml", "repo is not a repository address"),
    ]


def test_of_thirty_at_once_one_is_accepted(disk: Path) -> None:
    content = pack(GOOD)
    start = threading.Barrier(30)

    def submit(number: int) -> Batch | None:
        archive = upload(disk, content, f"upload{number}")
        start.wait()
        try:
            return accept(archive)
        except Busy:
            return None
        finally:
            connections.close_all()

    with ThreadPoolExecutor(30) as pool:
        accepted = [batch for batch in pool.map(submit, range(30)) if batch is not None]

    assert accepted == [Batch.objects.get()]
    assert Task.objects.count() == OrmQ.objects.count() == 2
    assert len(list((disk / "incoming").iterdir())) == 29
    assert [path.name for path in (disk / "workspaces").iterdir()] == [str(accepted[0].pk)]


def test_place_of_a_batch_is_free_again_once_it_has_ended(disk: Path) -> None:
    first = accept(upload(disk, pack(GOOD)))
    assert submissions.is_busy()
    Batch.objects.update(status=BatchStatus.FAILED)

    assert not submissions.is_busy()
    assert accept(upload(disk, pack(GOOD))) != first


def test_place_is_given_back_even_where_the_disk_cannot_be_tidied(disk: Path) -> None:
    batch = make_batch(status=BatchStatus.EXTRACTING)
    shutil.rmtree(disk / "archives")
    (disk / "archives").touch()

    with pytest.raises(NotADirectoryError):
        submissions.forget(batch)

    assert not submissions.is_busy()


def test_forgotten_batch_takes_everything_with_it(disk: Path) -> None:
    before = everything(disk)
    batch = accept(upload(disk, pack(GOOD)))
    OrmQ.objects.all().delete()

    submissions.forget(batch)
    submissions.forget(batch)

    assert everything(disk) == before
    assert not default_storage.exists(f"{batch.pk}.archive")


def test_sweeper_leaves_an_upload_alone_whose_lease_is_renewed(disk: Path) -> None:
    batch = submissions.reserve(HOTKEY, 1, "", 0)

    sweeper.forget_unfinished_uploads()

    assert submissions.renew(batch) is True
    Batch.objects.update(status=BatchStatus.PENDING)
    assert submissions.renew(batch) is False
