"""The sandbox keeper that the settings name."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.conf import settings

from batches.sandbox.process import ProcessKeeper
from batches.sandbox.promise import Keeper

KEEPERS = {"process": ProcessKeeper}


@contextmanager
def opened(workdir: Path) -> Iterator[Keeper]:
    """A keeper whose layers lie in ``workdir``; all of them are gone at the end."""
    passed = {name: os.environ[name] for name in settings.TASK_ENV if name in os.environ}
    keeper = KEEPERS[settings.SANDBOX](workdir, path=settings.TASK_PATH, pass_env=passed)
    try:
        yield keeper
    finally:
        keeper.close()
