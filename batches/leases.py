"""Keeping a claim alive while its work is done, and noticing when it is lost."""

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType

from django.conf import settings
from django.db import DatabaseError, connections

logger = logging.getLogger(__name__)


class Held:
    """A lease that a thread renews once a second for as long as the ``with`` block runs.

    ``lost`` is set when ``renew`` says so, or when the database could not be
    asked for as long as a lease lasts: by then somebody else may hold it.
    Work that sees ``lost`` set must stop and write nothing.
    """

    def __init__(self, renew: Callable[[], bool]) -> None:
        self.lost = threading.Event()
        self._renew = renew
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)

    def __enter__(self) -> "Held":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()

    def _beat(self) -> None:
        renewed = time.monotonic()
        try:
            while not self._done.wait(1.0):
                try:
                    if not self._renew():
                        self.lost.set()
                        return
                    renewed = time.monotonic()
                except DatabaseError as error:
                    logger.warning("a lease could not be renewed: %s", error)
                    connections.close_all()
                    if time.monotonic() - renewed > settings.LEASE_SECS:
                        self.lost.set()
                        return
        finally:
            connections.close_all()
