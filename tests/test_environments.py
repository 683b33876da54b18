"""Environments, agents and tests as real processes: what enters a layer, and what gets out of it."""

import re
import threading
from pathlib import Path

import pytest
from pytest_django import Settings

from batches import environments, jobs, lanes, transitions
from batches.archive.specs import TaskSpec
from batches.environments import Environment
from batches.faults import TaskFault
from batches.journal import Journal
from batches.models import Run, Task
from batches.sandbox.process import ProcessKeeper
from batches.sandbox.promise import Command
from tests.factories import SPEC, claimed, make_batch
from tests.test_submissions import accept, own_disk, upload
from tests.whole.archives import commit, git, make_repository, pack, task

pytestmark = pytest.mark.django_db(transaction=True)

BASH_AGENT = {"agent.sh": 'cd "$REPO_DIR"\n. "$TASK_PROMPT"\n'}
PASSED = ("completed", True, "", "the test passed")
RED = ("failed", False, "agent", "run.sh failed (exit code 1)")


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return without_python(tmp_path_factory.mktemp("programs"))


def without_python(folder: Path) -> Path:
    """A PATH without Python: a layer then needs no virtual environment, which is most of its making."""
    for source in (Path("/bin"), Path("/usr/bin")):
        for program in source.iterdir():
            target = folder / program.name
            if not program.name.startswith("python") and not target.is_symlink():
                target.symlink_to(program)
    return folder


@pytest.fixture(autouse=True)
def disk(settings: Settings, tmp_path: Path, programs: Path) -> Path:
    settings.TASK_PATH = str(programs)
    settings.MAX_PATCH_BYTES = 100_000
    return own_disk(settings, tmp_path / "disk")


