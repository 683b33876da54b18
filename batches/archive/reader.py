"""The door: an uploaded archive in, a submission out."""

import shutil
from pathlib import Path

from batches.archive.agent import read_agent
from batches.archive.layout import unwrap
from batches.archive.problems import Problems
from batches.archive.specs import BadArchive, Limits, Problem, Submission
from batches.archive.tasks import read_tasks
from batches.archive.unpack import unpack


def read_archive(path: Path, destination: Path, limits: Limits) -> Submission:
    """Unpack the archive at ``path`` into ``destination``, which must not exist, and read it.

    What is accepted lies in ``destination/tasks`` and ``destination/agent_code``,
    whatever was around them in the archive. Raises ``BadArchive`` with every
    problem there is. Whatever is raised, nothing is left at ``destination``,
    and nothing beside it was ever touched.
    """
    destination.mkdir(mode=0o700)
    try:
        return read_into(path, destination, limits)
    except BaseException:
        shutil.rmtree(destination)
        raise


def read_into(path: Path, root: Path, limits: Limits) -> Submission:
    problems = Problems()
    if not unpack(path, root, limits, problems):
        raise BadArchive(problems.all())

    try:
        wrapper = unwrap(root)
    except BadArchive:
        # It may have been a refused file that was to lead there.
        if problems:
            raise BadArchive(problems.all()) from None
        raise
    if wrapper is not None:
        problems.strip(wrapper)

    found: list[Problem] = []
    try:
        tasks, notes = read_tasks(root)
    except BadArchive as bad:
        found += bad.problems
    try:
        agent = read_agent(root)
    except BadArchive as bad:
        found += bad.problems
    problems.add_unless_explained(found)
    if problems:
        raise BadArchive(problems.all())
    return Submission(root, tasks, agent, notes)
