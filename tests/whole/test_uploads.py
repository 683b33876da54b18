"""Large uploads to the real server: flat memory, one copy, and nothing stored of a stranger's."""

import io
import os
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.whole.archives import SOLVE, pack, task
from tests.whole.running import HOTKEY, Server, serving

MIB = 1024 * 1024
BOUNDARY = b"a-boundary-between-parts"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("uploads"), MAX_ARCHIVE_BYTES=str(400 * MIB)) as running:
        yield running


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, repo: Path) -> Path:
    """A good archive of 300 MiB: one small task, and an agent with a file that does not compress."""
    path = tmp_path_factory.mktemp("large") / "large.tar"
    small_archive = io.BytesIO(pack({"a": task(repo, SOLVE)}))
    with tarfile.open(path, "w") as archive, tarfile.open(fileobj=small_archive) as small:
        for member in small:
            archive.addfile(member, small.extractfile(member))
        member = tarfile.TarInfo("agent_code/weights.bin")
        member.size = 300 * MIB
        block = os.urandom(MIB)
        archive.addfile(member, Repeated(block, 300))  # type: ignore[arg-type]
    return path


class Repeated:
    """A file that is one block, many times over."""

    def __init__(self, block: bytes, times: int) -> None:
        self.block, self.left, self.ahead = block, times, b""

    def read(self, size: int) -> bytes:
        while len(self.ahead) < size and self.left:
            self.ahead += self.block
            self.left -= 1
        part, self.ahead = self.ahead[:size], self.ahead[size:]
        return part


def form(path: Path) -> Iterator[bytes]:
    """The multipart body that carries ``path``, piece by piece."""
    yield (
        b"--" + BOUNDARY + b"\r\n"
        b'Content-Disposition: form-data; name="archive"; filename="large.tar"\r\n\r\n'
    )
    with path.open("rb") as file:
        while block := file.read(MIB):
            yield block
    yield b"\r\n--" + BOUNDARY + b"--\r\n"


def post(server: Server, path: Path, **headers: str) -> httpx.Response:
    length = path.stat().st_size + sum(len(part) for part in form(Path(os.devnull)))
    return httpx.post(
        f"{server.url}/submit",
        headers={
            "Content-Type": f"multipart/form-data; boundary={BOUNDARY.decode()}",
            "Content-Length": str(length),
            **headers,
        },
        content=form(path),
        timeout=120,
    )


def peak_memory(pid: int) -> int:
    """The most that a process has had in memory, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel does not tell")


def test_upload_of_300_mib_leaves_the_servers_memory_flat(server: Server, large: Path) -> None:
    (pid,) = server.pids("manage.py web")
    server.get("/status")
    before = peak_memory(pid)

    answer = post(server, large, **{"X-Hotkey": HOTKEY})

    grown = peak_memory(pid) - before
    assert answer.status_code == 202, answer.text
    assert grown < 100 * MIB
    (stored,) = (server.state / "archives").iterdir()
    assert stored.stat().st_size == large.stat().st_size
    assert not list((server.state / "incoming").iterdir())
    assert server.ended(answer.json()["batch_id"])["aggregate_reward"] == 1.0


def test_strangers_upload_is_refused_with_nothing_stored(server: Server, large: Path) -> None:
    stored = sorted((server.state / "archives").iterdir())
    started = time.monotonic()

    answer = post(server, large, **{"X-Hotkey": HOTKEY[:-1]})

    assert answer.status_code == 401
    assert time.monotonic() - started < 30
    assert sorted((server.state / "archives").iterdir()) == stored
    assert not list((server.state / "incoming").iterdir())


def test_archive_that_is_too_large_is_told_by_its_length(
    server: Server, large: Path, tmp_path: Path
) -> None:
    larger = tmp_path / "larger.tar"
    with larger.open("wb") as file:
        file.truncate(402 * MIB)

    answer = post(server, larger, **{"X-Hotkey": HOTKEY})

    assert answer.status_code == 400
    assert answer.json() == {
        "error": "archive_too_large",
        "message": f"the archive is larger than {400 * MIB} bytes (MAX_ARCHIVE_BYTES)",
    }
    assert not list((server.state / "incoming").iterdir())