@pytest.fixture(scope="session")
def history(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A repository with a past and a future: its folder, and its commits."""
    folder = tmp_path_factory.mktemp("repositories") / "origin"
    commits = {"first": make_repository(folder, {"number.txt": "0\n", ".gitignore": "*.log\n"})}
    (folder / "number.txt").write_text("1\n")
    (folder / "data").mkdir()
    (folder / "data" / "old.txt").write_text("old\n")
    commits["base"] = commit(folder)
    (folder / "number.txt").write_text("2\n")
    commits["future"] = commit(folder, "the solution")
    git(folder, "tag", "v1")
    return {"folder": str(folder), **commits}


def judged(
    disk: Path,
    history: dict[str, str],
    prompt: str,
    test: str = "grep -qx 2 number.txt",
    *,
    base: str = "base",
    **more: object,
) -> Task:
    """A task on ``base``, run to its end; ``prompt`` and ``test`` are programs for bash."""
    parts = task(
        history["folder"],
        prompt,
        test,
        base_commit=history[base],
        **more,  # type: ignore[arg-type]
    )
    batch = accept(upload(disk, pack({"a": parts}, BASH_AGENT)))
    claim = lanes.claim(batch.pk)
    assert claim is not None
    jobs.run(claim)
    return Task.objects.get()


def verdict(row: Task) -> tuple[str, bool | None, str, str]:
    return row.status, row.passed, row.fault, row.reason


SOLVE = "echo 2 > number.txt\n"
WAYS = {
    "edits the file": (SOLVE, "", PASSED),
    "does nothing": ("true", "", RED),
    "fails": (SOLVE + "exit 3", "", PASSED),
    "kills itself": (
        SOLVE + "kill -9 $$",
        "",
        (*PASSED[:-1], "agent: killed by signal 9; the test passed"),
    ),
    "commits": (SOLVE + "git commit -qam solved && git gc -q", "", PASSED),
    "commits on another branch": (
        "git switch -qc other; echo 2 > number.txt; git commit -qam x; git checkout -q --detach HEAD~1",
        "",
        RED,
    ),
    "removes .git": (SOLVE + "rm -rf .git", "", PASSED),
    "breaks .git": (SOLVE + "echo nonsense > .git/config; rm .git/HEAD .git/index", "", PASSED),
    "ignores everything": (SOLVE + "echo '*' > .git/info/exclude", "", PASSED),
    "has git ignore the change": (SOLVE + "git update-index --skip-worktree number.txt", "", PASSED),
    "runs hooks of its own": (
        SOLVE + "git config core.fsmonitor 'touch ../ran'; git config filter.x.clean 'touch ../ran'\n"
        "echo '* filter=x' > .git/info/attributes",
        "test ! -e ../ran && grep -qx 2 number.txt",
        PASSED,
    ),
    "adds a file": ("mkdir -p new/deep; echo 2 > new/deep/file", "grep -qx 2 new/deep/file", PASSED),
    "leaves a nested repository": (
        "git init -q nested; echo 2 > nested/file; cd nested; git add .",
        "test ! -e nested/.git && grep -qx 2 nested/file",
        PASSED,
    ),
    "puts a link in the repository's place": (
        'cd ..; mv "$REPO_DIR" elsewhere; ln -s "$PWD/elsewhere" "$REPO_DIR"; echo 2 > elsewhere/number.txt',
        "test -e number.txt",
        RED,
    ),
    "removes the repository": ('cd /; rm -rf "$REPO_DIR"', "test ! -e number.txt", PASSED),
    "leaves what is ignored": ("echo x > seen.log; echo 2 > new", "test ! -e seen.log -a -e new", PASSED),
    "leaves something outside": (
        'echo x > "$HOME/left"; echo x > "$TMPDIR/left"; echo x > ../left',
        'test ! -e "$HOME/left" -a ! -e "$TMPDIR/left" -a ! -e ../left',
        PASSED,
    ),
    "leaves a process": (
        "(setsid sleep 76543.21 &) ; (trap '' HUP TERM; sleep 76543.21 &)",
        "! grep -lsa 76543.2[1] /proc/[0-9]*/cmdline",
        PASSED,
    ),
    "looks for its tests": (
        'grep -rqs "secret of the [t]est" "$REPO_DIR" "$HOME" ../shown && echo 2 > number.txt; true',
        ": secret of the test; grep -qx 2 number.txt",
        RED,
    ),
    "looks for the future": (
        "test $(git rev-list --all --count) = 1 && test -z \"$(git remote; git tag)\" && "
        "test -z \"$(git reflog)\" && ! git cat-file -e {future} && ! git cat-file -e {first} && "
        + SOLVE,
        "",
        PASSED,
    ),
    "wants to change the agent's tree": (
        'test "$(id -u)" = 0 || ! touch "$(dirname "$TASK_PROMPT")/agent/x" && ' + SOLVE,
        "! ls -R .. | grep -q 'agent[.]sh' && grep -qx 2 number.txt",
        PASSED,
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_agent_is_judged_by_the_change_that_it_leaves(
    disk: Path, history: dict[str, str], way: str
) -> None:
    prompt, test, expected = WAYS[way]
    prompt = prompt.format(**history) if "{future}" in prompt else prompt

    row = judged(disk, history, prompt, test or "grep -qx 2 number.txt")

    assert verdict(row) == expected, list(Run.objects.values("phase", "output_head"))
    assert row.base_commit == history["base"]
    assert [path.name for path in (disk / "workspaces").glob("*/*")] == ["archive"]


def test_agent_that_takes_too_long_is_judged_by_what_it_left(
    disk: Path, history: dict[str, str], settings: Settings
) -> None:
    settings.AGENT_TIMEOUT_SECS = 2

    row = judged(disk, history, SOLVE + "sleep 600")

    *judged_as, reason = verdict(row)
    assert tuple(judged_as) == PASSED[:-1]
    assert re.fullmatch("agent: stopped after [0-9]+ s; the test passed", reason)
    assert Run.objects.get(phase="agent").reason == "timeout"


def test_test_that_takes_too_long_is_red(
    disk: Path, history: dict[str, str], settings: Settings
) -> None:
    settings.TEST_TIMEOUT_SECS = 1

    row = judged(disk, history, SOLVE, "echo begun; sleep 600")

    assert (row.status, row.passed, row.fault) == ("failed", False, "agent")
    assert row.reason.startswith("run.sh failed (stopped after ")
    assert row.test_output.endswith("\nbegun\n")


def test_patch_that_is_too_large_is_a_failure_with_its_reason(
    disk: Path, history: dict[str, str]
) -> None:
    row = judged(disk, history, "head -c 200000 /dev/urandom > new")

    assert verdict(row) == ("failed", False, "agent", "the patch is larger than 100000 bytes")


def test_files_of_the_tests_replace_those_of_the_agent_and_follow_no_link(
    disk: Path, history: dict[str, str], tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    files = {"tests/data/expected.txt": "right\n", "tests/check.txt": "right\n"}
    prompt = (
        f"rm -r data; ln -s {outside} data; echo wrong > data/expected.txt; mkdir check.txt; "
        "touch check.txt/in-the-way"
    )
    test = "grep -qx right data/expected.txt && grep -qx right check.txt && test ! -L data"

    row = judged(disk, history, prompt, test, files=files)

    assert verdict(row) == PASSED
    assert (outside / "expected.txt").read_text() == "wrong\n"


@pytest.mark.parametrize(
    ("policy", "test", "expected"),
    [
        ("continue", "test -e made-later", PASSED),
        (
            "continue",
            "false",
            (
                *("failed", None, "task"),
                "could not be judged: install 1 failed (exited, exit code 7), "
                "and after it run.sh failed (exit code 1)",
            ),
        ),
        ("fail", "true", ("failed", None, "task", "install command 1 failed: exit code 7")),
    ],
)
def test_failed_install_is_the_tasks_story(
    disk: Path,
    history: dict[str, str],
    settings: Settings,
    policy: str,
    test: str,
    expected: object,
) -> None:
    settings.INSTALL_FAILURE = policy

    row = judged(disk, history, "true", test, install=["exit 7", "touch made-later"])

    assert verdict(row) == expected


@pytest.mark.parametrize("base", ["first", "base", "future"])
def test_repository_is_judged_at_its_base_commit(
    disk: Path, history: dict[str, str], base: str
) -> None:
    number = {"first": 0, "base": 1, "future": 2}[base]

    row = judged(disk, history, "true", f"grep -qx {number} number.txt", base=base)

    assert verdict(row) == PASSED
    assert row.base_commit == history[base]


def test_commit_that_is_nowhere_is_the_tasks_story(disk: Path, history: dict[str, str]) -> None:
    row = judged(disk, {**history, "lost": "f" * 40}, "true", base="lost")

    why = f"commit {'f' * 40} is not in file://{history['folder']}"
    assert verdict(row) == ("failed", None, "task", why)


def prepared(keeper: ProcessKeeper, **spec: object) -> tuple[Environment, Journal]:
    journal = Journal(claimed(make_batch().tasks.get()), threading.Event())
    data = {**SPEC, **spec}
    return environments.prepare(TaskSpec.from_json(data), keeper, journal), journal


@pytest.fixture
def keeper(tmp_path: Path, programs: Path) -> ProcessKeeper:
    return ProcessKeeper(tmp_path / "keeper", path=str(programs))


@pytest.mark.parametrize("asked", ["base", "short", "tag", "nothing"])
def test_environment_is_the_commit_and_nothing_else(
    keeper: ProcessKeeper, history: dict[str, str], asked: str
) -> None:
    wanted, found = {
        "base": (history["base"], "base"),
        "short": (history["base"][:8], "base"),
        "tag": ("v1", "future"),
        "nothing": (None, "future"),
    }[asked]
    environment, journal = prepared(keeper, repo=history["folder"], base_commit=wanted)

    look = (
        "git rev-parse HEAD; git rev-list --all --count; git status --short; git remote -v; ls .git"
    )
    layer = keeper.fork(environment.snapshot, "look")
    finished = keeper.run(layer, Command(("sh", "-c", look), 30))

    commit_found, count, *files = finished.head.decode().split()
    assert (environment.commit, environment.failed_install) == (history[found], None)
    assert (commit_found, count) == (history[found], "1")
    assert {"FETCH_HEAD", "logs", "hooks"} & set(files) == set()
    assert journal.task.status == "installing_deps"
    assert journal.task.base_commit == history[found]


def test_install_commands_run_in_their_order_in_one_layer(
    keeper: ProcessKeeper, history: dict[str, str]
) -> None:
    install = [
        "echo one > log.txt",
        "echo two >> log.txt; exit 3",
        "echo three >> log.txt",
        "exit 4",
    ]
    environment, _ = prepared(keeper, repo=history["folder"], install=install)

    layer = keeper.fork(environment.snapshot, "look")
    finished = keeper.run(layer, Command(("cat", "log.txt"), 30))

    assert finished.head == b"one\ntwo\nthree\n"
    assert environment.failed_install == Run.objects.get(name="install 2")
    runs = Run.objects.filter(phase="install").values_list("name", "command", "exit_code")
    assert list(runs) == [
        ("install 1", install[0], 0),
        ("install 2", install[1], 3),
        ("install 3", install[2], 0),
        ("install 4", install[3], 4),
    ]


def test_address_that_is_no_longer_accepted_is_the_tasks_story(
    keeper: ProcessKeeper, history: dict[str, str], settings: Settings
) -> None:
    settings.ALLOW_LOCAL_REPOS = False

    with pytest.raises(TaskFault, match="the repository is a local path"):
        prepared(keeper, repo=history["folder"])


def test_preparation_ends_where_the_lease_is_lost(
    keeper: ProcessKeeper, history: dict[str, str]
) -> None:
    row = claimed(make_batch().tasks.get())
    journal = Journal(row, threading.Event())
    transitions.requeue(Task.objects.get(), strike=False)
    spec = TaskSpec.from_json({**SPEC, "repo": history["folder"]})

    with pytest.raises(transitions.StaleStatus):
        environments.prepare(spec, keeper, journal)

    assert Task.objects.get().base_commit == ""
    assert not Run.objects.exists()
