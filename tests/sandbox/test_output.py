"""The beginning and the end of an output, kept in constant memory."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batches.sandbox.output import HeadAndTail, Pump


@given(st.lists(st.binary(max_size=40)), st.integers(0, 60))
def test_first_and_last_half_are_kept_however_the_output_is_cut(
    chunks: list[bytes], keep: int
) -> None:
    everything = b"".join(chunks)
    kept = HeadAndTail(keep)

    for chunk in chunks:
        kept.feed(memoryview(chunk))

    head, rest = everything[: keep // 2], everything[keep // 2 :]
    tail = rest[max(0, len(rest) - (keep - keep // 2)) :]
    assert (kept.head, kept.tail, kept.total) == (head, tail, len(everything))


def test_memory_stays_below_a_few_times_what_is_kept() -> None:
    kept = HeadAndTail(1000)
    chunk = memoryview(b"x" * 4096)

    for _ in range(1000):
        kept.feed(chunk)

    assert len(kept._tail) <= 2 * 500
    assert (kept.total, len(kept.head), len(kept.tail)) == (4_096_000, 500, 500)


@pytest.mark.parametrize("written", [0, 1, 65536])
def test_drain_takes_what_is_left_and_does_not_wait_for_more(written: int) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"x" * written)
    pump = Pump(reading, HeadAndTail(100_000))

    pump.drain()

    assert pump.kept.total == written
    os.close(reading)
    os.close(writing)
