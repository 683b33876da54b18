"""Memory stays flat, however large what is unpacked is or says it is."""

import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from batches.archive.reader import read_archive
from batches.archive.specs import BadArchive, Limits
from tests.archive.builders import GOOD, ZipEntry, pax, raw_tar, tar_header, tar_member, zip_of

MEGABYTE = 1024 * 1024
SIZE = 200 * MEGABYTE
HUGE = Limits(max_files=1000, max_unpacked_bytes=2**40, max_ratio=2**20)


def gzip_of_zeros(head: bytes, size: int, tail: bytes = b"") -> bytes:
    """Gzip of ``head``, zeros and ``tail``, whose making needs no memory either."""
    squeeze = zlib.compressobj(1, wbits=31)
    zeros = bytes(MEGABYTE)
    packed = [squeeze.compress(head)]
    packed += [squeeze.compress(zeros) for _ in range(size // MEGABYTE)]
    return b"".join([*packed, squeeze.compress(tail), squeeze.flush()])


def write_tgz(path: Path) -> None:
    head = raw_tar(tar_header("agent_code/zeros", size=SIZE), end=b"")
    path.write_bytes(gzip_of_zeros(head, SIZE, bytes(1024)))


def write_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in GOOD.items():
            archive.writestr(name, content)
        with archive.open("agent_code/zeros", "w") as file:
            for _ in range(SIZE // MEGABYTE):
                file.write(bytes(MEGABYTE))


@pytest.fixture
def peak() -> Iterator[Callable[[], int]]:
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


@pytest.mark.parametrize("write", [write_tgz, write_zip])
def test_large_archive_is_unpacked_in_little_memory(
    write: Callable[[Path], None], tmp_path: Path, peak: Callable[[], int]
) -> None:
    write(tmp_path / "archive")
    tracemalloc.reset_peak()

    submission = read_archive(tmp_path / "archive", tmp_path / "out", HUGE)

    assert peak() < 8 * MEGABYTE
    zeros = submission.root / "agent_code/zeros"
    assert zeros.stat().st_size == SIZE
    zeros.unlink()


BOMBS = {
    "extended header": tar_header("x", kind=b"x", size=SIZE),
    "global header": tar_header("x", kind=b"g", size=SIZE),
    "long name": tar_header("x", kind=b"L", size=SIZE),
    "long link": tar_header("x", kind=b"K", size=SIZE),
    "zeros behind the end": bytes(1024),
    "large headers, one after the other": (pax({"comment": "x" * 1_000_000}) + tar_member("docs/x"))
    * 30,
}


@pytest.mark.parametrize("head", BOMBS.values(), ids=BOMBS)
def test_bomb_in_headers_is_refused_in_little_memory(
    head: bytes, tmp_path: Path, peak: Callable[[], int]
) -> None:
    (tmp_path / "archive").write_bytes(gzip_of_zeros(head, SIZE))
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]

    with pytest.raises(BadArchive):
        read_archive(tmp_path / "archive", tmp_path / "out", HUGE)

    assert peak() - before < 8 * MEGABYTE


def test_long_directory_is_read_no_further_than_the_limit(
    tmp_path: Path, peak: Callable[[], int]
) -> None:
    whole = zip_of([ZipEntry(b"x")])
    start = whole.index(b"PK\x01\x02")
    line = whole[start:-22]
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 60_000, 60_000, len(line) * 60_000, start, 0)
    (tmp_path / "archive").write_bytes(whole[:start] + line * 60_000 + end)
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]

    with pytest.raises(BadArchive, match="holds more than 1000 files and folders"):
        read_archive(tmp_path / "archive", tmp_path / "out", HUGE)

    assert peak() - before < MEGABYTE
