"""Gzip around a tar, whole, strung together, cut off and damaged."""

import gzip
from collections.abc import Callable

import pytest

from batches.archive.specs import Submission
from tests.archive.builders import GOOD, raw_tar, tarred, zipped

TAR = raw_tar()
GOOD_GZIP = gzip.compress(TAR)

DAMAGED = ("archive", "is damaged: gzip finds an error in it; pack it again")
CUT_OFF = ("archive", "is cut off; upload it again")
BEHIND = ("archive", "has something behind its end that is not gzip; pack it again")
NO_TAR = ("archive", "is damaged: a tar header makes no sense; pack it again")

HOSTILE = {
    "header alone": (GOOD_GZIP[:10], [CUT_OFF]),
    "cut off in the data": (GOOD_GZIP[:-100], [CUT_OFF]),
    "cut off in the checksum": (GOOD_GZIP[:-6], [CUT_OFF]),
    "wrong checksum": (GOOD_GZIP[:-8] + bytes(4) + GOOD_GZIP[-4:], [DAMAGED]),
    "wrong length": (GOOD_GZIP[:-4] + bytes(4), [DAMAGED]),
    "unknown method": (b"\x1f\x8b\x07" + GOOD_GZIP[3:], [DAMAGED]),
    "noise in the data": (GOOD_GZIP[:10] + b"\xff" * 100, [DAMAGED]),
    "garbage behind": (GOOD_GZIP + b"garbage", [BEHIND]),
    "one byte behind": (GOOD_GZIP + b"\x1f", [BEHIND]),
    "zeros behind": (GOOD_GZIP + bytes(512), [BEHIND]),
    "a zip behind": (GOOD_GZIP + zipped(GOOD), [BEHIND]),
    "a second archive behind": (
        GOOD_GZIP * 2,
        [("archive", "goes on behind its end; pack it again")],
    ),
    "a zip inside": (gzip.compress(zipped(GOOD) + bytes(512)), [NO_TAR]),
    "gzip inside gzip": (gzip.compress(GOOD_GZIP + bytes(512)), [NO_TAR]),
    "nothing inside": (gzip.compress(b""), [CUT_OFF]),
    "endless file name": (b"\x1f\x8b\x08\x08" + bytes(6) + b"n" * 1_000_000, [CUT_OFF]),
    "endless empty streams": (
        gzip.compress(b"") * 100_001,
        [("archive", "is made of too many gzip streams; compress it again in one go")],
    ),
}


@pytest.mark.parametrize(("data", "problems"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_gzip_is_refused_without_a_trace(
    data: bytes, problems: list[tuple[str, str]], refuse: Callable[..., list[tuple[str, str]]]
) -> None:
    assert refuse(data) == problems


ODD = {
    "several streams": b"".join(gzip.compress(TAR[i : i + 700]) for i in range(0, len(TAR), 700)),
    "an empty stream first": gzip.compress(b"") + GOOD_GZIP,
    "an empty stream last": GOOD_GZIP + gzip.compress(b""),
    "not compressed at all": gzip.compress(TAR, 0),
    "as the library writes it": gzip.compress(tarred(GOOD)),
}


@pytest.mark.parametrize("data", ODD.values(), ids=ODD)
def test_odd_gzip_is_accepted(data: bytes, accept: Callable[..., Submission]) -> None:
    assert [task.name for task in accept(data).tasks] == ["one"]
