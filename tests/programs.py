"""Programs that not every machine has: where they are, and how a test does without."""

import shutil
from pathlib import Path

import pytest
from django.conf import settings

LIST = Path(__file__).parent.parent / "scripts" / "system-packages"


def listed() -> dict[str, list[str]]:
    """Every program of the list with the packages that bring it."""
    lines = [line.split() for line in LIST.read_text().splitlines()]
    return {words[1]: words[2:] for words in lines if words and words[0] != "#"}


def path_of(program: str) -> str | None:
    """Where tasks would find ``program``, or ``None``."""
    return shutil.which(program, path=settings.TASK_PATH)


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skip a test where one of ``programs`` is missing, with the line that installs it."""
    missing = [program for program in programs if path_of(program) is None]
    packages = [package for program in missing for package in listed()[program]]
    debian = [package for package in packages if not package.startswith("npm:")]
    npm = [package.removeprefix("npm:") for package in packages if package.startswith("npm:")]
    lines = []
    if debian:
        lines.append(f"sudo apt-get install -y {' '.join(debian)}")
    if npm:
        lines.append(f"sudo npm install -g --prefix /usr/local {' '.join(npm)}")
    reason = f"{', '.join(missing)} not found; to install: {' && '.join(lines)}"
    return pytest.mark.skipif(bool(missing), reason=reason)
