"""One server for the tests that only look at it, and a repository for their tasks."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.whole.archives import make_repository
from tests.whole.running import Server, serving


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="session")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repositories") / "numbers"
    make_repository(folder)
    return folder
