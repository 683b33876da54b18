"""From exit codes to a reward. Pure: no database, no sandbox."""

from collections.abc import Sequence
from dataclasses import dataclass

from batches.sandbox.promise import Finished, Reason


@dataclass(frozen=True)
class TestResult:
    """One test script, and what became of it."""

    __test__ = False  # not for pytest to collect

    name: str
    finished: Finished

    @property
    def passed(self) -> bool:
        """The exit code that the parent saw decides; what was printed does not."""
        return self.finished.ok


@dataclass(frozen=True)
class Verdict:
    """The judgement of a task, and the sentence that explains it."""

    passed: bool
    reward: float
    reason: str


def verdict(results: Sequence[TestResult]) -> Verdict:
    """1.0 when every test passed, else 0.0. There must be at least one."""
    if not results:
        raise ValueError("a task without tests has no verdict")
    red = [result for result in results if not result.passed]
    count = len(results)
    if not red:
        return Verdict(True, 1.0, "the test passed" if count == 1 else f"all {count} tests passed")
    name, how = red[0].name, ending(red[0].finished)
    if count == 1:
        return Verdict(False, 0.0, f"{name} failed ({how})")
    return Verdict(False, 0.0, f"{len(red)} of {count} tests failed, first {name} ({how})")


def ending(finished: Finished) -> str:
    """How a command ended, in a few words."""
    match finished.reason:
        case Reason.EXITED:
            return f"exit code {finished.exit_code}"
        case Reason.TIMEOUT:
            return f"stopped after {finished.wall_seconds:.0f} s"
        case Reason.OOM:
            return "out of memory"
        case Reason.OUTPUT:
            return "printed too much"
        case Reason.DISK:
            return "filled its disk"
        case Reason.KILLED:
            return f"killed by signal {-(finished.exit_code or 0)}"
        case Reason.CANCELLED:
            return "cancelled"
