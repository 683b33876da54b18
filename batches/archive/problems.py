"""Problems as they are gathered: what is wrong with an archive, in the order in which it was found."""

import unicodedata

from batches.archive.specs import Problem

ARCHIVE = "archive"
"""The file that problems of the archive as a whole are filed under."""

SHOWN_PROBLEMS = 100
SHOWN_NAME_CHARACTERS = 200


class BadMember(Exception):
    """One member of the archive cannot be accepted; the rest can still be looked at."""


class Unreadable(Exception):
    """Nothing behind this place of the archive can be trusted, or may still be unpacked."""


class Problems:
    """A list that a hostile archive cannot make long: beyond a hundred, problems are only counted."""

    def __init__(self) -> None:
        self.found: list[Problem] = []
        self.untold = 0

    def __bool__(self) -> bool:
        return bool(self.found)

    def add(self, file: str, message: str) -> None:
        if len(self.found) < SHOWN_PROBLEMS:
            self.found.append(Problem(shown(file), message))
        else:
            self.untold += 1

    def add_unless_explained(self, later: list[Problem]) -> None:
        """Add what was found in the unpacked files, leaving out what an earlier problem explains.

        A refused ``tasks/a/prompt.md`` is not on the disk. That it is missing
        there, or that its folder looks empty, is no news to the archive's author.
        """
        before = [problem.file for problem in self.found]
        for problem in later:
            file = shown(problem.file)
            if not any(f"{earlier}/".startswith(f"{file}/") for earlier in before):
                self.add(problem.file, problem.message)

    def strip(self, folder: str) -> None:
        """Name files as if ``folder``, which wraps the whole archive, was not there."""
        prefix = f"{shown(folder)}/"
        self.found = [Problem(p.file.removeprefix(prefix), p.message) for p in self.found]

    def all(self) -> list[Problem]:
        if not self.untold:
            return list(self.found)
        return [*self.found, Problem(ARCHIVE, f"has {self.untold} more problems")]


def shown(name: str) -> str:
    """``name`` so that it can be stored, logged and printed, whatever characters are in it."""
    safe = "".join(
        character
        if unicodedata.category(character)[0] not in "CZ" or character == " "
        else "\N{REPLACEMENT CHARACTER}"
        for character in name[: SHOWN_NAME_CHARACTERS + 1]
    )
    return safe if len(safe) <= SHOWN_NAME_CHARACTERS else f"{safe[:SHOWN_NAME_CHARACTERS]}…"
