"""The keeper without walls: plain directories and plain processes of our own user.

It keeps every promise about time, output, leftovers and order, and none about
secrecy: a command can read what the server can, and reach the network and other
tasks. It is there for machines without anything better and for trusted agents, and has to be chosen.

A layer lies under ``layers/`` and is moved to ``live`` while something runs in
it. Virtual environments, editable installs and scripts contain absolute paths:
so they mean the same in every layer, and each layer finds its own files there.
"""

import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from batches.sandbox import gitdiff, toolchain, trees
from batches.sandbox.places import Place, open_up
from batches.sandbox.promise import (
    Capabilities,
    Command,
    FileToPut,
    Finished,
    Layer,
    Patch,
    SandboxError,
    SandboxUnavailable,
    Snapshot,
)
from batches.sandbox.supervise import supervise

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
BASE_TIMEOUT_SECONDS = 120.0
MISSING = (
    "file system isolation: a command can read and write whatever this server can",
    "network isolation: a command can reach whatever this server can",
    "isolation from other tasks: a command can see and end their processes",
)


class ProcessKeeper:
    """Runs commands as ordinary processes of this server's user.

    ``path`` is where programs are looked for, ``pass_env`` is added to every
    command's environment. ``run`` has to be called from a thread that lives as
    long as the command. Layers and snapshots belong to the keeper that made them.
    """

    def __init__(
        self,
        workdir: Path,
        *,
        path: str = PATH,
        pass_env: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        workdir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._workdir = workdir.resolve()
        self._layers = self._workdir / "layers"
        self._live = self._workdir / "live"
        self._scratch = self._workdir / "scratch"
        self._path = path
        self._pass_env = dict(pass_env)
        self._writable: set[Path] = set()
        self._busy = threading.Lock()

    def probe(self) -> Capabilities:
        """Run something that leaves a process behind, and see that both are told and ended."""
        try:
            self._try_out()
        except SandboxUnavailable as error:
            return Capabilities("process", usable=False, isolated=False, missing=(str(error),))
        return Capabilities("process", usable=True, isolated=False, missing=MISSING)

    def _try_out(self) -> None:
        gitdiff.find_git(self._path)
        layer = self._new_layer("probe")
        try:
            command = Command(("sh", "-c", "sleep 60 & echo ready"), timeout_seconds=20)
            finished = self.run(layer, command)
        except (SandboxError, OSError) as error:
            raise SandboxUnavailable(f"a command could not be run: {error}") from error
        finally:
            self.discard(layer)
        told = (finished.ok, finished.head + finished.tail, finished.survivors)
        if told != (True, b"ready\n", 1):
            raise SandboxUnavailable(f"a command did not do what it should: {finished}")

    def open_base(self) -> Snapshot:
        layer = self._new_layer("base")
        venv = str(self._live / "venv")
        made = self.run(
            layer,
            Command(("python3", "-m", "venv", "--without-pip", venv), BASE_TIMEOUT_SECONDS),
        )
        if made.ok:
            toolchain.add_pip(layer.root / "venv")
        elif made.exit_code != 127:
            said = (made.head + made.tail).decode(errors="replace")
            raise SandboxUnavailable(f"python3 could not make a virtual environment: {said}")
        return self.freeze(layer)

    def fork(self, snapshot: Snapshot, name: str) -> Layer:
        root = self._new_root(name)
        trees.copy(snapshot.root, root)
        return self._layer(root)

    def show(self, layer: Layer, source: Path, name: str, *, ours: bool = False) -> str:
        _check_name(name)
        self._check_writable(layer)
        if ours:
            return str(source.resolve())
        with Place(layer.root) as place:
            trees.make_folder(place, "shown")
        shown = layer.root / "shown" / name
        trees.remove(shown)
        trees.copy(source.resolve(), shown, writable=False)
        return str(self._live / "shown" / name)

    def put(self, layer: Layer, files: Iterable[FileToPut]) -> None:
        self._check_writable(layer)
        for file in files:
            *folders, name = _checked_parts(file.path)
            with Place(layer.root) as place:
                for folder in ("repo", *folders):
                    trees.make_folder(place, folder)
                    place.into(folder)
                trees.write(place, name, file.source, 0o755 if file.executable else 0o644)

    def run(
        self, layer: Layer, command: Command, cancel: threading.Event | None = None
    ) -> Finished:
        self._check_writable(layer)
        with self._at_its_place(layer):
            env = {
                **toolchain.environment(self._live, self._path),
                **self._pass_env,
                **command.env,
            }
            return supervise(command, env, command.cwd or layer.repo, self._live, cancel)

    def freeze(self, layer: Layer) -> Snapshot:
        self._check_writable(layer)
        self._writable.remove(layer.root)
        return Snapshot(layer.root)

    def export_patch(self, layer: Layer, since: Snapshot, max_bytes: int) -> Patch:
        self._check_writable(layer)
        with self._private_folder() as scratch:
            return gitdiff.export(
                gitdiff.find_git(self._path),
                before=since.root / "repo",
                after=layer.root / "repo",
                scratch=scratch,
                max_bytes=max_bytes,
            )

    def apply_patch(self, layer: Layer, patch: Patch) -> None:
        self._check_writable(layer)
        with self._private_folder() as scratch:
            gitdiff.apply(gitdiff.find_git(self._path), patch.diff, layer.root / "repo", scratch)

    def discard(self, layer: Layer | Snapshot) -> None:
        self._writable.discard(layer.root)
        trees.remove(layer.root)

    def close(self) -> None:
        self._writable.clear()
        trees.remove(self._workdir)

    def _new_layer(self, name: str) -> Layer:
        root = self._new_root(name)
        for folder in ("repo", "home", "tmp", "shown"):
            (root / folder).mkdir(parents=True)
        return self._layer(root)

    def _new_root(self, name: str) -> Path:
        _check_name(name)
        self._layers.mkdir(exist_ok=True)
        root = self._layers / name
        if root.exists():
            raise SandboxError(f"there is a layer {name} already")
        return root

    def _layer(self, root: Path) -> Layer:
        self._writable.add(root)
        return Layer(root, repo=str(self._live / "repo"), home=str(self._live / "home"))

    def _check_writable(self, layer: Layer) -> None:
        if layer.root not in self._writable:
            raise SandboxError(f"{layer.root.name} is frozen or discarded")

    @contextmanager
    def _at_its_place(self, layer: Layer) -> Iterator[None]:
        """``layer`` is at ``live`` meanwhile: one at a time, as a task's phases are."""
        if not self._busy.acquire(blocking=False):
            raise SandboxError("another command of this task is still running")
        try:
            with Place(layer.root) as place:
                for folder in ("home", "tmp"):  # an earlier command may have removed them
                    trees.make_folder(place, folder)
            layer.root.rename(self._live)
            try:
                yield
            finally:
                self._put_back(layer.root)
        finally:
            self._busy.release()

    def _put_back(self, root: Path) -> None:
        # The command was free to remove the folder that it lived in, or to put a link there.
        with Place(self._workdir) as place:
            trees.make_folder(place, self._live.name)
            trees.make_folder(place, self._layers.name)
        open_up(self._live)
        trees.remove(root)
        self._live.rename(root)

    @contextmanager
    def _private_folder(self) -> Iterator[Path]:
        trees.remove(self._scratch)
        self._scratch.mkdir(mode=0o700)
        try:
            yield self._scratch
        finally:
            trees.remove(self._scratch)


def _check_name(name: str) -> None:
    if NAME.fullmatch(name) is None:
        raise ValueError(f"not a plain name: {name!r}")


def _checked_parts(path: str) -> tuple[str, ...]:
    parts = PurePosixPath(path).parts
    inside = parts and not path.startswith("/") and ".." not in parts
    if not inside or any(part.casefold() == ".git" for part in parts):
        raise ValueError(f"not a path for a file of the repository: {path!r}")
    return parts
