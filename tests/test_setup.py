"""From a bare machine to a running project: the lock files and ``scripts/setup``."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings
from packaging.requirements import Requirement

from tests.programs import listed

ROOT = Path(__file__).parent.parent
LOCKS = ("requirements.lock", "requirements-dev.lock")
# What the script uses; apt-get is not among it, so that no test installs anything.
COMMANDS = (
    "basename",
    "cat",
    "dirname",
    "env",
    "flock",
    "id",
    "ls",
    "mkdir",
    "rm",
    "sh",
    "tail",
    "true",
)


def pins(lock: str) -> dict[str, str]:
    """Name and version of everything that ``lock`` installs."""
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / lock).read_text(), re.MULTILINE))


def dependencies() -> tuple[list[Requirement], list[Requirement]]:
    """What pyproject.toml asks for: to run, and to develop."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    run = [Requirement(line) for line in project["dependencies"]]
    return run, [Requirement(line) for line in project["optional-dependencies"]["dev"]]


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_file_names_no_host(lock: str) -> None:
    assert "://" not in (ROOT / lock).read_text()


@pytest.mark.parametrize("lock", LOCKS)
def test_every_line_of_a_lock_file_is_a_pin_with_its_hashes(lock: str) -> None:
    text = (ROOT / lock).read_text().replace("\\\n", " ")

    odd = [
        line
        for line in text.splitlines()
        if not re.fullmatch(r"[a-z0-9-]+==\S+( *;[^#]*?)?( +--hash=sha256:[0-9a-f]{64})+", line)
    ]

    assert odd == []


def test_every_dependency_is_locked_at_a_version_that_is_asked_for() -> None:
    run, dev = dependencies()
    wanted = [(need, pins("requirements.lock")) for need in run]
    wanted += [(need, pins("requirements-dev.lock")) for need in run + dev]

    unmet = [
        need.name
        for need, found in wanted
        if not need.specifier.contains(found.get(normal(need.name), "0.dev0"))
    ]

    assert unmet == []


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_development_has_the_very_versions_that_run() -> None:
    assert pins("requirements.lock").items() <= pins("requirements-dev.lock").items()


def test_setup_looks_for_programs_where_tasks_do_by_default() -> None:
    script = (ROOT / "scripts" / "setup").read_text()

    default = re.search(r"PROGRAM_PATH=\$\{TASK_PATH:-(\S+)\}", script)

    assert default is not None
    assert "TASK_PATH" in os.environ or default[1] == settings.TASK_PATH


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Path]:
    """A folder with the scripts and with lock files that need nothing from the network."""
    folder = tmp_path / "clone"
    shutil.copytree(ROOT / "scripts", folder / "scripts")
    for lock in LOCKS:
        (folder / lock).write_text("# nothing\n")

    programs = tmp_path / "programs"
    programs.mkdir()
    for command in COMMANDS:
        found = shutil.which(command)
        assert found is not None
        (programs / command).symlink_to(found)
    for program in listed():
        (programs / program).symlink_to("/bin/true")
    return folder


def setup(clone: Path, purpose: str, **variables: str) -> subprocess.Popen[str]:
    programs = str(clone.parent / "programs")
    return subprocess.Popen(
        [clone / "scripts" / "setup", purpose],
        env={"PATH": programs, "TASK_PATH": programs, "PYTHON": sys.executable, **variables},
        stderr=subprocess.PIPE,
        text=True,
    )


def run_setup(clone: Path, purpose: str, **variables: str) -> tuple[int, list[str]]:
    """How ``scripts/setup`` ended and what it said."""
    with setup(clone, purpose, **variables) as process:
        _, said = process.communicate(timeout=120)
    return process.returncode, [line.removeprefix("setup: ") for line in said.splitlines()]


INSTALLING = "installing Python packages (first time, about a minute)"
ANEW = ".venv does not fit any more, making it anew"


