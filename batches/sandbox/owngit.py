"""A git directory of our own making: no configuration, hook or filter of a stranger can run in it."""

import os
import re
import select
import stat
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO, cast

from batches.sandbox import trees
from batches.sandbox.places import Place
from batches.sandbox.promise import PatchRefused

TIMEOUT_SECONDS = 300.0
"""For all that one ``OwnGit`` runs. Beyond it, what the agent left is too much for a patch."""

CONFIG = """\
[core]
    repositoryformatversion = {version}
    bare = false
    fileMode = true
    symlinks = true
    ignoreCase = false
    precomposeUnicode = false
    protectNTFS = false
    protectHFS = false
    autocrlf = false
    safecrlf = false
    hooksPath = /dev/null
    attributesFile = /dev/null
    excludesFile = /dev/null
    fsmonitor = false
    untrackedCache = false
    splitIndex = false
    compression = 1
[gc]
    auto = 0
[maintenance]
    auto = false
[extensions]
    objectFormat = {objects}
"""

# Here they overrule every .gitattributes in the tree: files are taken as they are.
ATTRIBUTES = "* -text !eol !ident !filter !working-tree-encoding !diff !merge !whitespace\n"


class OwnGit:
    """Runs git in ``folder``, which it makes, on work trees that it is told."""

    def __init__(self, git: str, folder: Path, *, borrow_from: Path | None = None) -> None:
        self._git = git
        self._folder = folder
        self._give_up_at = time.monotonic() + TIMEOUT_SECONDS
        self._borrowed = borrow_from if borrow_from and _is_directory(borrow_from) else None
        for name in ("objects/info", "refs", "info"):
            (folder / name).mkdir(parents=True)
        (folder / "HEAD").write_text("ref: refs/heads/none\n")
        (folder / "info" / "attributes").write_text(ATTRIBUTES)
        objects = "sha1"
        if self._borrowed is not None:
            objects = self._borrow(self._borrowed)
        version = 0 if objects == "sha1" else 1
        config = CONFIG.format(version=version, objects=objects)
        if version == 0:
            config = config.partition("[extensions]")[0]
        (folder / "config").write_text(config)

    def _borrow(self, repository: Path) -> str:
        """Take over what is data, and return which kind of object names it uses."""
        with Place(self._folder) as own:
            for file in (repository / "index", *repository.glob("sharedindex.*")):
                if _is_file(file):
                    trees.write(own, file.name, file, 0o600)
            if _is_file(repository / "info" / "exclude"):
                own.into("info")
                trees.write(own, "exclude", repository / "info" / "exclude", 0o600)
        if _is_directory(repository / "objects"):
            # Git reads them there, and only ever touches the times of those that it finds again.
            alternates = self._folder / "objects" / "info" / "alternates"
            alternates.write_bytes(os.fsencode(repository / "objects") + b"\n")
        config = repository / "config"
        text = config.read_text(errors="replace") if _is_file(config) else ""
        found = re.search(r"^\s*objectformat\s*=\s*sha256\s*$", text, re.IGNORECASE | re.MULTILINE)
        return "sha256" if found else "sha1"

    def borrowed_entries(self) -> list[str]:
        if not _is_file(self._folder / "index"):
            return []
        listed = self.run("ls-files", "-z", "--stage", index="index")
        return listed.decode(errors="surrogateescape").split("\0")[:-1]

    def entries_of(self, tree: str) -> bytes:
        return self.run("ls-tree", "-r", "-z", "--full-tree", tree)

    def track(self, name: str, entries: bytes) -> None:
        """Begin the index ``name`` with ``entries``, which are tracked whatever is ignored.

        They come without times and sizes: git then reads every file instead of trusting what it remembers.
        """
        self.run("update-index", "-z", "--index-info", index=name, given=entries)

    def untracked(self, name: str, tree: Path, paths: Iterable[str]) -> list[str]:
        """Those of ``paths`` that are in ``tree``, not in the index ``name``, and not ignored."""
        places = [f":(top,literal){path}" for path in paths]
        listed = self.run(
            "ls-files", "-z", "--others", "--exclude-standard", "--", *places, tree=tree, index=name
        )
        return listed.decode(errors="surrogateescape").split("\0")[:-1]

    def record(self, name: str, tree: Path, left_out: Iterable[str]) -> str:
        """Bring the index ``name`` up to what ``tree`` contains; returns the id of its git tree."""
        return self._add(
            name, tree, [":/", *(f":(top,exclude,literal){path}" for path in left_out)]
        )

    def record_more(self, name: str, tree: Path, paths: Iterable[str]) -> str:
        """Add ``paths`` to what ``record`` recorded, even if they are ignored; returns the new id."""
        return self._add(name, tree, [f":(top,literal){path}" for path in paths], "--force")

    def _add(self, name: str, tree: Path, places: list[str], *options: str) -> str:
        given = "\0".join(places).encode(errors="surrogateescape")
        add = ("add", "--all", *options, "--pathspec-from-file=-", "--pathspec-file-nul")
        self.run(*add, tree=tree, index=name, given=given)
        return self.run("write-tree", index=name).decode().strip()

    def run(
        self,
        *arguments: str,
        tree: Path | None = None,
        index: str = "unused",
        given: bytes = b"",
        most: int | None = None,
    ) -> bytes:
        """Run git and return what it prints, which may be ``most`` bytes; raises ``PatchRefused``."""
        given_file, errors = self._folder / "given", self._folder / "errors"
        given_file.write_bytes(given)
        with given_file.open("rb") as stdin, errors.open("wb") as stderr:
            running = subprocess.Popen(
                [self._git, *arguments],
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=stderr,
                cwd=tree or self._folder,
                env=self._environment(tree, index),
                start_new_session=True,
            )
        with running:
            try:
                printed = self._read(running, most)
            except BaseException:
                running.kill()
                raise
        if running.returncode != 0:
            said = errors.read_bytes()[-2000:].decode(errors="replace").strip()
            raise PatchRefused(f"git {arguments[0]}: {said}")
        return printed

    def _read(self, running: "subprocess.Popen[bytes]", most: int | None) -> bytes:
        pipe = cast(IO[bytes], running.stdout).fileno()
        events = select.poll()
        events.register(pipe, select.POLLIN)
        printed = bytearray()
        while True:
            left = self._give_up_at - time.monotonic()
            if not events.poll(max(0.0, left) * 1000):
                raise PatchRefused(f"git took longer than {TIMEOUT_SECONDS:.0f} seconds")
            more = os.read(pipe, 1 << 18)
            if not more:
                return bytes(printed)
            printed += more
            if most is not None and len(printed) > most:
                raise PatchRefused(f"the patch is larger than {most} bytes")

    def _environment(self, tree: Path | None, index: str) -> dict[str, str]:
        return {
            "PATH": os.defpath,
            "HOME": "/nonexistent",
            "LC_ALL": "C",
            "GIT_DIR": str(self._folder),
            "GIT_WORK_TREE": str(tree or self._folder),
            "GIT_INDEX_FILE": str(self._folder / index),
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_SYSTEM": "/dev/null",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_TERMINAL_PROMPT": "0",
        }


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _is_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
