"""Status changes: legal moves, lost races, and the events that tell of them."""

import threading

import pytest
from django.db import connections

from batches import transitions
from batches.models import Batch, Event, Task
from batches.processes import ProcessId
from batches.statuses import (
    ENDED_TASK,
    IN_HAND,
    TASK_MOVES,
    BatchStatus,
    Fault,
    TaskStatus,
)
from batches.transitions import StaleStatus
from tests.factories import claimed, make_batch

pytestmark = pytest.mark.django_db(transaction=True)


def told(batch: Batch) -> list[tuple[str, str, str | None]]:
    """What watchers of ``batch`` were told: event, task, status."""
    rows = Event.objects.filter(batch=batch).order_by("seq")
    return [(row.event, row.task_name, row.data.get("status")) for row in rows]


def to_tests(task: Task) -> Task:
    claimed(task)
    for status in (
        TaskStatus.INSTALLING_DEPS,
        TaskStatus.RUNNING_AGENT,
        TaskStatus.RUNNING_TESTS,
    ):
        transitions.advance(task, status)
    return task


def test_whole_life_of_a_batch_is_told_in_order() -> None:
    batch = make_batch("a")

    task = to_tests(batch.tasks.get())
    transitions.judge(task, passed=True, reward=1.0, reason="the test passed", test_output="ok")

    assert told(batch) == [
        ("batch_started", "", None),
        ("task_started", "a", None),
        ("task_status", "a", "cloning_repo"),
        ("task_status", "a", "installing_deps"),
        ("task_status", "a", "running_agent"),
        ("task_status", "a", "running_tests"),
        ("task_complete", "a", "completed"),
        ("batch_complete", "", "completed"),
        ("stream_closed", "", None),
    ]
    assert [event.seq for event in batch.events.order_by("seq")] == list(range(1, 10))


def test_batch_ends_with_its_last_task_and_counts_what_it_was_made_of() -> None:
    batch = make_batch("a", "b", "c", "d")
    a, b, c, d = batch.tasks.all()
    transitions.judge(to_tests(a), passed=True, reward=1.0, reason="", test_output="")
    transitions.judge(to_tests(b), passed=False, reward=0.0, reason="", test_output="")
    transitions.fail(claimed(c), Fault.TASK, "no such commit")

    batch.refresh_from_db()
    assert batch.status == BatchStatus.RUNNING
    transitions.judge(to_tests(d), passed=True, reward=1.0, reason="", test_output="")

    batch.refresh_from_db()
    assert batch.status == BatchStatus.COMPLETED
    data = batch.events.get(event="batch_complete").data
    assert data == {
        "status": "completed",
        "total": 4,
        "passed": 2,
        "failed": 2,
        "reward": 0.5,
        "duration_ms": batch.duration_ms,
    }


def test_numbers_of_a_batch_are_true_before_its_end() -> None:
    batch = make_batch("a", "b", "c", "d")
    a, b, *_ = batch.tasks.all()
    transitions.judge(to_tests(a), passed=True, reward=1.0, reason="", test_output="")
    claimed(b)

    counted = Batch.objects.with_progress().get()

    assert (counted.ended, counted.passed, counted.failed) == (1, 1, 0)
    assert counted.aggregate_reward == 0.25
    assert counted.duration_ms is None


def test_slower_of_two_workers_gets_nowhere() -> None:
    batch = make_batch()
    task = claimed(batch.tasks.get())
    copy = Task.objects.get(pk=task.pk)
    transitions.advance(task, TaskStatus.INSTALLING_DEPS)

    with pytest.raises(StaleStatus):
        transitions.advance(copy, TaskStatus.INSTALLING_DEPS)

    assert [row[2] for row in told(batch)].count("installing_deps") == 1


