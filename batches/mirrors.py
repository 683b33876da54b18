"""Mirrors: bare repositories on this disk that hold the commits that tasks start from."""

import fcntl
import hashlib
import os
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from batches.faults import InfraFault, TaskFault

FULL_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
ABBREVIATED_COMMIT = re.compile(r"[0-9a-f]{4,63}")

PASSING_TROUBLE = re.compile(
    r"could not resolve host|connection (refused|reset|timed out)|failed to connect|"
    r"operation timed out|early eof|the remote end hung up|rpc failed|network is unreachable|"
    r"returned error: (429|5\d\d)|no space left|unable to create temporary|temporary failure",
    re.IGNORECASE,
)
"""What git says when trying again may help."""


GIT_CONFIG = """\
[safe]
    directory = *
[gc]
    auto = 0
[maintenance]
    auto = false
"""
"""In a file, since the serving side of a local fetch drops settings given by environment.

Mirrors are not tidied behind our back: that would go on after their lock is given up.
"""

DIES_WITH_US = ("setpriv", "--pdeathsig", "TERM")
ORPHAN_SECONDS = 5
"""How long a git whose worker was killed may outstay the time of its call."""


@dataclass(frozen=True)
class Source:
    """A commit and the mirror on this disk that has it."""

    mirror: Path
    commit: str


class Mirrors:
    """Bare repositories under ``folder``, one for each address, filled with what tasks ask for.

    ``timeout_seconds`` bounds one whole call of ``source``; ``cancel`` ends it early.
    """

    def __init__(self, folder: Path, timeout_seconds: float, cancel: threading.Event) -> None:
        self._folder = folder
        self._deadline = time.monotonic() + timeout_seconds
        self._timeout_seconds = timeout_seconds
        self._cancel = cancel
        self._lock: int | None = None

    def source(self, url: str, wanted: str | None) -> Source:
        """Have ``wanted`` (a commit, branch or tag; the default branch when ``None``) in a mirror.

        A commit that is already there costs no network. Raises ``TaskFault``
        when the repository does not have it, ``InfraFault`` when that could not be found out.
        """
        digest = hashlib.sha256(url.encode()).hexdigest()[:24]
        mirror = self._folder / f"{digest}.git"
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._locked(mirror.with_suffix(".lock")):
            if not mirror.exists():
                self._make(mirror)
            if wanted is not None and FULL_COMMIT.fullmatch(wanted) and self._has(mirror, wanted):
                return Source(mirror, wanted)
            return Source(mirror, self._fetch(mirror, url, wanted))

    def _make(self, mirror: Path) -> None:
        """An empty mirror, complete or not at all."""
        with tempfile.TemporaryDirectory(dir=self._folder) as draft:
            made = self._git("init", "--quiet", "--bare", "--template=", f"{draft}/mirror")
            if made.returncode != 0:
                raise InfraFault(f"no mirror could be made: {last_line(made.output)}")
            Path(draft, "mirror").rename(mirror)

    def _fetch(self, mirror: Path, url: str, wanted: str | None) -> str:
        remove_leftovers(mirror)
        commit = wanted if wanted and FULL_COMMIT.fullmatch(wanted) else self._look_up(url, wanted)
        if commit is not None:
            exact = self._git(
                *("-C", str(mirror), "fetch", "--quiet", "--depth=1", "--no-tags"),
                *("--no-write-fetch-head", "--", url, f"+{commit}:refs/wanted/{commit}"),
            )
            if exact.returncode == 0 and self._has(mirror, commit):
                return commit
            self._give_up_on_passing_trouble(exact.output)
        # Not every server hands out a commit by its number, and an abbreviated
        # number means nothing to any of them: have everything, and look in it.
        shallow = (mirror / "shallow").exists()
        whole = self._git(
            *("-C", str(mirror), "fetch", "--quiet", "--no-tags", "--no-write-fetch-head"),
            *(["--unshallow"] if shallow else []),
            *("--", url, "+refs/*:refs/all/*"),
        )
        if whole.returncode != 0:
            self._give_up_on_passing_trouble(whole.output)
            raise TaskFault(f"{url} cannot be fetched: {last_line(whole.output)}")
        named = self._git(
            *("-C", str(mirror), "rev-parse", "--verify", "--quiet", "--end-of-options"),
            f"{commit or wanted}^{{commit}}",
        )
        if named.returncode != 0:
            raise TaskFault(f"commit {wanted} is not in {url}")
        found = named.output.strip()
        self._git("-C", str(mirror), "update-ref", f"refs/wanted/{found}", found)
        return found

    def _look_up(self, url: str, wanted: str | None) -> str | None:
        """The commit that a branch or tag of the remote names; ``None`` when it names neither."""
        name = wanted or "HEAD"
        listed = self._git("ls-remote", "--quiet", "--", url, name, f"{name}^{{}}")
        if listed.returncode != 0:
            self._give_up_on_passing_trouble(listed.output)
            raise TaskFault(f"{url} cannot be read: {last_line(listed.output)}")
        refs = {}
        for line in listed.output.splitlines():
            commit, _, ref = line.partition("\t")
            refs[ref] = commit
        # An annotated tag is listed twice; the second line, with ^{}, is its commit.
        for ref in (f"refs/tags/{name}^{{}}", f"refs/tags/{name}", f"refs/heads/{name}", name):
            if ref in refs:
                return refs[ref]
        if wanted is None:
            raise TaskFault(f"{url} has no default branch")
        if not ABBREVIATED_COMMIT.fullmatch(wanted):
            raise TaskFault(f"branch or tag {wanted} is not in {url}")
        return None

    def _has(self, mirror: Path, commit: str) -> bool:
        """Whether the commit was fetched to the end.

        Its ref says so, which git writes last. The object alone does not: it
        may be all that came before a fetch was killed.
        """
        found = self._git(
            *("-C", str(mirror), "rev-parse", "--verify", "--quiet"),
            f"refs/wanted/{commit}^{{commit}}",
        )
        return found.returncode == 0

    def _give_up_on_passing_trouble(self, output: str) -> None:
        if PASSING_TROUBLE.search(output):
            raise InfraFault(f"the repository could not be fetched: {last_line(output)}")

    def _git(self, *arguments: str) -> "Answer":
        """Run git with nothing of its surroundings: no user's configuration, no prompt, no helper.

        The output goes to a file, since a hostile server decides how long it is.
        The death of the thread that waits for it reaches ``timeout`` as a SIGTERM, which it
        passes on to git and its helpers. Until they are dead they keep the mirror's lock with
        the descriptor that they inherit; whatever ignores the signal runs out of time.
        """
        left = max(self._deadline - time.monotonic(), 0) + ORPHAN_SECONDS
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                [*DIES_WITH_US, "timeout", "-s", "KILL", f"{left:.1f}", "git", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=() if self._lock is None else (self._lock,),
                env=git_environment(self._folder),
            )
            try:
                self._wait(process)
            except BaseException:
                kill_group(process)
                raise
            output.seek(0)
            text = output.read(64 * 1024).decode("utf-8", errors="replace")
        return Answer(process.returncode, text)

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        while True:
            try:
                process.wait(timeout=0.2)
            except subprocess.TimeoutExpired:
                self._check_time()
            else:
                return

    def _check_time(self) -> None:
        if self._cancel.is_set():
            raise InfraFault("the fetch was called off")
        if time.monotonic() > self._deadline:
            raise TaskFault(
                f"the repository could not be fetched within {self._timeout_seconds:g} seconds"
            )

    @contextmanager
    def _locked(self, path: Path) -> Iterator[None]:
        """One fetch for each address at a time, over all processes of this host."""
        with path.open("a") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    self._check_time()
                    time.sleep(0.05)
            self._lock = file.fileno()
            try:
                yield
            finally:
                self._lock = None


