"""One task from its claim to its verdict, with nothing run: who is to blame for what, and what is kept."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import connections
from django.utils import timezone
from pytest_django import Settings

from batches import jobs, lanes, pipeline, transitions, workspaces
from batches.faults import InfraFault
from batches.models import Batch, Event, Run, Task
from batches.rewards import TestResult
from batches.sandbox.promise import Finished, Patch, PatchRefused, Reason, SandboxError
from batches.schemas import TaskDetail
from tests.scripted import GREEN, RED, Reply, Script, ended, scripted
from tests.test_submissions import accept, own_disk, upload
from tests.whole.archives import IDLE, make_repository, pack, task

pytestmark = pytest.mark.django_db(transaction=True)

NOT_FOUND = ended(127, b"node: not found")
CANNOT = "could not be judged: install 1 failed (exited, exit code 1), and after it "


@pytest.fixture(autouse=True)
def disk(settings: Settings, tmp_path: Path) -> Path:
    return own_disk(settings, tmp_path / "disk")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Script]:
    with scripted(monkeypatch) as script:
        yield script


@pytest.fixture(scope="session")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repositories") / "numbers"
    make_repository(folder)
    return folder


@pytest.fixture
def batch(disk: Path, repo: Path) -> Batch:
    """One task with two tests, a file for them and an install command."""
    files = {"tests/other.sh": "true", "tests/data/expected.txt": "2"}
    parts = task(repo, IDLE, "true", install=["make deps"], files=files)
    return accept(upload(disk, pack({"a": parts})))


def run(batch: Batch) -> Task:
    """Run the batch's next task as a lane does; returns its row as that leaves it."""
    claimed = lanes.claim(batch.pk)
    assert claimed is not None
    jobs.run(claimed)
    return Task.objects.get(pk=claimed.pk)


def verdict(row: Task) -> tuple[str, bool | None, float, str, str]:
    return row.status, row.passed, row.reward, row.fault, row.reason


PASSED = ("completed", True, 1.0, "", "all 2 tests passed")


def test_phases_follow_each_other_and_each_is_told_and_kept(batch: Batch, script: Script) -> None:
    script.patch = Patch(b"diff")
    script.replies = {"run.sh": ended(0, b"ran\n"), "other.sh": ended(0, b"other\n")}

    row = run(batch)

    assert verdict(row) == PASSED
    assert row.test_output == "== other.sh: exit code 0\nother\n\n== run.sh: exit code 0\nran\n"
    assert bytes(row.patches.get().diff) == b"diff"
    assert list(Run.objects.values_list("phase", "name", "command")) == [
        ("clone", "checkout", f"git checkout {row.base_commit}"),
        ("install", "install 1", "make deps"),
        ("agent", "agent", "python3 agent.py"),
        ("tests", "other.sh", "bash other.sh"),
        ("tests", "run.sh", "bash run.sh"),
    ]
    statuses = [event.data.get("status") for event in Event.objects.filter(task_name="a")]
    assert statuses == [
        None,
        *("cloning_repo", "installing_deps", "running_agent", "running_tests", "completed"),
    ]
    assert script.applied == [Patch(b"diff")]
    assert script.written == ["data/expected.txt"]


def test_commands_get_what_their_phase_allows(
    batch: Batch, script: Script, settings: Settings
) -> None:
    run(batch)

    checkout, install, agent, other, _ = script.commands
    assert [command.network for command in script.commands] == [
        *("none", "full", "full", "none", "none")
    ]
    assert [command.timeout_seconds for command in script.commands] == [
        *(settings.CLONE_TIMEOUT_SECS, settings.CLONE_TIMEOUT_SECS, settings.AGENT_TIMEOUT_SECS),
        *(settings.TEST_TIMEOUT_SECS, settings.TEST_TIMEOUT_SECS),
    ]
    assert {command.limits.output_bytes for command in script.commands} == {
        settings.MAX_OUTPUT_BYTES
    }
    assert install.argv == ("bash", "-c", "make deps")
    assert agent.argv == ("python3", "/shown/agent/agent.py")
    assert (agent.env["TASK_PROMPT"], agent.env["REPO_DIR"]) == ("/shown/prompt.md", "/repo")
    assert (other.argv, dict(other.env)) == (
        ("bash", "/shown/tests/other.sh"),
        {"REPO_DIR": "/repo"},
    )
    assert checkout.env["GIT_ALLOW_PROTOCOL"] == "file"