def test_second_setup_says_and_does_nothing(clone: Path) -> None:
    first = run_setup(clone, "run")
    before = (clone / ".venv").stat().st_mtime_ns, (clone / "build/setup.log").stat().st_mtime_ns

    second = run_setup(clone, "run")

    after = (clone / ".venv").stat().st_mtime_ns, (clone / "build/setup.log").stat().st_mtime_ns
    assert (first, second) == ((0, [INSTALLING]), (0, []))
    assert before == after


def test_environment_for_tests_adds_to_the_one_that_runs_and_serves_both(clone: Path) -> None:
    run_setup(clone, "run")
    (clone / ".venv" / "kept").touch()

    said = [run_setup(clone, purpose) for purpose in ("tools", "test", "run")]

    assert said == [(0, [INSTALLING]), (0, []), (0, [])]
    assert (clone / ".venv" / "kept").exists()


def interrupt(clone: Path) -> None:
    (clone / ".venv" / ".unfinished").touch()


def remove_python(clone: Path) -> None:
    python = clone / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/nowhere/python3")


def change_lock(clone: Path) -> None:
    (clone / "requirements.lock").write_text("# nothing yet\n")


def test_environment_that_does_not_fit_is_made_anew(clone: Path) -> None:
    run_setup(clone, "run")
    healed = {}

    for harm in (interrupt, remove_python, change_lock):
        harm(clone)
        healed[harm.__name__] = [run_setup(clone, "run"), run_setup(clone, "run")]
    clone = clone.rename(clone.with_name("elsewhere"))
    healed["move"] = [run_setup(clone, "run"), run_setup(clone, "run")]

    once = [(0, [ANEW, INSTALLING]), (0, [])]
    harms = ("interrupt", "remove_python", "change_lock", "move")
    assert healed == dict.fromkeys(harms, once)


def test_folder_that_is_no_environment_is_left_alone(clone: Path) -> None:
    precious = clone / "papers"
    precious.mkdir()
    (precious / "letter").write_text("dear")

    ended = run_setup(clone, "run", VENV="papers")

    why = "papers is no virtual environment: remove it, or name another folder with VENV="
    assert ended == (1, [why])
    assert (precious / "letter").read_text() == "dear"


def test_two_setups_at_once_make_one_environment_for_everything(clone: Path) -> None:
    both = [setup(clone, "tools"), setup(clone, "tools")]

    said = [process.communicate(timeout=120)[1] for process in both]

    assert [process.returncode for process in both] == [0, 0]
    assert "".join(said).count(INSTALLING) == 1
    assert run_setup(clone, "run") == (0, [])


def test_server_is_not_set_up_without_a_program_it_needs(clone: Path) -> None:
    (clone.parent / "programs" / "git").unlink()

    ended = run_setup(clone, "run")

    advice = "to install: sudo apt-get install -y --no-install-recommends git ca-certificates"
    assert ended == (1, ["not found: git", advice])


@pytest.mark.parametrize(
    ("variables", "status", "last"),
    [
        ({}, 0, "tests that need them will be skipped"),
        ({"CI": "true"}, 1, "in CI every test has to run"),
    ],
)
def test_tests_run_without_their_programs_except_in_ci(
    clone: Path, variables: dict[str, str], status: int, last: str
) -> None:
    for program in ("node", "npm", "tsx"):
        (clone.parent / "programs" / program).unlink()

    ended = run_setup(clone, "test", **variables)

    advice = (
        "to install: sudo apt-get install -y --no-install-recommends nodejs npm"
        f" && sudo npm install -g --prefix /usr/local {listed()['tsx'][0].removeprefix('npm:')}"
    )
    assert ended == (status, [INSTALLING, "not found: node npm tsx", advice, last])


def test_too_old_python_is_refused_with_what_is_needed(clone: Path) -> None:
    ended = run_setup(clone, "run", PYTHON="/bin/false")

    assert ended == (1, ["Python 3.11 or newer is needed"])


def test_failed_installation_shows_its_end_and_names_the_log(clone: Path) -> None:
    (clone / "requirements.lock").write_text("unpinned\n")

    status, said = run_setup(clone, "run")

    assert (status, said[0]) == (1, INSTALLING)
    assert said[-1] == "that failed; the whole log is in build/setup.log"
    assert "--require-hashes" in (clone / "build/setup.log").read_text()
