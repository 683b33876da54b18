"""Mirrors, filled from real servers that behave in every way."""

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from batches.faults import InfraFault, TaskFault
from batches.mirrors import Mirrors, Source
from tests.whole.archives import commit, git

ROOT = Path(__file__).resolve().parents[1]
NOWHERE = "f" * 40


class OldServer:
    """A git server without the second protocol: it hands out what its branches and tags name, no more.

    ``stalls_after`` makes it fall silent after so many bytes of each answer, until it may ``go_on``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stalls_after: int | None = None
        self.asked = 0
        self.go_on = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.url = f"git://127.0.0.1:{self.port}/origin"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.go_on.set()
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self.asked += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            length = int(connection.recv(4, socket.MSG_WAITALL), 16)
            connection.recv(length - 4, socket.MSG_WAITALL)
            serving = subprocess.Popen(
                ["git", "upload-pack", str(self.folder)],
                stdin=connection,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            assert serving.stdout is not None
            sent = 0
            try:
                while data := os.read(serving.stdout.fileno(), 10_000):
                    connection.sendall(data)
                    sent += len(data)
                    if self.stalls_after is not None and sent > self.stalls_after:
                        self.go_on.wait()
            except OSError:
                pass  # the client left
            finally:
                serving.kill()
                serving.wait()
                serving.stdout.close()


class Daemon:
    """``git daemon`` over a folder of repositories."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"git://127.0.0.1:{port}"
        self._process = subprocess.Popen(
            [
                *("git", "daemon", "--export-all", "--reuseaddr", "--listen=127.0.0.1"),
                *(f"--port={port}", f"--base-path={folder}", str(folder)),
            ],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_for_port(port)

    def close(self) -> None:
        os.killpg(self._process.pid, 15)
        self._process.wait()


def wait_for_port(port: int) -> None:
    for _ in range(400):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"nobody listens on {port}")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A repository with three commits, two branches and two kinds of tag: its folder, and their commits."""
    folder = tmp_path_factory.mktemp("repositories") / "origin"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch=main")
    (folder / "big").write_bytes(os.urandom(300_000))
    commits = {"folder": str(folder), "first": commit(folder)}
    git(folder, "tag", "light")
    (folder / "number").write_text("2\n")
    commits["second"] = commit(folder)
    git(folder, "tag", "--annotate", "--message=two", "annotated")
    git(folder, "checkout", "--quiet", "-b", "feature/x", "light")
    commits["side"] = commit(folder)
    git(folder, "checkout", "--quiet", "--detach")
    commits["lost"] = commit(folder)  # on no branch: known by its number alone
    git(folder, "checkout", "--quiet", "main")
    commits["third"] = commit(folder)
    return commits


@pytest.fixture
def origin(made: dict[str, str], tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    folder = tmp_path / "served" / "origin"
    shutil.copytree(made["folder"], folder)
    return folder


@pytest.fixture
def daemon(origin: Path) -> Iterator[Daemon]:
    server = Daemon(origin.parent)
    yield server
    server.close()


@pytest.fixture
def old_server(origin: Path) -> Iterator[OldServer]:
    server = OldServer(origin)
    yield server
    server.close()


def mirrors(tmp_path: Path, timeout_seconds: float = 60) -> Mirrors:
    return Mirrors(tmp_path / "mirrors", timeout_seconds, threading.Event())


def content(source: Source) -> list[str]:
    """The files of the commit, read from the mirror."""
    return git(source.mirror, "ls-tree", "--name-only", source.commit).splitlines()


@pytest.mark.parametrize("served", ["file", "daemon", "old_server"])
@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("{third}", "third"),
        ("{first}", "first"),
        ("{second:.7}", "second"),
        ("main", "third"),
        ("feature/x", "side"),
        ("light", "first"),
        ("annotated", "second"),
        (None, "third"),
    ],
    ids=["tip", "old commit", "short", "branch", "side", "light tag", "annotated tag", "default"],
)
def test_commit_is_had_by_every_name(
    made: dict[str, str],
    origin: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    served: str,
    wanted: str | None,
    found: str,
) -> None:
    url = {
        "file": lambda: f"file://{origin}",
        "daemon": lambda: request.getfixturevalue("daemon").url + "/origin",
        "old_server": lambda: request.getfixturevalue("old_server").url,
    }[served]()

    source = mirrors(tmp_path).source(url, wanted and wanted.format(**made))

    assert source.commit == made[found]
    assert content(source) == (["big"] if found in ("first", "side") else ["big", "number"])


def test_only_the_wanted_commit_is_fetched(
    made: dict[str, str], daemon: Daemon, tmp_path: Path
) -> None:
    source = mirrors(tmp_path).source(f"{daemon.url}/origin", made["second"])

    everything = git(source.mirror, "rev-list", "--all")
    assert everything.splitlines() == [made["second"]]


def test_commit_on_no_branch_is_had_by_its_number(
    made: dict[str, str], daemon: Daemon, tmp_path: Path
) -> None:
    assert mirrors(tmp_path).source(f"{daemon.url}/origin", made["lost"]).commit == made["lost"]


@pytest.mark.parametrize("wanted", [NOWHERE, "ffff", "no-such-branch"])
@pytest.mark.parametrize("served", ["file", "daemon", "old_server"])
def test_commit_that_is_not_there_is_the_tasks_fault(
    origin: Path, tmp_path: Path, request: pytest.FixtureRequest, served: str, wanted: str
) -> None:
    url = {
        "file": lambda: f"file://{origin}",
        "daemon": lambda: request.getfixturevalue("daemon").url + "/origin",
        "old_server": lambda: request.getfixturevalue("old_server").url,
    }[served]()

    with pytest.raises(TaskFault, match=f"(commit|branch or tag) {wanted} is not in"):
        mirrors(tmp_path).source(url, wanted)


def test_repository_that_is_not_there_is_the_tasks_fault(daemon: Daemon, tmp_path: Path) -> None:
    for url in (f"{daemon.url}/nothing", f"file://{tmp_path}/nothing"):
        for wanted in (NOWHERE, "main", None):
            with pytest.raises(TaskFault, match="cannot be (fetched|read)"):
                mirrors(tmp_path).source(url, wanted)


def test_empty_repository_has_no_default_branch(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    git(tmp_path / "empty", "init", "--quiet")

    with pytest.raises(TaskFault, match="has no default branch"):
        mirrors(tmp_path).source(f"file://{tmp_path}/empty", None)


@pytest.mark.parametrize("wanted", [NOWHERE, "main", None])
def test_server_that_cannot_be_reached_is_our_trouble(tmp_path: Path, wanted: str | None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    for scheme in ("git", "http"):
        with pytest.raises(InfraFault, match="could not be fetched"):
            mirrors(tmp_path).source(f"{scheme}://127.0.0.1:{port}/x", wanted)


def test_server_that_never_answers_is_given_up_and_nothing_is_left_running(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x"

        with pytest.raises(TaskFault, match="could not be fetched within 1 seconds"):
            mirrors(tmp_path, timeout_seconds=1).source(url, "main")

    wait_until(lambda: running_with(url) == [])


def test_fetch_that_is_called_off_ends_at_once(tmp_path: Path) -> None:
    cancel = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x"
        threading.Timer(0.5, cancel.set).start()

        with pytest.raises(InfraFault, match="called off"):
            Mirrors(tmp_path / "mirrors", 600, cancel).source(url, "main")

    wait_until(lambda: running_with(url) == [])


def wait_until(look: Callable[[], bool]) -> None:
    for _ in range(400):
        if look():
            return
        time.sleep(0.05)
    raise AssertionError("waited 20 s in vain")


def running_with(argument: str) -> list[bytes]:
    """Command lines of processes on this machine that name ``argument``."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if argument.encode() in line:
                found.append(line)
    return found


