"""WebSockets with a bounded output: a reader that stalls is told to come back, not waited for."""

from typing import Any

from autobahn.twisted.websocket import ConnectionDeny
from daphne.ws_protocol import WebSocketFactory, WebSocketProtocol

from executor_site.server.inbox import Inbox, Message

SERVICE_RESTART = 1012
TRY_AGAIN_LATER = 1013
CLOSE_HANDSHAKE_SECONDS = 10
"""A connection is aborted this long after our close frame when the client has not answered it."""

LONGEST_REASON_BYTES = 123


class Socket(WebSocketProtocol):  # type: ignore[misc]
    """One WebSocket, from its handshake on."""

    def open_inbox(self) -> Inbox:
        return Inbox(self.transport.pauseProducing, self.transport.resumeProducing)

    @property
    def unsent_bytes(self) -> int:
        """What waits in this process; the kernel's own buffers not counted."""
        # Twisted's transports have no public name for it. Their producer calls
        # are no substitute: they tell "above 64 KiB" and "empty", nothing between.
        transport = self.transport
        return len(transport.dataBuffer) - transport.offset + transport._tempDataLen  # type: ignore[no-any-return]

    def handle_reply(self, message: Message) -> None:
        kind = message.get("type")
        if kind == "websocket.close" and self.state != self.STATE_CONNECTING:
            self.serverClose(message.get("code"), message.get("reason"))
        elif kind != "websocket.send" or self.state == self.STATE_CONNECTING:
            super().handle_reply(message)
        elif self.state == self.STATE_OPEN:  # a message for a socket that is closing is dropped
            if self.unsent_bytes > self.server.socket_buffer_bytes:
                self._give_up()
            else:
                super().handle_reply(message)

    def serverSend(self, content: str | bytes, binary: bool = False) -> None:
        # sendMessage() would apply the limit for what clients may send to our own
        # messages. Nothing is lost by going around it: we negotiate no compression.
        payload = content.encode() if isinstance(content, str) else content
        self.sendFrame(opcode=2 if binary else 1, payload=payload)

    def serverClose(self, code: int | None = None, reason: str | None = None) -> None:
        # sendClose() refuses the codes that RFC 6455 keeps for servers, such as 1012.
        if self.state == self.STATE_CONNECTING:
            self.refuse()
        else:
            text = (reason or "").encode()[:LONGEST_REASON_BYTES]
            text = text.decode(errors="ignore").encode()
            self.sendCloseFrame(code=1000 if code is None else code, reasonUtf8=text)

    def refuse(self) -> None:
        """End a handshake that the application has not answered yet."""
        if hasattr(self, "handshake_deferred"):
            self.handshake_deferred.errback(ConnectionDeny(503, "Service Unavailable"))
            del self.handshake_deferred
            self.server.protocol_disconnected(self)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        if hasattr(self, "server"):  # else the handshake never came to onConnect
            super().onClose(wasClean, code, reason)

    def _give_up(self) -> None:
        """Stop serving a client that does not read. It can resume where it was, with ``since``."""
        self.muted = True
        self.application_queue.put_nowait({"type": "websocket.disconnect", "code": TRY_AGAIN_LATER})
        self.serverClose(TRY_AGAIN_LATER, "reconnect with since")


class SocketFactory(WebSocketFactory):  # type: ignore[misc]
    """Makes our sockets."""

    protocol = Socket

    def __init__(self, server: Any, server_name: str) -> None:
        super().__init__(server, server=server_name)
        self.setProtocolOptions(
            autoPingTimeout=server.ping_timeout,
            allowNullOrigin=True,
            openHandshakeTimeout=server.websocket_handshake_timeout,
            closeHandshakeTimeout=CLOSE_HANDSHAKE_SECONDS,
            maxMessagePayloadSize=server.websocket_max_message_size,
            maxFramePayloadSize=server.websocket_max_frame_size,
        )
