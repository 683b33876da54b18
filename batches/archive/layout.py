"""Where in an archive ``tasks/`` and ``agent_code/`` are: at its top, or in one folder around both."""

import shutil
from pathlib import Path

from batches.archive.problems import ARCHIVE
from batches.archive.specs import BadArchive, Problem
from batches.archive.tree import WANTED


def unwrap(root: Path) -> str | None:
    """Move both folders to the top of ``root`` and remove all else; the folder that was around them.

    Raises ``BadArchive`` when they are nowhere, or in more than one place.
    """
    if holds_wanted(root):
        for path in root.iterdir():
            if path.name not in WANTED:
                remove(path)
        return None

    wrappers = [path for path in root.iterdir() if path.is_dir() and holds_wanted(path)]
    if len(wrappers) != 1:
        message = (
            "holds tasks/ and agent_code/ in several folders; keep one of them"
            if wrappers
            else "holds neither tasks/ nor agent_code/, at its top or in one folder; add both"
        )
        raise BadArchive([Problem(ARCHIVE, message)])
    [wrapper] = wrappers
    for path in root.iterdir():
        if path != wrapper:
            remove(path)
    for path in wrapper.iterdir():
        path.rename(root / path.name)
    wrapper.rmdir()
    return wrapper.name


def holds_wanted(folder: Path) -> bool:
    return any((folder / name).is_dir() for name in WANTED)


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