@pytest.mark.parametrize(
    ("agent", "note"),
    [
        (ended(1), ""),
        (ended(None, reason=Reason.TIMEOUT), "agent: stopped after 0 s; "),
        (ended(-9, reason=Reason.KILLED), "agent: killed by signal 9; "),
        (ended(None, reason=Reason.OUTPUT), "agent: printed too much; "),
    ],
    ids=["exit code", "timeout", "killed", "output"],
)
def test_end_of_the_agent_is_told_and_decides_nothing(
    batch: Batch, script: Script, agent: Finished, note: str
) -> None:
    script.replies = {"agent.py": agent}

    assert verdict(run(batch)) == (*PASSED[:-1], f"{note}all 2 tests passed")


def test_one_red_test_of_several_takes_the_reward(batch: Batch, script: Script) -> None:
    script.replies = {"run.sh": RED}

    row = run(batch)

    why = "1 of 2 tests failed, first run.sh (exit code 1)"
    assert verdict(row) == ("failed", False, 0.0, "agent", why)
    assert row.error == ""
    assert [command.argv[-1] for command in script.commands[-2:]] == [
        *("/shown/tests/other.sh", "/shown/tests/run.sh")
    ]


@pytest.mark.parametrize(
    ("policy", "tests", "expected"),
    [
        ("continue", GREEN, PASSED),
        (
            "continue",
            RED,
            (
                "failed",
                None,
                0.0,
                "task",
                f"{CANNOT}1 of 2 tests failed, first run.sh (exit code 1)",
            ),
        ),
        ("fail", GREEN, ("failed", None, 0.0, "task", "install command 1 failed: exit code 1")),
    ],
)
def test_failed_install_accuses_the_task_where_the_tests_are_red(
    batch: Batch, script: Script, settings: Settings, policy: str, tests: Finished, expected: object
) -> None:
    settings.INSTALL_FAILURE = policy
    script.replies = {"make deps": RED, "run.sh": tests}

    assert verdict(run(batch)) == expected


def test_commands_of_checks_are_tests(disk: Path, repo: Path, script: Script) -> None:
    parts = task(repo, IDLE, files={"checks.txt": "make test\n# no test\nmake lint\n"})
    del parts["tests/run.sh"]
    batch = accept(upload(disk, pack({"a": parts})))
    script.replies = {"make lint": RED}

    row = run(batch)

    assert row.reason == "1 of 2 tests failed, first make lint (exit code 1)"
    tests = Run.objects.filter(phase="tests").values_list("name", "command", "exit_code")
    assert list(tests) == [("make test", "make test", 0), ("make lint", "make lint", 1)]


@pytest.mark.parametrize("when", ["taken", "applied"])
def test_patch_that_is_none_is_judged_as_a_failure(batch: Batch, script: Script, when: str) -> None:
    refusal = PatchRefused("the patch is larger than 10 bytes")
    if when == "taken":
        script.patch = refusal
    else:
        script.refused = refusal

    row = run(batch)

    assert verdict(row) == ("failed", False, 0.0, "agent", "the patch is larger than 10 bytes")
    assert not Run.objects.filter(phase="tests").exists()


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (SandboxError("the disk is full"), "the disk is full"),
        (InfraFault("no network"), "no network"),
        (ZeroDivisionError("secret"), "internal error (ZeroDivisionError)"),
    ],
)
@pytest.mark.parametrize("command", ["git fetch", "make deps", "agent.py", "run.sh"])
def test_trouble_of_ours_is_tried_again_after_a_pause(
    batch: Batch, script: Script, command: str, reply: Reply, error: str
) -> None:
    script.replies = {command: reply}

    row = run(batch)

    assert (row.status, row.passed, row.reason) == ("queued", None, error)
    assert (row.attempt, row.strikes, row.lease) == (1, 1, None)
    assert row.not_before is not None
    assert row.not_before > timezone.now()
    assert lanes.claim(batch.pk) is None
    Task.objects.update(not_before=None)
    script.replies = {}
    assert verdict(run(batch)) == PASSED


def test_trouble_that_does_not_end_is_ours_in_the_end(batch: Batch, script: Script) -> None:
    script.replies = {"agent.py": SandboxError("the disk is full")}

    for _ in range(3):
        Task.objects.update(not_before=None)
        row = run(batch)

    why = "could not be judged: the disk is full (3 attempts)"
    assert verdict(row) == ("failed", None, 0.0, "infra", why)


def test_checkout_that_fails_is_our_trouble(batch: Batch, script: Script) -> None:
    script.replies = {"git fetch": ended(128)}

    row = run(batch)

    assert row.status == "queued"
    assert row.reason.endswith(" failed: exit code 128")


