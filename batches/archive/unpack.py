"""An archive's bytes to files on the disk, whichever format it has and whatever it tries."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from batches.archive import gzipped, tarred, zipped
from batches.archive.budget import Budget
from batches.archive.members import Member
from batches.archive.problems import ARCHIVE, BadMember, Problems, Unreadable
from batches.archive.specs import Limits
from batches.archive.tree import Tree


def unpack(archive: Path, root: Path, limits: Limits, problems: Problems) -> bool:
    """Write what ``archive`` holds below the existing folder ``root``.

    What is refused goes to ``problems`` and the rest is still written, so that
    its problems can be found as well. The answer is false when the archive
    could not be followed to its end and there is no sense in looking further.
    """
    with archive.open("rb") as file:
        budget = Budget(limits, os.fstat(file.fileno()).st_size)
        tree = Tree(root, budget)
        try:
            for member in members(file, budget):
                try:
                    tree.take(member)
                except BadMember as bad:
                    problems.add(file_of(member), str(bad))
        except Unreadable as unreadable:
            problems.add(ARCHIVE, str(unreadable))
            return False
    return True


def file_of(member: Member) -> str:
    """The member's name as its problems give it, the same in all formats."""
    return member.name.removeprefix("./").removesuffix("/") or ARCHIVE


def members(file: BinaryIO, budget: Budget) -> Iterator[Member]:
    """The members of the archive, whose format is told by its first bytes."""
    start = file.read(tarred.BLOCK_BYTES)
    file.seek(0)
    if start.startswith(zipped.FIRST_BYTES):
        return zipped.members(file, budget)
    if start.startswith(gzipped.GZIP):
        return tarred.members(gzipped.Gunzip(file), budget)
    if tarred.is_header(start):
        return tarred.members(file, budget)
    raise Unreadable(
        "is no zip, tar.gz or tar archive, whatever it is called; pack it as one of these"
    )
