"""A keeper that runs nothing: for tests that are not about what happens inside a sandbox."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from batches import keepers
from batches.sandbox.promise import (
    Capabilities,
    Command,
    FileToPut,
    Finished,
    Layer,
    Patch,
    Reason,
    Snapshot,
)


def ended(exit_code: int | None = 0, output: bytes = b"", **more: object) -> Finished:
    """What became of a command that exited with ``exit_code``, unless ``more`` says otherwise."""
    return Finished(
        **{
            "exit_code": exit_code,
            "reason": Reason.EXITED,
            "head": output,
            "tail": b"",
            "output_bytes": len(output),
            "wall_seconds": 0.5,
            "cpu_seconds": 0.25,
            "peak_memory_bytes": 1024,
            **more,
        }
    )


GREEN = ended()
RED = ended(1)

Reply = Finished | BaseException | Callable[[], Finished]


@dataclass
class Script:
    """What commands come to. Green, unless their words contain one of ``replies``.

    A reply that is an exception is raised, and one that is a function is called.
    """

    replies: dict[str, Reply] = field(default_factory=dict)
    patch: Patch | BaseException = Patch(b"")
    refused: BaseException | None = None
    """Raised instead of applying the patch."""
    commands: list[Command] = field(default_factory=list)
    applied: list[Patch] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    """The files that were put into repositories."""

    def play(self, command: Command) -> Finished:
        self.commands.append(command)
        words = " ".join(command.argv)
        for part, reply in self.replies.items():
            if part not in words:
                continue
            if isinstance(reply, BaseException):
                raise reply
            return reply if isinstance(reply, Finished) else reply()
        return GREEN


class ScriptedKeeper:
    """Makes folders, so that there is something to see and to remove, and answers by ``script``."""

    def __init__(
        self, workdir: Path, *, path: str, pass_env: Mapping[str, str], script: Script
    ) -> None:
        workdir.mkdir(parents=True)
        self.workdir = workdir
        self.script = script

    def probe(self) -> Capabilities:
        return Capabilities("scripted", usable=True, isolated=True)

    def open_base(self) -> Snapshot:
        return Snapshot(self._folder("base"))

    def fork(self, snapshot: Snapshot, name: str) -> Layer:
        return Layer(self._folder(name), repo="/repo", home="/home")

    def show(self, layer: Layer, source: Path, name: str, *, ours: bool = False) -> str:
        assert source.exists()
        return f"/shown/{name}"

    def put(self, layer: Layer, files: Iterable[FileToPut]) -> None:
        for file in files:
            assert file.source.is_file()
            self.script.written.append(file.path)

    def run(
        self, layer: Layer, command: Command, cancel: threading.Event | None = None
    ) -> Finished:
        return self.script.play(command)

    def freeze(self, layer: Layer) -> Snapshot:
        return Snapshot(layer.root)

    def export_patch(self, layer: Layer, since: Snapshot, max_bytes: int) -> Patch:
        if isinstance(self.script.patch, BaseException):
            raise self.script.patch
        return self.script.patch

    def apply_patch(self, layer: Layer, patch: Patch) -> None:
        if self.script.refused is not None:
            raise self.script.refused
        self.script.applied.append(patch)

    def discard(self, layer: Layer | Snapshot) -> None:
        layer.root.rmdir()

    def close(self) -> None:
        if self.workdir.exists():
            for folder in self.workdir.iterdir():
                folder.rmdir()
            self.workdir.rmdir()

    def _folder(self, name: str) -> Path:
        folder = self.workdir / name
        folder.mkdir()
        return folder


@contextmanager
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Script]:
    """Have every task run by a scripted keeper; the script is the test's to write."""
    script = Script()

    def make(workdir: Path, *, path: str, pass_env: Mapping[str, str]) -> ScriptedKeeper:
        return ScriptedKeeper(workdir, path=path, pass_env=pass_env, script=script)

    with monkeypatch.context() as patch:
        patch.setitem(keepers.KEEPERS, "process", make)  # type: ignore[arg-type]
        yield script