def test_mirror_is_none_the_worse_for_a_fetch_that_was_killed(
    made: dict[str, str], old_server: OldServer, tmp_path: Path
) -> None:
    old_server.stalls_after = 100_000
    with pytest.raises(TaskFault, match="could not be fetched within"):
        mirrors(tmp_path, timeout_seconds=1.5).source(old_server.url, made["third"])
    (mirror,) = (tmp_path / "mirrors").glob("*.git")
    assert list(mirror.glob("**/*.lock")) == [mirror / "shallow.lock"]
    old_server.stalls_after = None

    source = mirrors(tmp_path).source(old_server.url, made["third"])

    assert content(source) == ["big", "number"]
    assert list(mirror.glob("**/*.lock")) == list(mirror.glob("**/tmp_*")) == []


def test_git_ends_with_the_worker_that_waits_for_it(
    made: dict[str, str], old_server: OldServer, tmp_path: Path
) -> None:
    old_server.stalls_after = 100_000
    program = (
        "import pathlib, threading; from batches.mirrors import Mirrors; "
        f"mirrors = Mirrors(pathlib.Path({str(tmp_path)!r}) / 'mirrors', 600, threading.Event()); "
        f"mirrors.source({old_server.url!r}, {made['third']!r})"
    )
    worker = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    wait_until(lambda: list(tmp_path.glob("mirrors/*.git/shallow.lock")) != [])

    worker.kill()
    worker.wait()

    wait_until(lambda: running_with(old_server.url) == [])
    old_server.stalls_after = None
    assert mirrors(tmp_path).source(old_server.url, made["third"]).commit == made["third"]


