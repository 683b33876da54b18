"""Takes the difference between two repositories' work trees with git, and applies it to a third.

From the repository as it was before the agent came, git borrows what is data: the
list of tracked files, the objects and ``info/exclude``. From the agent's
``.git`` nothing is read. All files are taken byte by byte, so that what is
applied is what the agent left.
"""

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from batches.sandbox import gitscan
from batches.sandbox.owngit import OwnGit
from batches.sandbox.promise import Patch, PatchRefused, SandboxUnavailable

DIFF = ("diff-tree", "-r", "--no-renames", "--full-index", "--no-ext-diff", "--no-textconv")


@dataclass(frozen=True)
class Change:
    path: str
    added: bool
    blobs: tuple[str, ...]


def find_git(path: str) -> str:
    git = shutil.which("git", path=path)
    if git is None:
        raise SandboxUnavailable(f"there is no git on {path}")
    return git


def export(git: str, *, before: Path, after: Path, scratch: Path, max_bytes: int) -> Patch:
    """The difference from ``before`` to ``after``, as git would track it in ``before``.

    ``after`` is tidied for it and should then be thrown away. ``scratch`` is an empty
    folder that nobody else can write to, for git's own files.
    """
    before, after = (_real(tree, scratch / tree.parent.name) for tree in (before, after))
    left_out = gitscan.places_to_leave_out(before)
    tidied = gitscan.tidy(after, frozenset(left_out))

    own = OwnGit(git, scratch / "git", borrow_from=before / ".git")
    own.track("old", _tracked(own, left_out))
    old = own.record("old", before, left_out)
    own.track("new", own.entries_of(old))
    _refuse_new_giants(own, before, after, tidied.giants)
    new = own.record("new", after, left_out)
    hidden = sorted(set(_hidden(before, _changes(own, old, new, max_bytes))))
    if hidden:
        # Git ignored these in `before`. They are there nevertheless, and a patch that
        # brings something of their name has to replace them.
        old = own.record_more("old", before, hidden)
    _refuse_changed_giants(own, _changes(own, old, new, max_bytes))

    diff = own.run(
        *DIFF, "-p", "--binary", "--src-prefix=a/", "--dst-prefix=b/", old, new, most=max_bytes
    )
    return Patch(diff, tidied.notes)


def apply(git: str, diff: bytes, repo: Path, scratch: Path) -> None:
    """Apply a difference from ``export`` to ``repo``: all of it, or nothing."""
    if not diff:
        return
    if not _is_directory(repo):
        raise PatchRefused("there is no repository to apply the patch to")
    own = OwnGit(git, scratch / "git")
    own.run("apply", "--binary", "--whitespace=nowarn", "-", tree=repo, given=diff)


def _real(tree: Path, empty: Path) -> Path:
    """``tree``, or an empty folder when something else is in its place."""
    if _is_directory(tree):
        return tree
    empty.mkdir()
    return empty


def _is_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _tracked(own: OwnGit, left_out: Iterable[str]) -> bytes:
    """The entries of the borrowed index, without submodules and what lies in places left out."""
    gone = tuple(f"{place}/" for place in left_out)
    entries = []
    for entry in own.borrowed_entries():
        about, _, path = entry.partition("\t")
        mode, blob, _stage = about.split(" ")
        if mode != "160000" and not f"{path}/".startswith(gone):
            entries.append(f"{mode} {blob} 0\t{path}\0")
    return "".join(entries).encode(errors="surrogateescape")


def _changes(own: OwnGit, old: str, new: str, max_bytes: int) -> list[Change]:
    # Each line of this is shorter than what the patch will say: it needs no other limit.
    raw = own.run(*DIFF, "--raw", "-z", old, new, most=max_bytes)
    fields = raw.decode(errors="surrogateescape").split("\0")[:-1]
    changes = []
    for about, path in zip(fields[::2], fields[1::2], strict=True):
        *_, old_blob, new_blob, status = about.split(" ")
        blobs = tuple(blob for blob in (old_blob, new_blob) if blob.strip("0"))
        changes.append(Change(path, status == "A", blobs))
    return changes


def _hidden(before: Path, changes: list[Change]) -> Iterator[str]:
    """What stands in ``before`` where the agent added something: at its path, or as a file above it."""
    folders: dict[Path, bool] = {}
    for change in changes:
        if not change.added:
            continue
        path = before / change.path
        for above in list(path.relative_to(before).parents)[-2::-1]:
            if above not in folders:
                folders[above] = _is_directory(before / above)
            if not folders[above]:
                if _exists(before / above):
                    yield str(above)
                break
        else:
            if _exists(path):
                yield change.path


def _exists(path: Path) -> bool:
    return path.is_symlink() or path.exists()


def _refuse_new_giants(own: OwnGit, before: Path, after: Path, giants: dict[str, int]) -> None:
    """Spares git the reading of what would be refused afterwards."""
    grown = [path for path, size in giants.items() if _size(before / path) != size]
    # The second asks whether git tracks them at all: most such files are products that it ignores.
    for path in grown and own.untracked("new", after, grown[:100]):
        raise _giant(path, giants[path])


def _refuse_changed_giants(own: OwnGit, changes: list[Change]) -> None:
    blobs = {blob: change.path for change in changes for blob in change.blobs}
    asked = "".join(f"{blob}\n" for blob in blobs).encode()
    sizes = own.run("cat-file", "--batch-check=%(objectsize)", given=asked).split()
    for path, size in zip(blobs.values(), map(int, sizes), strict=True):
        if size > gitscan.LARGEST_FILE_BYTES:
            raise _giant(path, size)


def _giant(path: str, size: int) -> PatchRefused:
    return PatchRefused(f"{path!r} has {size} bytes, more than a patch can carry")


def _size(path: Path) -> int | None:
    return path.lstat().st_size if _exists(path) else None
