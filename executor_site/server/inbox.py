"""What an application receives: a queue of ASGI messages that holds the client back when full."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

Message = Mapping[str, Any]

PAUSE_ABOVE_BYTES = 1024 * 1024
RESUME_BELOW_BYTES = 256 * 1024
MESSAGE_COST_BYTES = 256
"""Added to every message's payload, so that a flood of empty ones counts as well."""

DISCONNECTS = frozenset({"http.disconnect", "websocket.disconnect"})


def cost(message: Message) -> int:
    """Roughly the memory that a waiting message takes, in bytes."""
    payload = message.get("body") or message.get("bytes") or message.get("text") or b""
    return len(payload) + MESSAGE_COST_BYTES


class Inbox:
    """The messages for one application.

    ``pause`` is called when more than ``PAUSE_ABOVE_BYTES`` wait (again for every
    message beyond), ``resume`` once, when fewer than ``RESUME_BELOW_BYTES`` are left.
    A disconnect stays the last message for ever, however often it is asked for.
    """

    def __init__(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        self.starving = False
        """True while the application waits for a message that the client has yet to send."""
        self._pause = pause
        self._resume = resume
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._bytes = 0
        self._paused = False

    def put_nowait(self, message: Message) -> None:
        """Deliver a message. The name is what Daphne's protocols call."""
        self._messages.put_nowait(message)
        self._bytes += cost(message)
        if self._bytes > PAUSE_ABOVE_BYTES:
            # Twisted itself resumes a transport whose output has drained, so
            # one call at the moment of crossing the line would not be enough.
            self._paused = True
            self._pause()

    async def receive(self) -> Message:
        """The application's ``receive``."""
        if self._messages.empty():
            self.asked()
        self.starving = self._messages.empty()
        try:
            message = await self._messages.get()
        finally:
            self.starving = False
        self._bytes -= cost(message)
        if self._paused and self._bytes < RESUME_BELOW_BYTES:
            self._paused = False
            self._resume()
        if message["type"] in DISCONNECTS:
            self.put_nowait(message)
        return message

    def asked(self) -> None:
        """The application wants a message and there is none yet."""


class BodyInbox(Inbox):
    """The inbox of a request whose body is handed on while it arrives."""

    def __init__(
        self, pause: Callable[[], None], resume: Callable[[], None], asked: Callable[[], None]
    ) -> None:
        super().__init__(pause, resume)
        self._asked = asked

    def put_nowait(self, message: Message) -> None:
        # Daphne announces the body that it believes to have stored: an empty,
        # final one. Ours comes through feed() and end().
        if message["type"] != "http.request":
            super().put_nowait(message)

    def feed(self, data: bytes) -> None:
        super().put_nowait({"type": "http.request", "body": data, "more_body": True})

    def end(self) -> None:
        super().put_nowait({"type": "http.request", "body": b"", "more_body": False})

    def asked(self) -> None:
        self._asked()
