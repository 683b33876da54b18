"""The settings: what stops a start, and that the documentation lists every variable."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HOTKEY = "5GziQCcRpN8NCJktX343brnfuVe3w6gUYieeStXPD1Dag2At"


def start(tmp_path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Load the settings in a process of their own, as every command does first."""
    environment = {"PATH": os.environ["PATH"], "STATE_DIR": str(tmp_path / "state"), **variables}
    return subprocess.run(
        [sys.executable, "manage.py", "check"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("PORT", "eighty", "must be a whole number, from 0 to 65535"),
        ("PORT", "65536", "must be from 0 to 65535"),
        ("PORT", "-1", "must be from 0 to 65535"),
        ("MAX_CONCURRENT_TASKS", "0", "must be from 1 to 1024"),
        ("AGENT_TIMEOUT_SECS", "1.5", "must be a whole number, at least 1"),
        ("MAX_ARCHIVE_BYTES", "500MB", "must be a whole number, at least 1"),
        ("LEASE_SECS", "2", "must be at least 3"),
        ("DEBUG", "maybe", "must be 1 or 0"),
        ("INSTALL_FAILURE", "ignore", "must be one of continue, fail"),
        ("SANDBOX", "none", "must be one of process"),
        ("LOG_LEVEL", "loud", "must be one of debug, info, warning, error"),
        ("SECRET_KEY", "short", "must have at least 32 characters"),
        ("STATE_DIR", "/dev/null", "must name a folder"),
        ("AUTHORIZED_HOTKEYS", ",", "must list at least one entry"),
        ("AUTHORIZED_HOTKEYS", f"{HOTKEY},{HOTKEY}x", "entry 2 of 2 is not an SS58 address"),
        ("DATABASE_URL", "mysql://localhost/x", "must be a postgres:// address"),
        ("SECRET_KEY_FILE", "/nowhere/at/all", "cannot be read"),
    ],
)
def test_unusable_value_stops_the_start_naming_the_variable(
    tmp_path: Path, name: str, value: str, why: str
) -> None:
    ended = start(tmp_path, **{name: value})

    assert ended.returncode == 1
    assert ended.stderr.startswith(f"term-executor cannot start. {name}: ")
    assert why in ended.stderr
    assert "Traceback" not in ended.stderr


def test_refused_hotkey_is_not_echoed(tmp_path: Path) -> None:
    ended = start(tmp_path, AUTHORIZED_HOTKEYS="5SomebodysTypo")

    assert "5SomebodysTypo" not in ended.stderr + ended.stdout


def test_value_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "port").write_text("eighty\n")

    ended = start(tmp_path, PORT_FILE=str(tmp_path / "port"))

    assert ended.stderr.startswith("term-executor cannot start. PORT: ")


def test_secret_key_is_made_once_and_kept_for_the_owner_alone(tmp_path: Path) -> None:
    assert start(tmp_path).returncode == 0
    key = tmp_path / "state" / "secret.key"
    first = key.read_text()

    assert start(tmp_path).returncode == 0

    assert len(first.strip()) >= 32
    assert key.read_text() == first
    assert key.stat().st_mode & 0o777 == 0o600


def test_documentation_lists_exactly_the_variables_that_are_read() -> None:
    source = (ROOT / "executor_site" / "settings.py").read_text()
    page = (ROOT / "docs" / "settings.md").read_text()

    read = re.findall(r'env\.\w+\(\s*"([A-Z_]+)"', source)

    assert sorted(re.findall(r"^### ([A-Z_]+)$", page, re.MULTILINE)) == sorted(read)


def test_documentation_gives_the_defaults_that_are_in_force() -> None:
    page = (ROOT / "docs" / "settings.md").read_text()
    documented = dict(re.findall(r"^### ([A-Z_]+)\nDefault `([^`]+)`", page, re.MULTILINE))
    code = "\n".join(
        [
            "from executor_site import settings as s",
            f"names = {sorted(documented)}",
            "one = lambda v: ','.join(v) if isinstance(v, (list, tuple)) else v",
            "print('\\n'.join(f'{n}={one(getattr(s, n))}' for n in names))",
        ]
    )

    shown = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "SECRET_KEY": "x" * 32},
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    in_force = dict(line.split("=", 1) for line in shown.splitlines())
    in_force["STATE_DIR"] = f"./{Path(in_force['STATE_DIR']).relative_to(ROOT)}"
    in_force["LOG_LEVEL"] = in_force["LOG_LEVEL"].lower()
    in_force |= {
        name: "01"[value == "True"]
        for name, value in in_force.items()
        if value in ("True", "False")
    }
    assert in_force == documented
