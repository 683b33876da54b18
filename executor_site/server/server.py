"""Daphne's server with our requests and sockets, and a stop that drains but never hangs."""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

from daphne import server as daphne
from twisted.internet import defer, reactor
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    STDLibLogObserver,
    globalLogBeginner,
)

from executor_site.server.inbox import Inbox, Message
from executor_site.server.requests import RequestFactory, StreamedRequest
from executor_site.server.sockets import SERVICE_RESTART, Socket, SocketFactory

logger = logging.getLogger(__name__)

Application = Callable[..., Awaitable[None]]

LISTEN_BACKLOG = 1024
LOOK_AGAIN_SECONDS = 0.05
SOCKET_GOODBYE_SECONDS = 2.0
"""At a stop, how long a WebSocket client may take to answer our close frame."""
CUT_SECONDS = 1.0
"""How long cancelled applications may take to end before they are left behind."""
EXIT_SECONDS = 2.0
"""How long the interpreter may take to exit before it is ended the hard way."""


class Server(daphne.Server):  # type: ignore[misc]
    """One listening socket and everything that is connected to it.

    ``on_listening`` gets the port, which matters when ``port`` is 0. ``on_start`` is
    run as a task for as long as the server runs; if it fails, the server stops.
    ``options`` are Daphne's: ``ping_interval``, ``proxy_forwarded_address_header`` …
    """

    def __init__(
        self,
        application: Application,
        *,
        host: str,
        port: int,
        grace_seconds: float,
        body_deadline_seconds: float,
        socket_buffer_bytes: int = 4 * 1024 * 1024,
        on_listening: Callable[[int], None] | None = None,
        on_start: Callable[[], Awaitable[None]] | None = None,
        **options: Any,
    ) -> None:
        # The endpoints are not used; Daphne exits where it is given none.
        options = {"server_name": "term-executor", **options, "endpoints": ["tcp:0"]}
        super().__init__(application, **options)
        self.host = host
        self.port = port
        self.grace_seconds = grace_seconds
        self.body_deadline_seconds = body_deadline_seconds
        self.socket_buffer_bytes = socket_buffer_bytes
        self.on_listening = on_listening
        self.on_start = on_start
        self.companion: asyncio.Future[None] | None = None

    def run(self) -> None:
        """Listen and serve until a signal or ``stop()``; returns when everything has ended.

        Written anew instead of extended: the stock method takes its factories
        from module globals, and replacing those would change Daphne for everybody
        in the process. What is called here are its public hooks.
        """
        observer = STDLibLogObserver(__name__)
        crashes = LogLevelFilterPredicate(defaultLogLevel=LogLevel.critical)
        globalLogBeginner.beginLoggingTo(
            [FilteringLogObserver(observer, [crashes])], redirectStandardIO=False
        )
        asyncio.set_event_loop(daphne.twisted_loop)
        self.connections: dict[Any, dict[str, Any]] = {}
        self.http_factory = RequestFactory(self)
        self.ws_factory = SocketFactory(self, self.server_name)
        self.listener = reactor.listenTCP(
            self.port, self.http_factory, backlog=LISTEN_BACKLOG, interface=self.host
        )
        reactor.callLater(1, self.application_checker)
        reactor.callLater(2, self.timeout_checker)
        reactor.callWhenRunning(self._started)
        reactor.addSystemEventTrigger("before", "shutdown", self._stopping)
        reactor.run(installSignalHandlers=self.signal_handlers)
        if self.companion is not None and self.companion.done() and not self.companion.cancelled():
            self.companion.result()  # raises what made us stop

    # Applications

    def create_application(
        self, protocol: StreamedRequest | Socket, scope: dict[str, Any]
    ) -> Inbox | None:
        """Start the application for a request or socket; returns where its messages go.

        The stock method does the same around a queue without bounds that it
        makes itself.
        """
        details = self.connections.get(protocol)
        if details is None:
            return None
        inbox = protocol.open_inbox()
        scope.setdefault("asgi", {"version": "3.0"})
        running = self.application(scope, inbox.receive, partial(self.handle_reply, protocol))
        details["application_instance"] = asyncio.ensure_future(running)
        return inbox

    async def handle_reply(self, protocol: StreamedRequest | Socket, message: Message) -> None:
        """The application's ``send``; for a long answer, no faster than the client reads."""
        await super().handle_reply(protocol, message)
        if message.get("type") == "http.response.body" and message.get("more_body"):
            await protocol.drained()

    def protocol_disconnected(self, protocol: StreamedRequest | Socket) -> None:
        # A refused WebSocket disconnects twice, the second time perhaps after it was reaped.
        if protocol in self.connections:
            super().protocol_disconnected(protocol)

    # Start and stop

    def _started(self) -> None:
        if self.on_start is not None:
            self.companion = asyncio.ensure_future(self.on_start())
            self.companion.add_done_callback(self._companion_ended)
        if self.on_listening is not None:
            self.on_listening(self.listener.getHost().port)

    def _companion_ended(self, companion: "asyncio.Future[None]") -> None:
        if not companion.cancelled() and companion.exception() is not None:
            logger.critical("What runs beside the server failed; stopping")
            self.stop()

    def _stopping(self) -> Any:
        return defer.Deferred.fromFuture(asyncio.ensure_future(self._drain()))

    async def _drain(self) -> None:
        """Refuse what is new, finish what was begun, and cut what is left after the grace.

        The grace is for requests. Sockets are told to reconnect, and the
        companion is cancelled at once.
        """
        begun = time.monotonic()
        stopped = self.listener.stopListening()
        if stopped is not None:
            await stopped.asFuture(asyncio.get_running_loop())
        if self.companion is not None:
            self.companion.cancel()
        for socket in self._sockets():
            socket.serverClose(SERVICE_RESTART, "service restart")
        for channel in list(self.http_factory.channels):
            channel.retire()

        while self._busy() and time.monotonic() - begun < self.grace_seconds:
            await asyncio.sleep(LOOK_AGAIN_SECONDS)
            if time.monotonic() - begun > SOCKET_GOODBYE_SECONDS:
                self._abort_sockets()

        # First the connections: that wakes threads which wait for a body.
        self._abort_sockets()
        for channel in list(self.http_factory.channels):
            channel.transport.abortConnection()
        left = set(self._running())
        for task in left:
            task.cancel()
        if self.companion is not None:
            left.add(self.companion)
        if left:
            ended, _ = await asyncio.wait(left, timeout=CUT_SECONDS)
            for task in ended:
                if not task.cancelled():
                    task.exception()  # seen, so that asyncio does not report it

    def _busy(self) -> bool:
        return bool(
            self.http_factory.channels
            or any(self._running())
            or any(self._sockets())
            or (self.companion is not None and not self.companion.done())
        )

    def _running(self) -> "Iterator[asyncio.Future[None]]":
        for details in self.connections.values():
            task = details.get("application_instance")
            if task is not None and not task.done():
                yield task

    def _sockets(self) -> list[Socket]:
        return [
            protocol
            for protocol, details in self.connections.items()
            if isinstance(protocol, Socket) and "disconnected" not in details
        ]

    def _abort_sockets(self) -> None:
        for socket in self._sockets():
            socket.transport.abortConnection()


def serve(
    application: Application,
    host: str,
    port: int,
    *,
    grace_seconds: float,
    body_deadline_seconds: float,
    on_listening: Callable[[int], None] | None = None,
    on_start: Callable[[], Awaitable[None]] | None = None,
    **options: Any,
) -> None:
    """Serve until SIGTERM or SIGINT, then return and see to it that the process ends.

    The interpreter waits at its exit for every thread of every pool, so that one
    view that hangs would keep the process for ever. Whoever calls this should have
    nothing left to do that takes longer than ``EXIT_SECONDS``.
    """
    server = Server(
        application,
        host=host,
        port=port,
        grace_seconds=grace_seconds,
        body_deadline_seconds=body_deadline_seconds,
        on_listening=on_listening,
        on_start=on_start,
        **options,
    )
    exit_code = 1
    try:
        server.run()
        exit_code = 0
    finally:
        threading.Thread(target=_end_process, args=(exit_code,), daemon=True).start()


def _end_process(exit_code: int) -> None:
    time.sleep(EXIT_SECONDS)
    logger.warning("A thread did not end with the server; leaving it behind")
    logging.shutdown()
    os._exit(exit_code)
