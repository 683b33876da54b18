"""The limits, held against what really comes out while it comes out."""

import dataclasses
from collections.abc import Callable

import pytest

from batches.archive.specs import Limits, Submission
from tests.archive.builders import (
    GOOD,
    LIMITS,
    ZipEntry,
    pax,
    raw_tar,
    raw_zip,
    tar_member,
    tarred,
    tgz,
    zipped,
)

GOOD_FILES = len(GOOD) + len(["tasks", "tasks/one", "tasks/one/tests", "agent_code"])
GOOD_BYTES = sum(map(len, GOOD.values()))

TOO_MANY = ("archive", f"holds more than {GOOD_FILES} files and folders; remove what is not needed")
FORMATS = {"zip": zipped, "tar": tarred, "tar.gz": tgz}


def too_large(limit: int) -> tuple[str, str]:
    return ("archive", f"unpacks to more than {limit} bytes; remove what is not needed")


def limits(**changes: int) -> Limits:
    return dataclasses.replace(LIMITS, **changes)


@pytest.mark.parametrize("pack", FORMATS.values(), ids=FORMATS)
def test_limits_may_be_reached(
    pack: Callable[..., bytes], accept: Callable[..., Submission]
) -> None:
    submission = accept(pack(GOOD), limits(max_files=GOOD_FILES, max_unpacked_bytes=GOOD_BYTES))

    assert len(submission.tasks) == 1


@pytest.mark.parametrize("pack", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("extra", ["agent_code/x", "README.md", ".DS_Store", "tasks/one/tests/a"])
def test_one_more_file_is_one_too_many_even_where_it_is_ignored(
    pack: Callable[..., bytes], extra: str, refuse: Callable[..., list[tuple[str, str]]]
) -> None:
    assert refuse(pack({**GOOD, extra: b""}), limits(max_files=GOOD_FILES)) == [TOO_MANY]


FOLDERS = {
    "listed in a zip": raw_zip(ZipEntry(b"agent_code/a/")),
    "known from a file": raw_tar(tar_member("agent_code/a/b")),
    "listed in a tar": raw_tar(tar_member("agent_code/a/", kind=b"5")),
    "the same again and again": raw_tar(*[tar_member("tasks/", kind=b"5")] * 50),
    "the top again and again": raw_tar(*[tar_member("./", kind=b"5")] * 50),
}


@pytest.mark.parametrize("data", FOLDERS.values(), ids=FOLDERS)
def test_folders_count_as_files(data: bytes, refuse: Callable[..., list[tuple[str, str]]]) -> None:
    assert refuse(data, limits(max_files=GOOD_FILES)) == [TOO_MANY]


@pytest.mark.parametrize("pack", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("name", ["agent_code/x", "README.md", "agent_code/.DS_Store"])
def test_bytes_are_counted_wherever_they_go(
    pack: Callable[..., bytes], name: str, refuse: Callable[..., list[tuple[str, str]]]
) -> None:
    data = pack({**GOOD, name: b"\0"})

    assert refuse(data, limits(max_unpacked_bytes=GOOD_BYTES)) == [too_large(GOOD_BYTES)]


def test_bytes_of_refused_members_are_counted_too(
    refuse: Callable[..., list[tuple[str, str]]],
) -> None:
    data = raw_tar(tar_member("../x", bytes(1000)))

    assert refuse(data, limits(max_unpacked_bytes=900)) == [too_large(900)]


def test_extended_headers_are_counted_as_content(
    refuse: Callable[..., list[tuple[str, str]]],
) -> None:
    flood = (pax({"comment": "x" * 100_000}) + tar_member("docs/x")) + tar_member("docs/y")

    assert refuse(raw_tar(flood), limits(max_unpacked_bytes=90_000)) == [too_large(90_000)]


@pytest.mark.parametrize("pack", FORMATS.values(), ids=FORMATS)
def test_archive_that_inflates_too_much_is_refused(
    pack: Callable[..., bytes], refuse: Callable[..., list[tuple[str, str]]]
) -> None:
    data = pack({**GOOD, "agent_code/zeros": bytes(3_000_000)})
    expected = (
        "archive",
        "unpacks to more than 0 times its size; leave out large files that compress to nothing",
    )

    assert refuse(data, limits(max_ratio=0, ratio_free_bytes=2_000_000)) == [expected]


def test_ratio_counts_only_beyond_the_free_bytes(accept: Callable[..., Submission]) -> None:
    data = zipped({**GOOD, "agent_code/zeros": bytes(3_000_000)})

    submission = accept(data, limits(max_ratio=1, ratio_free_bytes=3_001_000))

    assert (submission.root / "agent_code/zeros").stat().st_size == 3_000_000


def test_bomb_in_a_zip_that_understates_its_size_is_stopped_at_what_it_said(
    refuse: Callable[..., list[tuple[str, str]]],
) -> None:
    data = raw_zip(ZipEntry(b"agent_code/x", bytes(10_000_000), unpacked_bytes=10))

    assert refuse(data, limits(max_unpacked_bytes=100_000)) == [
        ("agent_code/x", "is damaged in the archive; pack it again")
    ]
