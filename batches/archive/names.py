"""Which names of files and folders are safe, and which of them mean the same file somewhere."""

import re
import unicodedata

from batches.archive.problems import BadMember

MAX_PART_BYTES = 255
MAX_NAME_BYTES = 4096
MAX_DEPTH = 64

DRIVE = re.compile(r"[A-Za-z]:")
JUNK = {"__MACOSX", ".DS_Store", "Icon\r"}


def parts_of(name: str) -> tuple[str, ...]:
    """The parts of a member's name, none of which leads anywhere but down; () is the top itself.

    Raises ``BadMember`` for every name that some system might understand differently.
    """
    if "\\" in name:
        raise BadMember("has a backslash in its name; separate folders with /")
    if name.startswith("/") or DRIVE.match(name):
        raise BadMember("is an absolute path; name files relative to the archive's top")
    # `tar c .` names everything ./like/this, and its first member is the top itself.
    name = name.removeprefix("./").removesuffix("/")
    parts = tuple(name.split("/")) if name not in ("", ".") else ()
    if ".." in parts:
        raise BadMember("leads out of its folder with ..; name files relative to the archive's top")
    if "" in parts or "." in parts:
        raise BadMember("has an empty part or a . in its name; write the name without it")
    # Macs put a file with this one odd name into folders; it is never kept.
    plain = name.removesuffix("Icon\r")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in plain):
        raise BadMember(
            "has control characters, or bytes that are not UTF-8, in its name; rename it"
        )
    if any(len(part.encode()) > MAX_PART_BYTES for part in parts):
        raise BadMember(f"has a name that is too long; use at most {MAX_PART_BYTES} bytes")
    if len(name.encode()) > MAX_NAME_BYTES:
        raise BadMember(f"has a path that is too long; use at most {MAX_NAME_BYTES} bytes")
    if len(parts) > MAX_DEPTH:
        raise BadMember(f"lies too deep; nest at most {MAX_DEPTH} folders")
    return parts


def is_junk(parts: tuple[str, ...]) -> bool:
    """Whether this is something that a Mac adds by itself, and that nobody wants."""
    return any(part in JUNK or part.startswith("._") for part in parts)


def same_everywhere(part: str) -> str:
    """The same string for all names that are one file where case or composition do not count."""
    folded = unicodedata.normalize("NFC", part).casefold()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", folded).casefold())
