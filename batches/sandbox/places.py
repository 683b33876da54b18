"""An open directory in a tree that strangers left behind, and a walk through such trees.

Nothing here trusts a path of more than one name below its starting point:
every step is taken from an open directory and refuses links. Trees may be
deeper than a path can be long and than Python recurses, and may have taken
permissions away from us. Nobody may be changing a tree while it is handled
here, but if somebody does, a step fails rather than leading elsewhere.
"""

import fcntl
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from batches.sandbox.promise import SandboxError

ENTER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

GET_FLAGS, SET_FLAGS = 0x80086601, 0x40086602
IMMUTABLE_OR_APPEND_ONLY = 0x10 | 0x20


class Place:
    """An open directory to step down from and to climb back to.

    Holds one descriptor however deep it stands: the way back is ``..``, checked
    to be the directory that was left. Directories without the permissions in
    ``need`` are given them on entering and, with ``restore``, lose them on leaving.
    """

    def __init__(self, top: Path, *, need: int = 0o700, restore: bool = False) -> None:
        self.fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.names: list[str] = []
        self._need = need
        self._restore = restore
        self._above: list[tuple[int, int]] = []
        self._modes: list[int | None] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self.fd)

    def listed(self) -> list[str]:
        return os.listdir(self.fd)  # noqa: PTH208 - a descriptor is not a path

    def into(self, name: str) -> None:
        """Step into the directory ``name``, which must not be a link."""
        entered = os.open(name, ENTER, dir_fd=self.fd)
        try:
            mode = stat.S_IMODE(os.fstat(entered).st_mode)
            lacking = mode & self._need != self._need
            if lacking:
                _chmod_even_immutable(entered, mode | self._need)
            below = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=entered)
        finally:
            os.close(entered)
        self._above.append(_identity(self.fd))
        self._modes.append(mode if lacking and self._restore else None)
        self.names.append(name)
        os.close(self.fd)
        self.fd = below

    def up(self, mode: int | None = None) -> str:
        """Climb back, leaving ``mode`` on the directory that is left; returns its name."""
        above = os.open("..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.fd)
        if _identity(above) != self._above.pop():
            os.close(above)
            raise SandboxError("a directory was moved while it was being walked")
        before = self._modes.pop()
        leave = mode if mode is not None else before
        if leave is not None:
            os.fchmod(self.fd, leave)
        os.close(self.fd)
        self.fd = above
        return self.names.pop()


@dataclass
class Found:
    """One thing met by ``walk``. ``parent`` is only open until the walk goes on."""

    names: list[str]
    name: str
    mode: int
    size: int
    parent: int
    descend: bool = True
    """Set it to False to stay out of this directory, for instance because you removed it."""

    @property
    def path(self) -> str:
        return "/".join([*self.names, self.name])


def walk(top: Path) -> Iterator[Found]:
    """Everything below ``top``, directories before what they contain, opened up as needed."""
    with Place(top.parent) as place:
        place.into(top.name)
        pending = [place.listed()]
        while pending:
            if not pending[-1]:
                pending.pop()
                place.up()
                continue
            name = pending[-1].pop()
            status = stat_at(place.fd, name)
            if status is None:
                continue
            found = Found(place.names[1:], name, status.st_mode, status.st_size, place.fd)
            yield found
            if stat.S_ISDIR(status.st_mode) and found.descend:
                place.into(name)
                pending.append(place.listed())


def stat_at(parent: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None


def open_up(path: Path) -> None:
    """Give ourselves all permissions on the directory ``path``, which must not be a link."""
    with Place(path.parent) as place:
        place.into(path.name)


def make_readable(parent: int, name: str, mode: int) -> None:
    """Let the owner read the file ``name``; a link is left alone."""
    entered = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        _chmod_even_immutable(entered, stat.S_IMODE(mode) | 0o400)
    finally:
        os.close(entered)


def make_mutable(path: str, parent: int | None = None, *, follow: bool = True) -> None:
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    fd = os.open(path, flags, dir_fd=parent)
    try:
        (before,) = memoryview(fcntl.ioctl(fd, GET_FLAGS, bytes(8))).cast("I")[:1]
        after = before & ~IMMUTABLE_OR_APPEND_ONLY
        fcntl.ioctl(fd, SET_FLAGS, after.to_bytes(8, "little"))
    finally:
        os.close(fd)


def _identity(fd: int) -> tuple[int, int]:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


def _chmod_even_immutable(entered: int, mode: int) -> None:
    # The descriptor is O_PATH: through /proc it names its file whatever becomes of the name.
    same = Path(f"/proc/self/fd/{entered}")
    try:
        same.chmod(mode)
    except PermissionError:
        make_mutable(str(same))
        same.chmod(mode)
