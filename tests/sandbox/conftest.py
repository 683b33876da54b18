"""Every keeper that works on this machine, and short ways to use one."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from batches.sandbox.process import ProcessKeeper
from batches.sandbox.promise import Command, Finished, Keeper, Layer, Snapshot

KEEPERS: dict[str, Callable[[Path], Keeper]] = {"process": ProcessKeeper}
WORKS_EVERYWHERE = {"process"}
WITHOUT_WALLS = {"process"}

numbers = itertools.count()


@pytest.fixture(scope="session", params=sorted(KEEPERS))
def keeper(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Keeper]:
    keeper = KEEPERS[request.param](tmp_path_factory.mktemp(request.param) / "work")
    found = keeper.probe()
    if not found.usable:
        give_up = pytest.fail if found.keeper in WORKS_EVERYWHERE else pytest.skip
        give_up(f"{found.keeper}: {'; '.join(found.missing)}")
    yield keeper
    keeper.close()


@pytest.fixture(scope="session")
def base(keeper: Keeper) -> Snapshot:
    return keeper.open_base()


@pytest.fixture(scope="session")
def ground(keeper: Keeper, base: Snapshot) -> Snapshot:
    """The base without pip, which makes most of its files: quicker to fork."""
    layer = keeper.fork(base, "ground")
    sh(keeper, layer, "rm -rf $VIRTUAL_ENV/lib/python3*/site-packages/pip*")
    return keeper.freeze(layer)


@pytest.fixture
def layer(keeper: Keeper, ground: Snapshot) -> Iterator[Layer]:
    """A layer for this test alone."""
    layer = keeper.fork(ground, f"layer-{next(numbers)}")
    yield layer
    keeper.discard(layer)


@pytest.fixture(scope="session")
def room(keeper: Keeper, base: Snapshot) -> Layer:
    """A layer that many tests share, for what leaves nothing behind that another would notice."""
    return keeper.fork(base, "room")


@pytest.fixture
def isolated(keeper: Keeper) -> None:
    """For promises that only walls can keep; no test of a keeper ``WITHOUT_WALLS`` is made of them."""
    assert keeper.probe().isolated


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    def is_out_of_place(item: pytest.Item) -> bool:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        return (
            "isolated" in getattr(item, "fixturenames", ())
            and parameters.get("keeper") in WITHOUT_WALLS
        )

    removed = [item for item in items if is_out_of_place(item)]
    if removed:
        config.hook.pytest_deselected(items=removed)
        items[:] = [item for item in items if not is_out_of_place(item)]


def sh(
    keeper: Keeper, layer: Layer, script: str, timeout_seconds: float = 30, **more: Any
) -> Finished:
    return keeper.run(layer, Command(("sh", "-c", script), timeout_seconds, **more))


def py(
    keeper: Keeper, layer: Layer, script: str, timeout_seconds: float = 30, **more: Any
) -> Finished:
    return keeper.run(layer, Command(("python3", "-c", script), timeout_seconds, **more))


def said(finished: Finished) -> str:
    """What a command printed, which has to have ended well."""
    assert finished.ok, finished
    return (finished.head + finished.tail).decode()


def alive_with(argument: str) -> list[str]:
    """The command lines on this machine that have ``argument``, of living processes."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                arguments = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if argument in arguments:
                found.append(" ".join(arguments))
    return found
