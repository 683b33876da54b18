"""What a command printed: the beginning and the end of it, in constant memory."""

import fcntl
import os

CHUNK = 256 * 1024


class HeadAndTail:
    """Keeps the first and the last half of ``keep`` bytes and counts all of them."""

    def __init__(self, keep: int) -> None:
        self.total = 0
        self._head_size = keep // 2
        self._tail_size = keep - self._head_size
        self._head = bytearray()
        self._tail = bytearray()

    def feed(self, data: memoryview) -> None:
        self.total += len(data)
        room = self._head_size - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        if len(data) > self._tail_size:
            data = data[len(data) - self._tail_size :]
        self._tail += data
        # Cut at twice the size only: moving bytes for each chunk would make a flood expensive.
        if len(self._tail) > 2 * self._tail_size:
            self._cut()

    @property
    def head(self) -> bytes:
        return bytes(self._head)

    @property
    def tail(self) -> bytes:
        self._cut()
        return bytes(self._tail)

    def _cut(self) -> None:
        del self._tail[: max(0, len(self._tail) - self._tail_size)]


class Pump:
    """Moves what is in a pipe into ``kept``, one non-blocking read at a time."""

    def __init__(self, pipe: int, kept: HeadAndTail) -> None:
        os.set_blocking(pipe, False)
        self.pipe = pipe
        self._buffer = bytearray(CHUNK)
        self.kept = kept

    def read(self) -> bool:
        """Read once; False when there is nothing to read now or ever again."""
        try:
            size = os.readv(self.pipe, [self._buffer])
        except BlockingIOError:
            return False
        with memoryview(self._buffer) as view, view[:size] as data:
            self.kept.feed(data)
        return size > 0

    def drain(self) -> None:
        """Read what the pipe still holds once its writers are dead.

        No more than a pipe can hold: a writer that got the pipe passed on to
        it from elsewhere must not keep us here.
        """
        left = fcntl.fcntl(self.pipe, fcntl.F_GETPIPE_SZ)
        before = self.kept.total
        while self.kept.total - before <= left and self.read():
            pass