def test_worker_whose_lease_was_given_to_another_writes_nothing() -> None:
    batch = make_batch()
    sleeper = claimed(batch.tasks.get())
    transitions.requeue(Task.objects.get(pk=sleeper.pk), strike=True)
    heir = claimed(batch.tasks.get())

    with pytest.raises(StaleStatus):
        transitions.advance(sleeper, TaskStatus.INSTALLING_DEPS)
    with pytest.raises(StaleStatus):
        transitions.fail(sleeper, Fault.TASK, "late")

    row = batch.tasks.get()
    assert (row.status, row.lease, row.attempt) == (TaskStatus.CLONING_REPO, heir.lease, 2)


def test_refused_change_leaves_no_event() -> None:
    batch = make_batch()
    task = claimed(batch.tasks.get())
    before = told(batch)
    Task.objects.filter(pk=task.pk).update(lease="00000000-0000-0000-0000-000000000000")

    with pytest.raises(StaleStatus):
        transitions.advance(task, TaskStatus.INSTALLING_DEPS)

    batch.refresh_from_db()
    assert told(batch) == before
    assert batch.last_seq == len(before)


@pytest.mark.parametrize("status", sorted(TaskStatus))
def test_every_status_is_either_an_end_or_leads_to_one(status: TaskStatus) -> None:
    seen, open_ends = {status}, [status]
    while open_ends:
        for following in TASK_MOVES[open_ends.pop()] - seen:
            seen.add(following)
            open_ends.append(following)

    assert seen & ENDED_TASK
    assert (status in ENDED_TASK) == (TASK_MOVES[status] == frozenset())


def test_illegal_move_is_our_own_mistake() -> None:
    task = claimed(make_batch().tasks.get())

    with pytest.raises(ValueError, match="cloning_repo does not lead to completed"):
        transitions.judge(task, passed=True, reward=1.0, reason="", test_output="")


def test_cancelled_batch_fails_what_has_not_ended_and_keeps_what_has() -> None:
    batch = make_batch("done", "running", "queued")
    done, running, _ = batch.tasks.all()
    transitions.judge(to_tests(done), passed=True, reward=1.0, reason="", test_output="")
    claimed(running)

    assert transitions.stop_batch(Batch.objects.get(), "cancelled") is True

    rows = batch.tasks.order_by("position").values_list("status", "passed", "error", "fault")
    assert list(rows) == [
        ("completed", True, "", ""),
        ("failed", None, "cancelled", "cancelled"),
        ("failed", None, "cancelled", "cancelled"),
    ]
    batch.refresh_from_db()
    assert (batch.status, batch.error) == ("failed", "cancelled")
    assert [row[0] for row in told(batch)][-2:] == ["batch_complete", "stream_closed"]
    assert transitions.stop_batch(batch, "again") is False


def test_task_that_is_run_again_is_started_once_for_its_watchers() -> None:
    batch = make_batch()
    transitions.requeue(claimed(batch.tasks.get()), strike=True)

    claimed(batch.tasks.get())

    events = [row[0] for row in told(batch)]
    assert (events.count("batch_started"), events.count("task_started")) == (1, 1)
    assert batch.tasks.get().strikes == 1


def test_leases_stand_exactly_where_tasks_are_in_hand() -> None:
    batch = make_batch("a", "b")
    task = claimed(batch.tasks.first())

    assert {row.status in IN_HAND: row.lease is not None for row in batch.tasks.all()} == {
        True: True,
        False: False,
    }
    assert task.worker_pid == ProcessId.own().pid


def test_events_of_many_threads_are_numbered_without_a_gap() -> None:
    names = [f"t{number}" for number in range(12)]
    batch = make_batch(*names, concurrent_tasks=12)

    def work(task: Task) -> None:
        try:
            transitions.judge(
                to_tests(Task.objects.get(pk=task.pk)),
                passed=True,
                reward=1.0,
                reason="",
                test_output="",
            )
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work, args=(task,)) for task in batch.tasks.all()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    batch.refresh_from_db()
    assert batch.status == BatchStatus.COMPLETED
    seqs = list(batch.events.order_by("id").values_list("seq", flat=True))
    assert seqs == list(range(1, batch.last_seq + 1))
    assert [row[0] for row in told(batch)].count("batch_complete") == 1
