"""Published releases of real projects: fetched with the registries' own clients, made into repositories."""

import fcntl
import shutil
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.programs import path_of
from tests.whole.archives import commit, git

TRIES = 3
DOWNLOAD_SECONDS = 150


@dataclass(frozen=True)
class Project:
    """Two consecutive releases of a project, and what proves that the newer one mends something.

    ``red`` and ``green`` are what its tests print at the older and at the newer
    release: a test that could not run at all would be just as red as one that found the fault.
    """

    name: str
    client: str
    old: str
    new: str
    prompt: str
    install: tuple[str, ...]
    test: str
    tests: str | None
    """The folder with its own tests; those of the newer release are the task's."""
    red: str
    green: str


@dataclass(frozen=True)
class History:
    """A repository with both releases, the newer one on its branch; the task starts from ``old``."""

    folder: Path
    old: str
    new: str

    def fix(self, tests: str | None) -> bytes:
        """What the newer release changed, but for its ``tests``."""
        patch = self.folder.with_suffix(".diff")
        left_out = [f":(exclude){tests}"] if tests else []
        # Not taken from the standard output, which would be read as text.
        git(
            *(self.folder, "diff", "--binary", f"--output={patch}", self.old, self.new),
            *("--", ".", *left_out),
        )
        return patch.read_bytes()

    def files(self, folder: str) -> dict[str, bytes]:
        """The files of the newer release below ``folder``, by their paths in the repository."""
        found = [path for path in (self.folder / folder).rglob("*") if path.is_file()]
        return {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in found}

    def objects(self) -> int:
        """How many objects a clone has that knows the older release and nothing else."""
        return len(git(self.folder, "rev-list", "--objects", "--no-walk", self.old).splitlines())


def make_histories(
    projects: Iterable[Project], downloads: Path, repositories: Path
) -> dict[str, History]:
    """A repository for each project; what is in ``downloads`` already is not fetched again."""
    wanted = [(project, version) for project in projects for version in (project.old, project.new)]
    downloads.mkdir(exist_ok=True)
    # Several processes that run tests share the folder: the first one fetches for all.
    with (downloads / "lock").open("w") as lock, ThreadPoolExecutor(len(wanted)) as pool:
        fcntl.flock(lock, fcntl.LOCK_EX)
        fetched = list(pool.map(lambda pair: fetch(pair[0], pair[1], downloads), wanted))
    histories = {}
    for (project, _), old, new in zip(wanted[::2], fetched[::2], fetched[1::2], strict=True):
        folder = repositories / project.name
        folder.mkdir()
        git(folder, "init", "--quiet", "--initial-branch=main")
        commits = [commit_release(folder, release) for release in (old, new)]
        histories[project.name] = History(folder, *commits)
    return histories


def fetch(project: Project, version: str, downloads: Path) -> Path:
    """The archive of one release. Fails the test, with what the client said, when it cannot be had."""
    folder = downloads / f"{project.name}-{version}"
    said = ""
    for _ in range(TRIES):
        if archives := [*folder.glob("*.tar.gz"), *folder.glob("*.tgz")]:
            return archives[0]
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        said = download(download_command(project, version), folder)
    pytest.fail(
        f"{project.name} {version} could not be downloaded with {project.client}, which this test "
        f"needs; can this machine reach the package registry? {project.client} said:\n{said}",
        pytrace=False,
    )


def download(command: list[str], folder: Path) -> str:
    """Run a client in ``folder``; what it said. A file is only left there if it succeeded."""
    draft = folder / "draft"
    draft.mkdir(exist_ok=True)
    try:
        ended = subprocess.run(
            command,
            cwd=draft,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=DOWNLOAD_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"nothing for {DOWNLOAD_SECONDS} s"
    if ended.returncode == 0:
        for path in draft.iterdir():
            path.rename(folder / path.name)
    return ended.stdout[-2000:]


def download_command(project: Project, version: str) -> list[str]:
    match project.client:
        case "pip":
            # Of this project only: what its build needs may come ready made.
            source = ("--no-deps", "--no-binary", project.name)
            wanted = f"{project.name}=={version}"
            return [sys.executable, "-m", "pip", "download", "--quiet", *source, wanted]
        case "npm":
            patience = ("--fetch-timeout=20000", "--fetch-retry-mintimeout=1000")
            return [path_of("npm") or "npm", "pack", *patience, f"{project.name}@{version}"]
        case client:
            raise ValueError(f"no way is known to download with {client}")


def commit_release(folder: Path, archive: Path) -> str:
    """Make ``folder`` hold what ``archive`` does, and nothing else, and commit that."""
    for path in folder.iterdir():
        if path.name == ".git":
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    unpack = ("tar", "-xzf", str(archive), "--strip-components=1", "--no-same-owner")
    subprocess.run([*unpack, "-C", str(folder)], check=True)
    return commit(folder, archive.name)
