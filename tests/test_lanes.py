"""Claims, leases and the sweeper: who runs a task, and what happens when its worker is gone."""

import os
import socket
import subprocess
import threading
import uuid
from datetime import timedelta

import pytest
from django.db import connections
from django.utils import timezone
from django_q.models import OrmQ
from pytest_django import Settings

from batches import lanes, queue, sweeper, transitions
from batches.leases import Held
from batches.models import Batch, Task, Worker
from batches.processes import ProcessId, boot_id
from batches.statuses import BatchStatus, TaskStatus
from tests.factories import claimed, make_batch

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def worker() -> Worker:
    return Worker.objects.create(
        host=socket.gethostname(), boot=boot_id(), pid=os.getpid(), lanes=4
    )


def test_claims_go_in_the_order_of_the_archive() -> None:
    batch = make_batch("c", "a", "b")

    names = [lanes.claim(batch.pk).name for _ in range(3)]

    assert names == ["c", "a", "b"]
    assert lanes.claim(batch.pk) is None


def test_lanes_that_come_twice_do_not_exceed_what_may_run_at_once() -> None:
    batch = make_batch("a", "b", "c", concurrent_tasks=2)

    claims = [lanes.claim(batch.pk) for _ in range(5)]

    assert [task is not None for task in claims] == [True, True, False, False, False]


def test_forty_threads_claim_each_task_once_and_never_too_many() -> None:
    names = [f"t{number}" for number in range(10)]
    batch = make_batch(*names, concurrent_tasks=3)
    got: list[str] = []

    def work() -> None:
        try:
            task = lanes.claim(batch.pk)
            if task is not None:
                got.append(task.name)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(got) == ["t0", "t1", "t2"]
    assert batch.tasks.in_hand().count() == 3


def test_lane_of_a_batch_that_is_gone_finds_nothing() -> None:
    assert lanes.claim(uuid.uuid4()) is None


def test_lane_of_a_batch_that_has_ended_finds_nothing() -> None:
    batch = make_batch("a")
    transitions.stop_batch(batch, "cancelled")

    assert lanes.claim(batch.pk) is None


