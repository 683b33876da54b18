"""Django's ASGI handler with a body that is read when somebody asks for it.

The stock handler stores the whole body before any middleware runs: a stranger's
upload would be on the disk before it is refused. Here the request exists as soon
as its headers do, and its body is pulled from ``receive`` by whoever reads it.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import django
from django.core.exceptions import RequestAborted, SynchronousOnlyOperation
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.http import UnreadablePostError

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]


def declares_body(scope: Mapping[str, Any]) -> bool:
    """Whether the headers announce a body: in HTTP/1.1, the only way for one to exist."""
    headers = dict(scope["headers"])
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"


class Intake:
    """The one caller of a request's ``receive``, for the body and for the disconnect after it."""

    def __init__(self, scope: Mapping[str, Any], receive: Receive) -> None:
        self.loop = asyncio.get_running_loop()
        self._receive = receive
        self._ended = asyncio.Event()
        self._client_left = False
        if not declares_body(scope):
            self._ended.set()

    @property
    def ended(self) -> bool:
        """Nothing more will come: all of the body was received, or its client left."""
        return self._ended.is_set()

    async def next_chunk(self) -> bytes:
        """Some more of the body; empty at its end. ``UnreadablePostError`` if the client left."""
        while not self._ended.is_set():
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._client_left = True
                self._ended.set()
                break
            if not message.get("more_body", False):
                self._ended.set()
            if message.get("body"):
                return bytes(message["body"])
        return self.nothing_more()

    def nothing_more(self) -> bytes:
        """What there is to read once the body has ended; see ``next_chunk``."""
        if self._client_left:
            raise UnreadablePostError("the client left before the body was complete")
        return b""

    async def client_leaves(self) -> None:
        """Return when the client has left.

        While the body is incomplete, only whoever reads it can find out: to ask
        for a message here would take it from the reader, and would ask a client
        that waits for "100 Continue" for a body that may yet be refused.
        """
        await self._ended.wait()
        while not self._client_left:
            message = await self._receive()
            self._client_left = message["type"] == "http.disconnect"


class LazyBody:
    """The body as a file for synchronous code, which has to run in a thread of its own."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._ahead = b""
        self.closed = False

    def read(self, size: int | None = -1) -> bytes:
        """Exactly ``size`` bytes, or what there is up to the end."""
        wanted = sys.maxsize if size is None or size < 0 else size
        parts = []
        while wanted and (self._ahead or self._pull()):
            part, self._ahead = self._ahead[:wanted], self._ahead[wanted:]
            wanted -= len(part)
            parts.append(part)
        return b"".join(parts)

    def readline(self, size: int | None = -1) -> bytes:
        wanted = sys.maxsize if size is None or size < 0 else size
        parts: list[bytes] = []
        while (
            wanted and not (parts and parts[-1].endswith(b"\n")) and (self._ahead or self._pull())
        ):
            end = self._ahead.find(b"\n") + 1 or len(self._ahead)
            parts.append(self.read(min(end, wanted)))
            wanted -= len(parts[-1])
        return b"".join(parts)

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        self.closed = True
        self._ahead = b""

    def _pull(self) -> bytes:
        if self.closed:
            raise ValueError("the body was closed")
        if self._intake.ended:
            return self._intake.nothing_more()
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            future = asyncio.run_coroutine_threadsafe(self._intake.next_chunk(), self._intake.loop)
            self._ahead = future.result()
            return self._ahead
        # Waiting for the client on the thread that serves the client would never end.
        raise SynchronousOnlyOperation(
            "The body of a request is read while it arrives, which blocks: "
            "read it in a synchronous view, or through sync_to_async()."
        )


class LazyBodyRequest(ASGIRequest):
    """A request whose multipart body may come without a Content-Length."""

    def parse_file_upload(self, META: Mapping[str, Any], post_data: Any) -> Any:
        # Django's parser takes a missing length for an empty body. A chunked one
        # has none, and the parser stops at the end of the stream anyway.
        if "CONTENT_LENGTH" not in META:
            META = {**META, "CONTENT_LENGTH": str(sys.maxsize)}
        return super().parse_file_upload(META, post_data)


class LazyBodyHandler(ASGIHandler):
    """See the module. Everything but where the body comes from is Django's."""

    request_class = LazyBodyRequest

    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        # The stock method only passes ``receive`` on, to the two methods below.
        intake: Any = Intake(scope, receive)
        await super().handle(scope, intake, send)

    async def read_body(self, receive: Any) -> Any:
        return LazyBody(receive)

    async def listen_for_disconnect(self, receive: Any) -> None:
        await receive.client_leaves()
        raise RequestAborted


def get_asgi_application() -> LazyBodyHandler:
    """Set Django up and return its application."""
    django.setup(set_prefix=False)
    return LazyBodyHandler()