def test_commit_that_was_fetched_once_costs_no_network(
    made: dict[str, str], old_server: OldServer, origin: Path, tmp_path: Path
) -> None:
    first = mirrors(tmp_path).source(old_server.url, made["third"])
    asked = old_server.asked
    shutil.rmtree(origin)

    again = mirrors(tmp_path).source(old_server.url, made["third"])

    assert again == first
    assert old_server.asked == asked


def test_branch_that_moved_is_followed(made: dict[str, str], origin: Path, tmp_path: Path) -> None:
    url = f"file://{origin}"
    assert mirrors(tmp_path).source(url, "main").commit == made["third"]
    newer = commit(origin)

    assert mirrors(tmp_path).source(url, "main").commit == newer
    assert mirrors(tmp_path).source(url, made["third"]).commit == made["third"]


def test_one_address_is_fetched_once_by_many_threads(
    made: dict[str, str], old_server: OldServer, tmp_path: Path
) -> None:
    with ThreadPoolExecutor(12) as pool:
        calls = [
            pool.submit(mirrors(tmp_path).source, old_server.url, made["third"]) for _ in range(12)
        ]
        sources = {call.result() for call in calls}

    assert [source.commit for source in sources] == [made["third"]]
    assert old_server.asked == 1


def test_many_addresses_are_fetched_at_once(made: dict[str, str], tmp_path: Path) -> None:
    urls = []
    for number in range(8):
        shutil.copytree(made["folder"], tmp_path / f"copy{number}")
        urls.append(f"file://{tmp_path}/copy{number}")

    with ThreadPoolExecutor(8) as pool:
        sources = list(pool.map(lambda url: mirrors(tmp_path).source(url, "main"), urls))

    assert [source.commit for source in sources] == [made["third"]] * 8
    assert len({source.mirror for source in sources}) == 8


def test_nothing_of_the_origin_runs(made: dict[str, str], origin: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\necho $0 >> {ran}\n")
    program.chmod(0o755)
    for hook in ("post-checkout", "pre-receive", "post-update", "reference-transaction"):
        shutil.copy(program, origin / ".git" / "hooks" / hook)
    for name in ("uploadpack.packObjectsHook", "core.fsmonitor", "core.pager", "core.sshCommand"):
        git(origin, "config", name, str(program))

    for wanted in (made["third"], made["second"][:7], "main"):
        mirrors(tmp_path).source(f"file://{origin}", wanted)

    assert not ran.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another account")
def test_repository_of_another_account_is_fetched(
    made: dict[str, str], origin: Path, tmp_path: Path
) -> None:
    for path in (origin, *origin.rglob("*")):
        os.chown(path, 12345, 12345)

    assert mirrors(tmp_path).source(f"file://{origin}", None).commit == made["third"]


def test_configuration_of_the_server_account_is_not_used(
    made: dict[str, str], origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text('[url "file:///nowhere"]\n\tinsteadOf = file://\n')
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "broken")

    assert mirrors(tmp_path).source(f"file://{origin}", None).commit == made["third"]


def test_fetch_by_the_server_itself_asks_nobody_for_a_password(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(10_000)
                connection.sendall(
                    b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=x\r\n"
                    b"Content-Length: 0\r\nConnection: close\r\n\r\n"
                )

        threading.Thread(target=answer).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/private"

        with pytest.raises(TaskFault, match="cannot be read"):
            mirrors(tmp_path).source(url, "main")
