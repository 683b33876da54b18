"""HTTP requests that reach the application at the end of their headers, with streamed bodies."""

import asyncio
import json
from io import BytesIO
from typing import Any

import daphne.server  # noqa: F401 - installs the reactor, and has to come before Twisted's own
from daphne.http_protocol import HTTPFactory, WebRequest
from twisted.internet import reactor
from twisted.web.http import HTTPChannel

from executor_site.server.inbox import BodyInbox, Inbox, Message

LINGER_SECONDS = 2.0
STALLED_READER_SECONDS = 60.0


class StreamedRequest(WebRequest):  # type: ignore[misc]
    """One HTTP request.

    Twisted stores a body before anybody sees the request, parses it when it is
    multipart, and Daphne then copies all of it into memory. Here a request with
    a body goes to the application from ``gotLength``, the first call after its
    headers; one without a body takes the stock way, WebSocket handshakes included.
    """

    streams = False
    """Has a body, which is handed on as it arrives."""
    body_received = False
    _awaits_continue = False
    _deadline: Any = None
    _linger: Any = None

    # From the wire

    def gotLength(self, length: int | None) -> None:
        # Daphne would let any client choose SCRIPT_NAME with this header, and so
        # walk around whatever matches on request.path. WebSocket handshakes are
        # re-read from these headers, so that it is gone for them as well.
        self.requestHeaders.removeHeader(b"daphne-root-path")
        expects = self.requestHeaders.getRawHeaders(b"expect", [b""])[0]
        # The channel answers an Expect that it finds here at once; see body_wanted().
        self.requestHeaders.removeHeader(b"expect")
        if length == 0:
            super().gotLength(length)
            return
        # A handshake has no body. Whoever sends one gets it handled as plain HTTP.
        self.requestHeaders.removeHeader(b"upgrade")
        channel = self.channel
        self.streams = True
        self.method, self.uri, self.clientproto = channel._command, channel._path, channel._version
        self.path = self.uri.split(b"?", 1)[0]
        self.content = BytesIO()
        self._awaits_continue = (
            expects.lower() == b"100-continue" and self.clientproto == b"HTTP/1.1"
        )
        self._deadline = reactor.callLater(self.server.body_deadline_seconds, self._overdue)
        self.process()

    def process(self) -> Any:
        channel = self.channel
        outcome = super().process()
        if self.transport is None:  # handed over to a WebSocket, which now owns the connection
            channel.factory.channels.discard(channel)
        return outcome

    def handleContentChunk(self, data: bytes) -> None:
        self._awaits_continue = False
        if not self.finished and self.application_queue is not None:
            self.application_queue.feed(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        if not self.streams:
            super().requestReceived(command, path, version)
            return
        self.body_received = True
        self._cancel_timers()
        if self.finished:
            super()._cleanup()
        elif self.application_queue is not None:
            self.application_queue.end()

    def connectionLost(self, reason: Any) -> None:
        self._cancel_timers()
        super().connectionLost(reason)

    # For the application

    def open_inbox(self) -> Inbox:
        if self.streams:
            return BodyInbox(self._pause, self._resume, self.body_wanted)
        return Inbox(self._pause, self._resume)

    def body_wanted(self) -> None:
        """Send the "100 Continue" that the client waits for: the application asks for the body.

        An application that refuses by the headers alone never asks, and a
        client that waits never sends a body for nothing.
        """
        if self._awaits_continue and self.channel is not None and not self._response_started:
            self._awaits_continue = False
            self.channel.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    @property
    def busy(self) -> bool:
        """The next move is the application's, not the client's."""
        return self.application_queue is not None and not self.application_queue.starving

    async def drained(self) -> None:
        """Wait until the client has taken what was written so far; give up on one that stalls."""
        channel = self.channel
        if channel is None:
            return
        try:
            await asyncio.wait_for(channel.writable.wait(), STALLED_READER_SECONDS)
        except TimeoutError:
            channel.transport.abortConnection()

    # Answers

    def handle_reply(self, message: Message) -> None:
        if self.finished or self.channel is None:
            return
        if message.get("type") == "http.response.start":
            if self.streams and not self.body_received:
                self.channel.persistent = False  # the rest of the body will not be read
            if not self.channel.persistent:
                self.responseHeaders.setRawHeaders(b"connection", [b"close"])
        super().handle_reply(message)

    def handle_exception(self, exception: BaseException) -> None:
        # The stock method raises when an answer was begun, inside the loop that
        # reaps applications, which then never runs again.
        if self.channel is not None and self._response_started:
            self.channel.transport.abortConnection()
        else:
            super().handle_exception(exception)

    def basic_error(self, status: int, status_text: bytes, body: str) -> None:
        """Answer in the server's own name, in the API's shape. The answer must not have begun."""
        code = status_text.decode("ascii").lower().replace(" ", "_")
        content = json.dumps({"error": code, "message": body}).encode()
        headers = [
            (b"Content-Type", b"application/json"),
            (b"Content-Length", b"%d" % len(content)),
        ]
        self.handle_reply({"type": "http.response.start", "status": status, "headers": headers})
        self.handle_reply({"type": "http.response.body", "body": content})

    def _cleanup(self) -> None:
        """End the request; one that was answered before its body was received lingers first.

        To close at once would reset the connection of a client that still sends,
        and with it the answer that the client has not read yet. Until the client
        has sent everything or ``LINGER_SECONDS`` are up, what comes is dropped.
        """
        self._cancel_timers()
        if self.streams and not self.body_received:
            self._resume()
            self._linger = reactor.callLater(LINGER_SECONDS, super()._cleanup)
        else:
            super()._cleanup()

    def _overdue(self) -> None:
        """The body has taken too long in all, however steadily it drips."""
        self._deadline = None
        if self._response_started:
            self.channel.transport.abortConnection()
        else:
            limit = self.server.body_deadline_seconds
            self.basic_error(
                408, b"Request Timeout", f"The body did not arrive within {limit:g} seconds."
            )

    def _cancel_timers(self) -> None:
        for timer in (self._deadline, self._linger):
            if timer is not None and timer.active():
                timer.cancel()
        self._deadline = self._linger = None

    def _pause(self) -> None:
        if self.channel is not None and not self.finished:
            self.channel.transport.pauseProducing()

    def _resume(self) -> None:
        if self.channel is not None:
            self.channel.transport.resumeProducing()


class Channel(HTTPChannel):  # type: ignore[misc]
    """One HTTP connection. Tells when its output has drained, and can be retired."""

    retiring = False

    def connectionMade(self) -> None:
        super().connectionMade()
        self.writable = asyncio.Event()
        self.writable.set()
        self.factory.channels.add(self)

    def connectionLost(self, reason: Any) -> None:
        self.factory.channels.discard(self)
        self.writable.set()
        super().connectionLost(reason)

    def pauseProducing(self) -> None:
        super().pauseProducing()
        self.writable.clear()

    def resumeProducing(self) -> None:
        super().resumeProducing()
        self.writable.set()

    def timeoutConnection(self) -> None:
        """Close a silent connection, unless it is our application that keeps the client waiting."""
        if self.requests and self.requests[0].busy and not self.requests[0].finished:
            self.setTimeout(self.timeOut)
        else:
            super().timeoutConnection()

    def checkPersistence(self, request: Any, version: bytes) -> bool:
        return not self.retiring and bool(super().checkPersistence(request, version))

    def retire(self) -> None:
        """Close after the answer in hand; at once when there is none."""
        self.retiring = True
        self.persistent = False
        if not self.requests or self.requests[0].application_queue is None:
            self.loseConnection()


class RequestFactory(HTTPFactory):  # type: ignore[misc]
    """Makes our channels and requests, and knows the connections that speak HTTP now."""

    # Without Twisted's wrapper that chooses between HTTP/1 and HTTP/2 by what TLS
    # negotiated: the server speaks plain TCP, TLS ends at the proxy.
    protocol = Channel

    def __init__(self, server: Any) -> None:
        super().__init__(server)
        self.channels: set[Channel] = set()

    def buildProtocol(self, addr: Any) -> Channel:
        channel: Channel = super().buildProtocol(addr)
        channel.requestFactory = StreamedRequest
        return channel