@dataclass(frozen=True)
class Answer:
    """What a git command said."""

    returncode: int
    output: str


def remove_leftovers(mirror: Path) -> None:
    """Remove what a git that was killed in mid-fetch left behind: its locks would stop every other."""
    for pattern in ("*.lock", "refs/**/*.lock", "objects/pack/tmp_*"):
        for path in mirror.glob(pattern):
            path.unlink()


def git_environment(home: Path) -> dict[str, str]:
    """The environment for git commands of the server itself."""
    config = home / "gitconfig"
    if not config.exists():
        # Put in place complete: another thread may be about to read it.
        draft = home / f".gitconfig.{os.getpid()}.{threading.get_ident()}"
        draft.write_text(GIT_CONFIG, encoding="ascii")
        draft.rename(config)
    passed = ("PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO")
    proxies = ("http_proxy", "https_proxy", "no_proxy", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")
    return {
        **{name: os.environ[name] for name in (*passed, *proxies) if name in os.environ},
        "HOME": str(home),
        "LC_ALL": "C",
        "GIT_CONFIG_GLOBAL": str(config),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "/bin/false",
        "GIT_ALLOW_PROTOCOL": "https:http:git:file",
        "GIT_OPTIONAL_LOCKS": "0",
    }


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads its own group, and its helpers with it."""
    try:
        os.killpg(process.pid, 9)
    except ProcessLookupError:
        pass
    process.wait()


def last_line(output: str) -> str:
    """The line of git's output that says what was wrong."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("fatal:", "error:", "remote: error"))]
    return (telling or lines or ["git said nothing"])[0][:300]
