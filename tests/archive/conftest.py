"""How archives are offered to the reader: between neighbours that must not notice."""

from collections.abc import Callable
from pathlib import Path

import pytest

from batches.archive.reader import read_archive
from batches.archive.specs import BadArchive, Limits, Submission
from tests.archive.builders import LIMITS


def snapshot(top: Path) -> dict[str, tuple[int, bytes]]:
    """Everything below ``top``: kind, mode and content."""
    return {
        path.relative_to(top).as_posix(): (
            path.lstat().st_mode,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in sorted(top.rglob("*"))
    }


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder with an innocent neighbour of what is unpacked."""
    (tmp_path / "neighbour").mkdir()
    (tmp_path / "neighbour" / "file").write_text("untouched")
    (tmp_path / "file").write_text("untouched")
    return tmp_path


@pytest.fixture
def accept(desk: Path) -> Callable[..., Submission]:
    def run(data: bytes, limits: Limits = LIMITS) -> Submission:
        (desk / "archive").write_bytes(data)
        return read_archive(desk / "archive", desk / "out", limits)

    return run


@pytest.fixture
def refuse(desk: Path) -> Callable[..., list[tuple[str, str]]]:
    """Offer an archive that has to be refused without a trace; what was said about it."""

    def run(data: bytes, limits: Limits = LIMITS) -> list[tuple[str, str]]:
        (desk / "archive").write_bytes(data)
        before = snapshot(desk)
        with pytest.raises(BadArchive) as caught:
            read_archive(desk / "archive", desk / "out", limits)
        assert snapshot(desk) == before
        return [(problem.file, problem.message) for problem in caught.value.problems]

    return run
