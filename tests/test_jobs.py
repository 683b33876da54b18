"""What becomes of a task whose run was ended by our own trouble."""

import pytest

from batches import jobs, transitions
from batches.faults import InfraFault
from batches.models import Task
from tests.factories import claimed, make_batch

pytestmark = pytest.mark.django_db(transaction=True)


def row(task: Task) -> tuple[str, int, str]:
    found = Task.objects.get(pk=task.pk)
    return found.status, found.strikes, found.reason


def test_task_goes_back_to_the_queue_with_the_reason() -> None:
    task = claimed(make_batch("a").tasks.get())

    jobs.put_back(task, InfraFault("no route to the host"))

    assert row(task) == ("queued", 1, "no route to the host")


def test_trouble_that_we_did_not_foresee_is_told_by_its_name_alone() -> None:
    task = claimed(make_batch("a").tasks.get())

    jobs.put_back(task, KeyError("/home/server/secret"))

    assert row(task) == ("queued", 1, "internal error (KeyError)")


def test_task_that_is_judged_stays_so_when_clearing_up_fails() -> None:
    task = claimed(make_batch("a").tasks.get())
    for status in ("running_agent", "running_tests"):
        transitions.advance(task, status)
    transitions.judge(task, passed=True, reward=1.0, reason="the test passed", test_output="")

    jobs.put_back(task, FileNotFoundError("removed by the janitor meanwhile"))

    assert row(task) == ("completed", 0, "the test passed")


def test_task_that_another_lane_holds_is_left_to_it() -> None:
    sleeper = claimed(make_batch("a").tasks.get())
    transitions.requeue(Task.objects.get(), strike=False)
    claimed(Task.objects.get())

    jobs.put_back(sleeper, InfraFault("too late"))

    assert row(sleeper) == ("cloning_repo", 0, "")
