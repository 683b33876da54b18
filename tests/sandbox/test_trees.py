"""Copying, removing and writing trees of strangers."""

import os
import shutil
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from batches.sandbox import trees
from batches.sandbox.places import Place, walk

NOBODY = 65534


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder to work in as a user to whom permissions matter."""
    if os.geteuid() != 0:
        yield Path(tempfile.mkdtemp())
        return
    folder = Path(tempfile.mkdtemp())
    os.chown(folder, NOBODY, NOBODY)
    os.seteuid(NOBODY)
    try:
        yield folder
    finally:
        os.seteuid(0)
        shutil.rmtree(folder, ignore_errors=True)


def described(tree: Path) -> dict[str, tuple[str, int, str]]:
    """Kind and mode, time and content of everything below ``tree``."""
    found = {}
    for path in [tree, *tree.rglob("*")]:
        status = path.lstat()
        if path.is_symlink():
            content = str(path.readlink())
        else:
            content = path.read_text() if path.is_file() else ""
        name = str(path.relative_to(tree))
        found[name] = (stat.filemode(status.st_mode), status.st_mtime_ns, content)
    return found


def test_copy_is_the_same_in_everything_that_counts(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "folder").mkdir(parents=True)
    (source / "folder" / "script").write_text("#!/bin/sh")
    (source / "folder" / "script").chmod(0o750)
    (source / "link").symlink_to("folder/script")
    (source / "outside").symlink_to("/etc")
    os.link(source / "folder" / "script", source / "hard")
    os.mkfifo(source / "fifo", 0o600)
    os.utime(source / "folder" / "script", ns=(1, 2))
    os.utime(source / "link", ns=(1, 3), follow_symlinks=False)
    os.utime(source / "folder", ns=(1, 4))

    trees.copy(source, tmp_path / "copy")

    expected = described(source)
    copied = described(tmp_path / "copy")
    expected["fifo"] = copied["fifo"] = ("prw-------", 0, "")
    assert copied == expected


def test_sockets_and_devices_are_left_out(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(source / "socket"))
    if os.geteuid() == 0:
        os.mknod(source / "device", 0o600 | stat.S_IFCHR, os.makedev(1, 3))

    trees.copy(source, tmp_path / "copy")

    assert list((tmp_path / "copy").iterdir()) == []


def test_sparse_file_stays_sparse(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.seek(1024**3)
        file.write(b"in the middle")
        file.truncate(2 * 1024**3)

    trees.copy(tmp_path / "sparse", tmp_path / "copy")

    copied = (tmp_path / "copy").stat()
    assert (copied.st_size, copied.st_blocks * 512 < 1024**2) == (2 * 1024**3, True)
    with (tmp_path / "copy").open("rb") as file:
        file.seek(1024**3)
        assert file.read(20) == b"in the middle" + bytes(7)


def test_copy_without_write_permission_has_none(tmp_path: Path) -> None:
    (tmp_path / "source" / "deep").mkdir(parents=True)
    (tmp_path / "source" / "deep" / "file").write_text("x")

    trees.copy(tmp_path / "source", tmp_path / "copy", writable=False)

    modes = {path: mode for path, (mode, _, _) in described(tmp_path / "copy").items()}
    assert modes == {".": "dr-xr-xr-x", "deep": "dr-xr-xr-x", "deep/file": "-r--r--r--"}


def test_copy_reads_what_has_no_permissions_and_leaves_it_as_it_was(unprivileged: Path) -> None:
    source = unprivileged / "source"
    (source / "locked" / "below").mkdir(parents=True)
    (source / "locked" / "file").write_text("x")
    for path in (source / "locked" / "file", source / "locked" / "below", source / "locked"):
        path.chmod(0)

    trees.copy(source, unprivileged / "copy")

    for tree in (source, unprivileged / "copy"):
        assert stat.S_IMODE((tree / "locked").stat().st_mode) == 0
        (tree / "locked").chmod(0o700)
        assert stat.S_IMODE((tree / "locked" / "below").stat().st_mode) == 0
        assert stat.S_IMODE((tree / "locked" / "file").stat().st_mode) == 0


def test_remove_takes_away_what_has_no_permissions(unprivileged: Path) -> None:
    tree = unprivileged / "tree"
    (tree / "locked" / "below").mkdir(parents=True)
    (tree / "locked" / "below" / "file").write_text("x")
    for path in (tree / "locked" / "below", tree / "locked", tree):
        path.chmod(0)

    trees.remove(tree)

    assert list(unprivileged.iterdir()) == []


def test_remove_follows_no_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("stays")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "link").symlink_to(outside)
    (tmp_path / "itself").symlink_to(outside)

    trees.remove(tmp_path / "tree")
    trees.remove(tmp_path / "itself")
    trees.remove(tmp_path / "never-there")

    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside"]
    assert (outside / "file").read_text() == "stays"


def test_remove_takes_away_immutable_names(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "folder").mkdir(parents=True)
    (tree / "folder" / "file").write_text("x")
    (tree / "folder" / "link").symlink_to("file")
    made = subprocess.run(
        ["chattr", "+i", tree / "folder" / "file", tree / "folder", tree], capture_output=True
    )
    if made.returncode != 0:
        pytest.skip("immutable files cannot be made here")

    trees.remove(tree)

    assert list(tmp_path.iterdir()) == []


def test_walk_neither_follows_links_nor_stumbles_over_names(tmp_path: Path) -> None:
    (tmp_path / "tree" / "a").mkdir(parents=True)
    (tmp_path / "tree" / "a" / "loop").symlink_to("..")
    Path(os.fsdecode(bytes(tmp_path) + b"/tree/\xff\n")).write_text("")

    paths = sorted(found.path for found in walk(tmp_path / "tree"))

    assert paths == ["a", "a/loop", "\udcff\n"]


def test_walk_stays_out_of_what_it_is_told_to(tmp_path: Path) -> None:
    (tmp_path / "tree" / "a" / "b").mkdir(parents=True)

    seen = []
    for found in walk(tmp_path / "tree"):
        seen.append(found.path)
        found.descend = False

    assert seen == ["a"]


def test_link_is_not_entered(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc")

    with Place(tmp_path) as place, pytest.raises(NotADirectoryError):
        place.into("link")
