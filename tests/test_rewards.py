"""From exit codes to a reward."""

import pytest

from batches.rewards import TestResult, Verdict, ending, verdict
from batches.sandbox.promise import Finished, Reason
from tests.scripted import GREEN, RED, ended

KILLED = ended(-9, reason=Reason.KILLED)
LATE = ended(None, reason=Reason.TIMEOUT, wall_seconds=300.4)


def results(**finished: Finished) -> list[TestResult]:
    return [TestResult(name, how) for name, how in finished.items()]


@pytest.mark.parametrize(
    ("judged", "expected"),
    [
        (results(a=GREEN), Verdict(True, 1.0, "the test passed")),
        (results(a=GREEN, b=GREEN), Verdict(True, 1.0, "all 2 tests passed")),
        (results(a=RED), Verdict(False, 0.0, "a failed (exit code 1)")),
        (
            results(a=GREEN, b=RED, c=KILLED),
            Verdict(False, 0.0, "2 of 3 tests failed, first b (exit code 1)"),
        ),
        (
            results(a=GREEN, b=LATE),
            Verdict(False, 0.0, "1 of 2 tests failed, first b (stopped after 300 s)"),
        ),
    ],
)
def test_one_red_test_takes_the_whole_reward(judged: list[TestResult], expected: Verdict) -> None:
    assert verdict(judged) == expected


def test_nothing_is_no_verdict() -> None:
    with pytest.raises(ValueError, match="without tests"):
        verdict([])


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.EXITED])
def test_only_a_test_that_ends_by_itself_can_pass(reason: Reason) -> None:
    assert verdict(results(a=ended(0, reason=reason))).passed is False


def test_what_a_test_prints_decides_nothing() -> None:
    assert verdict(results(a=ended(0, b"FAILED 3 errors"))).passed is True
    assert verdict(results(a=ended(1, b"all tests passed, reward 1.0"))).passed is False


@pytest.mark.parametrize(
    ("finished", "words"),
    [
        (ended(3), "exit code 3"),
        (LATE, "stopped after 300 s"),
        (ended(None, reason=Reason.OOM), "out of memory"),
        (ended(None, reason=Reason.OUTPUT), "printed too much"),
        (ended(None, reason=Reason.DISK), "filled its disk"),
        (KILLED, "killed by signal 9"),
        (ended(None, reason=Reason.CANCELLED), "cancelled"),
    ],
)
def test_every_end_has_its_words(finished: Finished, words: str) -> None:
    assert ending(finished) == words
