"""The unpacked archives of batches: made when they are needed, whole, and removed in the end."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from django.db import connections
from pytest_django import Settings

from batches import janitor, workspaces
from batches.archive.specs import BadArchive
from batches.models import Batch
from batches.statuses import BatchStatus
from batches.transitions import StaleStatus
from tests.factories import make_batch
from tests.test_submissions import accept, own_disk, upload
from tests.whole.archives import IDLE, pack, task

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def disk(settings: Settings, tmp_path: Path) -> Path:
    return own_disk(settings, tmp_path / "disk")


@pytest.fixture
def batch(disk: Path) -> Batch:
    return accept(upload(disk, pack({"a": task("owner/name", IDLE)})))


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_archive_that_is_here_is_taken_as_it_is(batch: Batch, disk: Path) -> None:
    shutil.rmtree(disk / "archives")

    found = workspaces.unpacked(batch, threading.Event())

    assert found == disk / "workspaces" / str(batch.pk) / "archive"


def test_archive_that_is_not_here_is_fetched_from_storage(batch: Batch, disk: Path) -> None:
    before = files(workspaces.for_batch(batch) / "archive")
    workspaces.remove(batch)

    found = workspaces.unpacked(Batch.objects.get(), threading.Event())

    assert files(found) == before
    assert sorted(path.name for path in found.parent.iterdir()) == ["archive", "archive.lock"]


def test_many_lanes_unpack_once_and_all_see_it_whole(batch: Batch) -> None:
    before = files(workspaces.for_batch(batch) / "archive")
    workspaces.remove(batch)

    def look(_: int) -> tuple[dict[str, bytes], int]:
        try:
            found = workspaces.unpacked(Batch.objects.get(), threading.Event())
            return files(found), found.stat().st_ino
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(look, range(8)))

    assert [content for content, _ in seen] == [before] * 8
    assert len({inode for _, inode in seen}) == 1


def test_what_a_killed_process_had_begun_to_unpack_is_made_anew(batch: Batch) -> None:
    folder = workspaces.for_batch(batch)
    before = files(folder / "archive")
    (folder / "archive").rename(folder / "archive.unpacking")
    (folder / "archive.unpacking" / "half").write_text("written")

    found = workspaces.unpacked(batch, threading.Event())

    assert files(found) == before
    assert not (folder / "archive.unpacking").exists()


def test_wait_for_another_lane_ends_with_the_lease(batch: Batch) -> None:
    workspaces.remove(batch)
    folder = workspaces.for_batch(batch)
    folder.mkdir()
    cancel = threading.Event()
    cancel.set()
    with (folder / "archive.lock").open("a") as lock:
        assert workspaces._try_lock(lock.fileno())

        with pytest.raises(StaleStatus, match="called off while its archive was unpacked"):
            workspaces.unpacked(batch, cancel)


def test_limits_are_those_of_the_settings(disk: Path, settings: Settings) -> None:
    settings.MAX_ARCHIVE_FILES = 3
    batch = make_batch()

    with pytest.raises(BadArchive, match="files"):
        workspaces.unpack(batch, upload(disk, pack({"a": task("owner/name", IDLE)})))

    assert files(disk / "workspaces") == {}


def test_base_is_made_for_everybody_to_add_to(settings: Settings, tmp_path: Path) -> None:
    settings.WORKSPACE_BASE = tmp_path / "some" / "where"

    assert workspaces.ensure_base() == tmp_path / "some" / "where"
    assert workspaces.ensure_base().stat().st_mode & 0o7777 == 0o1777


def test_folders_of_one_attempt_are_its_own() -> None:
    task_row = make_batch().tasks.get()
    first = workspaces.for_attempt(task_row)
    task_row.attempt += 1

    assert first != workspaces.for_attempt(task_row)
    assert first.parent == workspaces.for_batch(task_row.batch)


def test_workspaces_of_ended_batches_are_removed_and_nobody_elses(
    batch: Batch, disk: Path, tmp_path: Path
) -> None:
    ended = make_batch(status=BatchStatus.COMPLETED)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").touch()
    base = disk / "workspaces"
    for name in (str(ended.pk), "somebody", "11111111-1111-1111-1111-111111111111"):
        (base / name / "deep").mkdir(parents=True)
    (base / str(ended.pk) / "link").symlink_to(outside)
    linked = make_batch(status=BatchStatus.FAILED)
    (base / str(linked.pk)).symlink_to(outside)

    janitor.tidy()

    assert {path.name for path in base.iterdir()} == {
        *("somebody", "11111111-1111-1111-1111-111111111111"),
        *(str(batch.pk), str(linked.pk)),
    }
    assert (outside / "file").exists()
