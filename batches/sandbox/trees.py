"""Copies, removes and writes trees of strangers, without following a link of theirs."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from batches.sandbox.places import Place, make_mutable, make_readable, stat_at

READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


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


def make_folder(place: Place, name: str) -> None:
    """Have a real directory ``name`` there: whatever else has that name is removed."""
    found = stat_at(place.fd, name)
    if found is not None and not stat.S_ISDIR(found.st_mode):
        remove_at(place.fd, name)
        found = None
    if found is None:
        os.mkdir(name, 0o755, dir_fd=place.fd)


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


def _remove_one(parent: int, name: str, *, directory: bool) -> None:
    take_away = os.rmdir if directory else os.unlink
    try:
        take_away(name, dir_fd=parent)
    except PermissionError:
        make_mutable(".", parent)
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if directory or stat.S_ISREG(found.st_mode):
            make_mutable(name, parent, follow=False)
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
