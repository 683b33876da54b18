"""Looks over a work tree before git does, and clears away what git would stumble on or into."""

import stat
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from batches.sandbox import trees
from batches.sandbox.places import Found, make_readable, walk

LONGEST_PATH = 3900
"""Paths are 4096 bytes at most, and git adds a beginning of its own."""
MOST_NOTES = 20
LARGEST_FILE_BYTES = 512 * 1024**2
"""Git holds all of a file in memory to describe its change, and takes seconds to read a larger one."""


class Tidied(NamedTuple):
    notes: tuple[str, ...]
    """What is not kept, in sentences."""
    giants: dict[str, int]
    """Files beyond ``LARGEST_FILE_BYTES`` and their sizes."""


def places_to_leave_out(tree: Path) -> list[str]:
    """Paths that git must not look into: nested repositories, and what no git will track."""
    left_out = []
    for found in walk(tree):
        if not found.names and found.name == ".git":
            found.descend = False
        elif found.name == ".git":
            left_out.append("/".join(found.names))
            found.descend = False
        elif _is_refused_by_git(found):
            left_out.append(found.path)
            found.descend = False
        else:
            _have_readable(found)
    return left_out


def tidy(tree: Path, left_out: Collection[str]) -> Tidied:
    """Make ``tree`` something that git can read to its end.

    Nested repositories become plain folders, so that what they contain is carried.
    Changes ``tree``, which is about to be discarded.
    """
    notes: list[str] = []
    giants: dict[str, int] = {}
    for found in walk(tree):
        path = found.path
        printable = path.encode(errors="surrogateescape").decode(errors="backslashreplace")
        if not found.names and found.name == ".git":
            found.descend = False
        elif path in left_out:
            notes.append(f"{printable} is a repository of its own: changes in it are not carried.")
            found.descend = False
        elif found.name == ".git":
            trees.remove_at(found.parent, found.name)
            found.descend = False
            folder = printable.removesuffix("/.git")
            notes.append(
                f"{folder} was a new repository: its files are carried, its history is not."
            )
        elif _is_refused_by_git(found):
            trees.remove_at(found.parent, found.name)
            found.descend = False
            notes.append(f"{printable} is left out: git tracks nothing like it.")
        elif len(path.encode(errors="surrogateescape")) > LONGEST_PATH:
            trees.remove_at(found.parent, found.name)
            found.descend = False
            notes.append(f"{printable[:60]}... is left out: its path is too long.")
        else:
            _have_readable(found)
            if stat.S_ISREG(found.mode) and found.size > LARGEST_FILE_BYTES:
                giants[path] = found.size
    if len(notes) > MOST_NOTES:
        notes[MOST_NOTES:] = [f"And {len(notes) - MOST_NOTES} more."]
    return Tidied(tuple(notes), giants)


def _is_refused_by_git(found: Found) -> bool:
    kind = stat.S_IFMT(found.mode)
    # Git refuses `.GIT` too, for the sake of systems where it would be the same.
    return kind not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK) or found.name.lower() == ".git"


def _have_readable(found: Found) -> None:
    if stat.S_ISREG(found.mode) and not found.mode & stat.S_IRUSR:
        make_readable(found.parent, found.name, found.mode)