@pytest.mark.parametrize(
    ("runtime", "status"), [(RED, "queued"), (GREEN, "completed")], ids=["missing", "there"]
)
def test_missing_runtime_is_not_the_agents_failure(
    batch: Batch, script: Script, runtime: Finished, status: str
) -> None:
    script.replies = {"agent.py": NOT_FOUND, "command -v": runtime}

    row = run(batch)

    assert row.status == status
    if status == "queued":
        assert row.reason == "python3 is not installed, which agents in python need"


@pytest.mark.parametrize("command", ["git fetch", "make deps", "agent.py", "other.sh"])
def test_nothing_is_written_once_the_lease_is_lost(
    batch: Batch, script: Script, command: str
) -> None:
    def lose() -> Finished:
        transitions.requeue(Task.objects.get(), strike=False)
        script.replies = {}
        left.append((Task.objects.values().get(), Event.objects.count(), Run.objects.count()))
        return GREEN

    left: list[object] = []
    script.replies = {command: lose}
    script.patch = Patch(b"diff")

    run(batch)

    assert left == [(Task.objects.values().get(), Event.objects.count(), Run.objects.count())]
    assert list((workspaces.for_batch(batch)).glob("*-*")) == []


def test_batch_that_is_stopped_in_between_keeps_its_end(batch: Batch, script: Script) -> None:
    def stop() -> Finished:
        transitions.stop_batch(batch, "cancelled")
        return GREEN

    script.replies = {"agent.py": stop}

    row = run(batch)

    assert verdict(row) == ("failed", None, 0.0, "cancelled", "cancelled")
    assert Event.objects.latest("seq").event == "stream_closed"


def test_lane_whose_time_is_up_gives_its_task_back_and_ends(batch: Batch, script: Script) -> None:
    script.replies = {"agent.py": SystemExit()}

    with pytest.raises(SystemExit):
        jobs.lane(str(batch.pk))

    row = Task.objects.get()
    assert (row.status, row.reason) == ("queued", "internal error (SystemExit)")
    assert list((workspaces.for_batch(batch)).glob("*-*")) == []


def test_lane_works_until_nothing_is_left(disk: Path, repo: Path, script: Script) -> None:
    batch = accept(upload(disk, pack({name: task(repo, IDLE) for name in "abc"})), 1)

    jobs.lane(str(batch.pk))
    jobs.lane(str(batch.pk))

    assert set(Task.objects.values_list("status", "attempt")) == {("completed", 1)}
    batch.refresh_from_db()
    assert batch.status == "completed"


def test_several_lanes_share_the_tasks_of_a_batch(disk: Path, repo: Path, script: Script) -> None:
    names = [f"t{number}" for number in range(6)]
    batch = accept(upload(disk, pack({name: task(repo, IDLE) for name in names})), 3)

    def lane() -> None:
        try:
            jobs.lane(str(batch.pk))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=lane) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert set(Task.objects.values_list("status", "attempt")) == {("completed", 1)}
    assert list(workspaces.for_batch(batch).glob("*-*")) == []


def test_odd_bytes_of_tests_can_be_stored_and_shown(batch: Batch, script: Script) -> None:
    script.replies = {"other.sh": ended(1, b"a\0b\xff\xed\xa0\x80\n")}

    row = run(batch)

    assert row.test_output.startswith("== other.sh: exit code 1\na␀b����\n")
    shown = TaskDetail.of_runs(row, list(row.runs.filter(phase="tests")))
    assert shown.test_results[0].output == "a␀b����\n"


@pytest.mark.parametrize("count", [1, 2, 40, 1000, 20_000])
def test_summary_is_short_whatever_the_tests_print(count: int) -> None:
    flood = ended(0, os.urandom(40_000).hex().encode())
    results = [TestResult(f"{number}.sh", flood) for number in range(count)]

    text = pipeline.summary(results)

    headlines = sum(len(f"== {number}.sh: exit code 0\n\n[...]\n") + 1 for number in range(count))
    assert len(text) <= max(pipeline.TEST_OUTPUT_BYTES, 2 * count) + headlines
    assert text.count("\n[...]\n") == count
    assert text.startswith("== 0.sh: exit code 0\n")


def test_summary_has_beginning_and_end_of_what_was_cut_before() -> None:
    cut = ended(1, b"begin", tail=b"end", output_bytes=10**9)

    assert pipeline.summary([TestResult("a.sh", cut)]) == (
        "== a.sh: exit code 1\nbegin\n[...]\nend"
    )
