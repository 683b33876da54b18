"""The folder that an archive is unpacked into. Nothing beside it is ever touched."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from batches.archive.budget import Budget
from batches.archive.members import Member
from batches.archive.names import MAX_NAME_BYTES, is_junk, parts_of, same_everywhere
from batches.archive.problems import BadMember

WANTED = ("tasks", "agent_code")
WRITE_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(slots=True)
class Place:
    """A name that is taken, and what is known to lie in it if it is a folder."""

    name: str
    is_folder: bool
    inside: dict[str, "Place"] = field(default_factory=dict)

    def known(self, name: str, *, is_folder: bool) -> "Place | None":
        """The place called ``name`` in here. Raises ``BadMember`` when something else has the name."""
        place = self.inside.get(same_everywhere(name))
        if place is None:
            return None
        if place.name != name:
            raise BadMember(
                "is named like something else but for case or the way its letters are composed; "
                "rename one"
            )
        if place.is_folder != is_folder:
            raise BadMember(
                "needs a folder where there is a file, or a file where there is a folder; rename one"
            )
        return place


class Tree:
    """Writes members below ``root``, each name once.

    Only what lies in ``tasks/`` and ``agent_code/``, at the top or one folder
    down, reaches the disk. Everything else has to be just as harmless, is
    counted just the same, and is forgotten.
    """

    def __init__(self, root: Path, budget: Budget) -> None:
        self.root = root
        self.budget = budget
        self.top = Place("", is_folder=True)

    def take(self, member: Member) -> None:
        """Write ``member``. Its content is read to the end even where it is refused.

        Every member counts as a file, and so does a folder that is first met
        in the name of something in it. Raises ``BadMember`` when the member is
        refused, ``Unreadable`` when nothing more can be taken.
        """
        self.budget.spend_file()
        try:
            path = self.claim(member)
        except BadMember:
            self.drain(member)
            raise
        if member.is_folder:
            if self.drain(member):
                raise BadMember("is a folder with content of its own; pack the archive again")
        elif path is None:
            self.drain(member)
        else:
            self.write(path, member)

    def claim(self, member: Member) -> Path | None:
        """Take the member's name and make its folders; where to write it, if it is to be kept."""
        parts = parts_of(member.name)
        if member.objection is not None:
            raise BadMember(member.objection)
        if not parts and not member.is_folder:
            raise BadMember("has no name; give it one")
        if not parts or is_junk(parts):
            return None

        folder = self.top
        for depth, part in enumerate(parts[:-1], start=1):
            known = folder.known(part, is_folder=True)
            if known is None:
                self.budget.spend_file()
                known = self.enter(folder, parts[:depth], is_folder=True)
            folder = known
        known = folder.known(parts[-1], is_folder=member.is_folder)
        if known is None:
            self.enter(folder, parts, is_folder=member.is_folder)
        elif not known.is_folder:
            raise BadMember("is in the archive twice; keep one")
        return self.path(parts)

    def enter(self, folder: Place, parts: tuple[str, ...], *, is_folder: bool) -> Place:
        """Take a new name in ``folder``, and make it now if it is a folder's."""
        path = self.path(parts)
        if path is not None:
            # A folder that wraps everything is only made for what is kept in it.
            path.parent.mkdir(exist_ok=True)
            if is_folder:
                path.mkdir()
                path.chmod(0o755)
        place = Place(parts[-1], is_folder)
        folder.inside[same_everywhere(parts[-1])] = place
        return place

    def path(self, parts: tuple[str, ...]) -> Path | None:
        if not any(part in WANTED for part in parts[:2]):
            return None
        path = self.root.joinpath(*parts)
        if len(os.fsencode(path)) >= MAX_NAME_BYTES:
            raise BadMember("has a path that is too long for this server; use shorter names")
        return path

    def write(self, path: Path, member: Member) -> None:
        with os.fdopen(os.open(path, WRITE_NEW, 0o600), "wb") as file:
            os.fchmod(file.fileno(), 0o755 if member.mode & 0o111 else 0o644)
            for chunk in member.content:
                self.budget.spend_bytes(len(chunk))
                file.write(chunk)

    def drain(self, member: Member) -> int:
        """Read the content to its end, at the usual price; how much there was."""
        count = 0
        for chunk in member.content:
            self.budget.spend_bytes(len(chunk))
            count += len(chunk)
        return count