def test_draining_worker_claims_nothing(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = make_batch("a")
    monkeypatch.setenv(lanes.WORKER_VARIABLE, str(worker.pk))
    Worker.objects.update(draining=True)

    assert lanes.claim(batch.pk) is None


def test_task_is_not_claimed_before_its_pause_is_over() -> None:
    batch = make_batch("a")
    later = timezone.now() + timedelta(seconds=60)
    transitions.requeue(claimed(batch.tasks.get()), strike=True, not_before=later)
    assert lanes.claim(batch.pk) is None

    Task.objects.update(not_before=timezone.now())

    assert lanes.claim(batch.pk) is not None


def test_task_of_trouble_is_tried_three_times_and_then_fails_as_infra() -> None:
    batch = make_batch("a")

    for _ in range(2):
        lanes.give_back(claimed(batch.tasks.get()), "the disk is full")
        assert batch.tasks.get().status == TaskStatus.QUEUED
    lanes.give_back(claimed(batch.tasks.get()), "the disk is full")

    task = batch.tasks.get()
    assert (task.status, task.passed, task.reward, task.fault) == ("failed", None, 0.0, "infra")
    assert task.error == "could not be judged: the disk is full (3 attempts)"


def test_tasks_handed_back_at_shutdown_lose_no_attempt(worker: Worker) -> None:
    batch = make_batch("a", "b")
    for task in batch.tasks.all():
        claimed(task)
    batch.tasks.filter(name="a").update(worker=worker)

    assert lanes.hand_back(worker) == 1

    rows = batch.tasks.order_by("name").values_list("status", "strikes")
    assert list(rows) == [("queued", 0), ("cloning_repo", 0)]


def test_sweeper_returns_a_task_whose_lease_ran_out(worker: Worker) -> None:
    batch = make_batch("expired", "held")
    expired, held = batch.tasks.all()
    claimed(expired, lease_seconds=-1)
    claimed(held)

    sweeper.sweep(worker)

    rows = batch.tasks.order_by("position").values_list("status", "strikes")
    assert list(rows) == [("queued", 1), ("cloning_repo", 0)]


def test_sweeper_returns_a_task_of_a_dead_process_before_its_lease_runs_out(
    worker: Worker,
) -> None:
    batch = make_batch("a", "b")
    with subprocess.Popen(["sleep", "60"]) as process:
        born = ProcessId.of(process.pid)
        assert born is not None
        process.kill()
    for task in batch.tasks.all():
        claimed(task)
    batch.tasks.filter(name="a").update(worker=worker, worker_pid=born.pid, worker_birth=born.birth)
    batch.tasks.filter(name="b").update(worker=worker)

    sweeper.sweep(worker)

    rows = batch.tasks.order_by("name").values_list("status", "strikes")
    assert list(rows) == [("queued", 1), ("cloning_repo", 0)]


def test_sweeper_asks_for_lanes_that_do_not_come_and_asks_once() -> None:
    batch = make_batch("a", "b", "c", concurrent_tasks=2)

    assert sweeper.ask_missing_lanes() is True
    assert OrmQ.objects.count() == 2
    assert sweeper.ask_missing_lanes() is False
    Batch.objects.update(lanes_asked_at=timezone.now() - timedelta(seconds=10))
    assert sweeper.ask_missing_lanes() is True

    assert OrmQ.objects.count() == 2  # asked again in place of those that wait, not on top
    assert queue.waiting() == 2
    assert batch.tasks.queued().count() == 3


def test_sweeper_asks_for_nothing_while_every_place_is_taken() -> None:
    batch = make_batch("a", "b", concurrent_tasks=1)
    claimed(batch.tasks.first())

    assert sweeper.ask_missing_lanes() is False


def test_batch_that_outstays_its_time_is_ended(worker: Worker, settings: Settings) -> None:
    batch = make_batch("a", "b")
    claimed(batch.tasks.first())
    Batch.objects.update(
        created_at=timezone.now() - timedelta(seconds=settings.SESSION_TTL_SECS + 1)
    )

    sweeper.sweep(worker)

    batch.refresh_from_db()
    assert (batch.status, batch.error) == (BatchStatus.FAILED, "expired")
    assert set(batch.tasks.values_list("status", "error")) == {("failed", "expired")}


def test_upload_of_a_dead_server_gives_its_place_back(worker: Worker) -> None:
    past = timezone.now() - timedelta(seconds=1)
    make_batch(status=BatchStatus.EXTRACTING, lease_expires_at=past)

    sweeper.sweep(worker)

    assert not Batch.objects.exists()


def test_upload_that_is_still_unpacked_is_left_alone(worker: Worker) -> None:
    later = timezone.now() + timedelta(seconds=5)
    make_batch(status=BatchStatus.EXTRACTING, lease_expires_at=later)

    sweeper.sweep(worker)

    assert Batch.objects.count() == 1


def test_lease_is_renewed_and_its_loss_is_noticed() -> None:
    task = claimed(make_batch("a").tasks.get(), lease_seconds=1.5)
    first = Task.objects.get().lease_expires_at

    with Held(lambda: lanes.renew(task)) as held:
        assert not held.lost.wait(1.5)
        assert Task.objects.get().lease_expires_at > first
        transitions.requeue(Task.objects.get(), strike=False)
        lost = held.lost.wait(3)

    assert lost
    assert Task.objects.get().lease_expires_at is None


def test_identity_of_a_process_ends_with_it() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        born = ProcessId.of(process.pid)
        assert born is not None
        assert born.alive
        process.kill()

    assert not born.alive
    assert not ProcessId(os.getpid(), 0).alive
