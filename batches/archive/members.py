"""The seam between the two formats and what is done with their members."""

import stat
from collections.abc import Iterable
from dataclasses import dataclass

CHUNK_BYTES = 64 * 1024
SPECIAL_BITS = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX


@dataclass(frozen=True)
class Member:
    """One entry of an archive, as it claims to be.

    ``content`` has to be consumed before the next member is asked for. It
    raises ``BadMember`` when only this member is broken and ``Unreadable``
    when all that follows is. ``refusal`` says why the member cannot be
    accepted whatever its name is.
    """

    name: str
    is_folder: bool
    mode: int
    content: Iterable[bytes] = ()
    refusal: str | None = None

    @property
    def objection(self) -> str | None:
        if self.refusal is None and self.mode & SPECIAL_BITS:
            return "has its setuid, setgid or sticky bit set; clear it with chmod ug-s,-t"
        return self.refusal


def kind_refused(mode: int) -> str | None:
    """Why a member of this file type is refused; ``None`` for files, folders and unknown types."""
    kinds = {
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
        stat.S_IFSOCK: "a socket",
    }
    kind = stat.S_IFMT(mode)
    if kind in (0, stat.S_IFREG, stat.S_IFDIR):
        return None
    return not_a_file(kinds.get(kind, "of an unknown type"))


def not_a_file(kind: str) -> str:
    return f"is {kind}; only plain files and folders are accepted"
