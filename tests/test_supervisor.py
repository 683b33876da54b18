"""Children of a supervisor: started again when they die, and ended with everything they started."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from batches.processes import ProcessId, members
from batches.supervisor import ROOT, Child, end_all

SLEEP = "import time; time.sleep(600)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
WITH_DAEMON = "import subprocess; subprocess.Popen(['sleep', '600']); "


@pytest.fixture
def child() -> Iterator[Callable[[str], Child]]:
    """Makes children that run a Python program; at the end none of them is left."""
    made: list[Child] = []

    def make(program: str) -> Child:
        made.append(Child("the child", ["-c", program], {"GREETING": "hello"}))
        made[-1].start()
        return made[-1]

    yield make
    for one in made:
        one.kill()


def wait_until(look: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not look():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_child_leads_a_session_and_knows_its_supervisor(
    child: Callable[[str], Child], tmp_path: Path
) -> None:
    told = tmp_path / "told"
    program = (
        f"import os; told = open({str(told)!r}, 'w'); "
        "told.write(os.environ['GREETING'] + ' ' + os.environ['TERM_EXECUTOR_PARENT']); told.close()"
    )

    started = child(program)

    assert os.getsid(started.pid) == started.pid
    assert started.wait(30)
    assert told.read_text() == f"hello {os.getpid()}"


def test_child_that_lives_is_left_alone(child: Callable[[str], Child]) -> None:
    started = child(SLEEP)
    before = ProcessId.of(started.pid)

    started.keep_alive()

    assert ProcessId.of(started.pid) == before


def test_child_that_died_is_started_again_and_what_it_left_is_ended(
    child: Callable[[str], Child],
) -> None:
    started = child(WITH_DAEMON + SLEEP)
    wait_until(lambda: len(started.members()) == 2)
    first = started.members()
    os.kill(started.pid, 9)
    wait_until(lambda: not started.running)

    started.keep_alive()

    assert started.running
    wait_until(lambda: not any(process.alive for process in first))


def test_child_that_dies_at_once_is_started_less_and_less_often(
    child: Callable[[str], Child],
) -> None:
    started = child("raise SystemExit(3)")
    deaths = []
    while len(deaths) < 3:
        if not started.running and started.pid:
            deaths.append(time.monotonic())
        started.keep_alive()
        time.sleep(0.01)

    first, second = (later - earlier for earlier, later in zip(deaths, deaths[1:], strict=False))

    assert first < second
    assert second > 0.5


def test_group_has_its_live_members_and_no_others(child: Callable[[str], Child]) -> None:
    started = child(WITH_DAEMON + SLEEP)
    wait_until(lambda: len(started.members()) == 2)

    assert started.members() == members(started.pid)
    assert ProcessId.own() not in started.members()


def test_children_that_end_when_asked_are_given_the_time(
    child: Callable[[str], Child], tmp_path: Path
) -> None:
    done = tmp_path / "done"
    polite = (
        "import signal, sys, time; "
        f"signal.signal(signal.SIGTERM, lambda *_: (open({str(done)!r}, 'w').close(), sys.exit())); "
        f"open({str(tmp_path / 'ready')!r}, 'w').close(); time.sleep(600)"
    )
    started = child(polite)
    wait_until((tmp_path / "ready").exists)

    end_all([started], 30)

    assert done.exists()
    assert not started.running


def test_child_that_does_not_end_when_asked_is_killed_with_its_group(
    child: Callable[[str], Child],
) -> None:
    started = child(STUBBORN + WITH_DAEMON + SLEEP)
    wait_until(lambda: len(started.members()) == 2)
    processes = started.members()

    end_all([started], 0.2)

    wait_until(lambda: not any(process.alive for process in processes))
    assert not started.running


DIES_WITH_PARENT = """
import subprocess, sys
from batches.supervisor import Child
child = Child("the child", ["-c", {program!r}], {{}})
child.start()
print(child.pid, flush=True)
child.wait(600)
"""


def test_child_that_asks_for_it_dies_with_its_supervisor() -> None:
    program = (
        "import signal, time; from batches.processes import die_with_parent; "
        "die_with_parent(signal.SIGKILL); print('asked', flush=True); time.sleep(600)"
    )
    supervisor = subprocess.Popen(
        [sys.executable, "-c", DIES_WITH_PARENT.format(program=program)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    with supervisor:
        assert supervisor.stdout is not None
        told = {supervisor.stdout.readline().strip(), supervisor.stdout.readline().strip()}
        (number,) = told - {"asked"}
        born = ProcessId.of(int(number))
        assert born is not None

        supervisor.kill()

    wait_until(lambda: not born.alive)


def test_process_whose_supervisor_is_gone_already_does_not_begin() -> None:
    program = "import signal; from batches.processes import die_with_parent; die_with_parent(9)"

    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "TERM_EXECUTOR_PARENT": "1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (ended.returncode, ended.stderr) == (1, "the supervisor is gone\n")
