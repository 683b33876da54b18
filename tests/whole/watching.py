"""A watcher that is cut off, comes back, and may miss and see twice nothing."""

import json
import threading
import time
from typing import Any

from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from tests.whole.running import Server


class Watcher:
    """Watches a batch from its first event, and comes back with ``since`` whenever it is cut off."""

    def __init__(self, server: Server, batch_id: str) -> None:
        self.frames: list[dict[str, Any]] = []
        self.connections = 0
        self._server = server
        self._batch_id = batch_id
        self._refusal: dict[str, Any] = {}
        self._given_up = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def all(self, seconds: float = 60) -> list[dict[str, Any]]:
        """What it was sent, once the server has told that nothing will follow."""
        self._thread.join(seconds)
        self._given_up.set()
        assert self._over, f"after {seconds} s: {self._refusal or self.frames[-1:]}"
        return self.frames

    @property
    def _over(self) -> bool:
        return bool(self.frames) and self.frames[-1]["event"] == "stream_closed"

    def _watch(self) -> None:
        while not self._over and not self._given_up.is_set():
            try:
                self._listen()
            except (OSError, WebSocketException):
                time.sleep(0.1)

    def _listen(self) -> None:
        since = self.frames[-1]["seq"] if self.frames else 0
        address = self._server.url.replace("http", "ws", 1)
        with connect(f"{address}/ws?batch_id={self._batch_id}&since={since}") as socket:
            self.connections += 1
            for text in socket:
                frame = json.loads(text)
                if "error" in frame:
                    self._refusal = frame
                    self._given_up.set()
                    return
                self.frames.append(frame)
