"""The record of a task's commands: what is kept of them, and that nobody writes without the lease."""

import threading

import pytest

from batches import transitions
from batches.journal import Journal, printable
from batches.models import Run
from batches.sandbox.promise import Reason
from batches.statuses import Phase
from batches.transitions import StaleStatus
from tests.factories import claimed, make_batch
from tests.scripted import GREEN, ended

pytestmark = pytest.mark.django_db


@pytest.fixture
def journal() -> Journal:
    return Journal(claimed(make_batch().tasks.get()), threading.Event())


def test_command_is_written_down_as_it_ended(journal: Journal) -> None:
    finished = ended(
        None, b"head", reason=Reason.TIMEOUT, tail=b"tail", output_bytes=1008, wall_seconds=2.5
    )

    journal.record(Phase.TESTS, "a.sh", ["bash", "a b.sh"], finished)

    run = Run.objects.get()
    assert (run.task, run.attempt, run.phase, run.name) == (journal.task, 1, "tests", "a.sh")
    assert (run.command, run.exit_code, run.reason, run.ok) == (
        "bash 'a b.sh'",
        None,
        "timeout",
        False,
    )
    assert (run.wall_seconds, run.cpu_seconds, run.peak_memory_bytes) == (2.5, 0.25, 1024)
    assert (run.output_bytes, run.truncated) == (1008, True)
    assert run.output == "head\n[... 1000 bytes cut ...]\ntail"


@pytest.mark.parametrize(
    ("output", "text"),
    [
        (b"caf\xc3\xa9\n", "café\n"),
        (b"a\0b", "a␀b"),
        (b"\xff\xfe\x80", "���"),
        (b"\xed\xa0\x80", "���"),  # half of a character, which is no text
        (b"cut in \xe2\x82", "cut in �"),
        (b"\x1b[31mred\r\n", "\x1b[31mred\r\n"),
    ],
)
def test_any_output_can_be_stored(journal: Journal, output: bytes, text: str) -> None:
    journal.record(Phase.AGENT, "agent", "x", ended(0, output))

    assert printable(output) == text
    assert Run.objects.get().output == text


def test_long_name_is_cut_to_what_the_row_holds(journal: Journal) -> None:
    journal.record(Phase.TESTS, "x" * 1000, "x" * 1000, GREEN)

    run = Run.objects.get()
    assert (len(run.name), len(run.command)) == (255, 1000)


def test_nothing_is_written_once_the_lease_is_known_to_be_lost(journal: Journal) -> None:
    journal.cancel.set()

    with pytest.raises(StaleStatus):
        journal.record(Phase.AGENT, "agent", "x", GREEN)
    with pytest.raises(StaleStatus):
        journal.check()

    assert not Run.objects.exists()


def test_nothing_is_written_under_the_lease_of_somebody_else(journal: Journal) -> None:
    row = type(journal.task).objects.get()
    transitions.requeue(row, strike=False)
    claimed(row)

    with pytest.raises(StaleStatus):
        journal.record(Phase.AGENT, "agent", "x", GREEN)

    assert not Run.objects.exists()
