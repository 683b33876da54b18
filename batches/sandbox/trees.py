"""Trees that strangers left behind: walked, copied, removed and written without following a link.

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
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

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

    def make(self, name: str) -> None:
        """Have a real directory ``name`` here: whatever else has that name is removed."""
        found = stat_at(self.fd, name)
        if found is not None and not stat.S_ISDIR(found.st_mode):
            remove_at(self.fd, name)
            found = None
        if found is None:
            os.mkdir(name, 0o755, dir_fd=self.fd)


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


def remove(path: Path) -> None:
    """Remove whatever is at ``path``, or nothing. What a link points to stays."""
    try:
        parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        remove_at(parent, path.name)
    finally:
        os.close(parent)


def remove_at(parent: int, name: str) -> None:
    """Remove whatever is called ``name`` in the open directory ``parent``, or nothing."""
    with Place(Path(f"/proc/self/fd/{parent}")) as place:
        pending = [[name]]
        while True:
            if not pending[-1]:
                pending.pop()
                if not pending:
                    return
                emptied = place.up()
                _remove_one(place.fd, emptied, directory=True)
                continue
            name = pending[-1].pop()
            found = stat_at(place.fd, name)
            if found is None:
                continue
            if stat.S_ISDIR(found.st_mode):
                place.into(name)
                pending.append(place.listed())
            else:
                _remove_one(place.fd, name, directory=False)


def copy(source: Path, target: Path, *, writable: bool = True) -> None:
    """Copy the file, link or folder ``source`` to ``target``, which must not exist.

    Keeps modes, times, owners (when allowed to) and FIFOs; links stay links.
    Devices and sockets are left out. Names of one hard-linked file become files of
    their own. Without ``writable``, nobody has write permission on the copy.
    """
    keep = 0o7777 if writable else 0o7555
    with (
        Place(source.parent, need=0o500, restore=True) as origin,
        Place(target.parent) as copied,
    ):
        pending = [[source.name]]
        folders: list[os.stat_result] = []
        while True:
            if not pending[-1]:
                pending.pop()
                if not pending:
                    return
                left = folders.pop()
                _own(copied.fd, left)
                os.utime(copied.fd, ns=(left.st_atime_ns, left.st_mtime_ns))
                origin.up()
                copied.up(stat.S_IMODE(left.st_mode) & keep)
                continue
            name = pending[-1].pop()
            new = name if folders else target.name
            found = os.stat(name, dir_fd=origin.fd, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                os.mkdir(new, 0o700, dir_fd=copied.fd)
                origin.into(name)
                copied.into(new)
                folders.append(found)
                pending.append(origin.listed())
            else:
                _copy_one(origin.fd, name, found, copied.fd, new, keep)


def write(place: Place, name: str, source: Path, mode: int) -> None:
    """Write a copy of the file ``source`` as ``name``, in place of whatever has that name."""
    remove_at(place.fd, name)
    reading = os.open(source, READ)
    try:
        size = os.fstat(reading).st_size
        writing = os.open(name, CREATE, mode, dir_fd=place.fd)
        try:
            _copy_range(reading, writing, 0, size)
            os.fchmod(writing, mode)
        finally:
            os.close(writing)
    finally:
        os.close(reading)


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


def _identity(fd: int) -> tuple[int, int]:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


def _chmod_even_immutable(entered: int, mode: int) -> None:
    # The descriptor is O_PATH: through /proc it names its file whatever becomes of the name.
    same = Path(f"/proc/self/fd/{entered}")
    try:
        same.chmod(mode)
    except PermissionError:
        _make_mutable(str(same))
        same.chmod(mode)


def _make_mutable(path: str, parent: int | None = None, *, follow: bool = True) -> None:
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    fd = os.open(path, flags, dir_fd=parent)
    try:
        (before,) = memoryview(fcntl.ioctl(fd, GET_FLAGS, bytes(8))).cast("I")[:1]
        after = before & ~IMMUTABLE_OR_APPEND_ONLY
        fcntl.ioctl(fd, SET_FLAGS, after.to_bytes(8, "little"))
    finally:
        os.close(fd)


def _remove_one(parent: int, name: str, *, directory: bool) -> None:
    take_away = os.rmdir if directory else os.unlink
    try:
        take_away(name, dir_fd=parent)
    except PermissionError:
        _make_mutable(".", parent)
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if directory or stat.S_ISREG(found.st_mode):
            _make_mutable(name, parent, follow=False)
        take_away(name, dir_fd=parent)


def _own(target: int, found: os.stat_result) -> None:
    if os.geteuid() == 0 and (found.st_uid, found.st_gid) != (0, 0):
        os.chown(target, found.st_uid, found.st_gid)


def _copy_one(
    origin: int, name: str, found: os.stat_result, target: int, new: str, keep: int
) -> None:
    times = (found.st_atime_ns, found.st_mtime_ns)
    if stat.S_ISREG(found.st_mode):
        reading = _open_for_reading(origin, name, found)
        try:
            writing = os.open(new, CREATE, 0o600, dir_fd=target)
            try:
                for start, end in _filled(reading, found):
                    _copy_range(reading, writing, start, end)
                os.truncate(writing, found.st_size)
                _own(writing, found)
                os.fchmod(writing, stat.S_IMODE(found.st_mode) & keep)
                os.utime(writing, ns=times)
            finally:
                os.close(writing)
        finally:
            os.close(reading)
    elif stat.S_ISLNK(found.st_mode):
        os.symlink(os.readlink(name, dir_fd=origin), new, dir_fd=target)
        os.utime(new, ns=times, dir_fd=target, follow_symlinks=False)
    elif stat.S_ISFIFO(found.st_mode):
        os.mkfifo(new, stat.S_IMODE(found.st_mode) & keep, dir_fd=target)


def _open_for_reading(parent: int, name: str, found: os.stat_result) -> int:
    try:
        return os.open(name, READ, dir_fd=parent)
    except PermissionError:
        make_readable(parent, name, found.st_mode)
        fd = os.open(name, READ, dir_fd=parent)
        os.fchmod(fd, stat.S_IMODE(found.st_mode))
        return fd


def _filled(fd: int, found: os.stat_result) -> Iterator[tuple[int, int]]:
    """The ranges of a file that hold data: a sparse file must not become a full disk."""
    if found.st_blocks * 512 >= found.st_size:
        yield 0, found.st_size
        return
    end = 0
    while end < found.st_size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError:  # only a hole is left
            return
        end = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, end


def _copy_range(reading: int, writing: int, start: int, end: int) -> None:
    os.lseek(writing, start, os.SEEK_SET)
    copy_some = os.copy_file_range
    while start < end:
        try:
            # Shares the blocks where the file system can, and copies in the kernel where it cannot.
            copied = copy_some(reading, writing, min(end - start, 1 << 30), start)
        except OSError:
            copied = os.sendfile(writing, reading, start, min(end - start, 1 << 30))
        if copied == 0:
            return
        start += copied
