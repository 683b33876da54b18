"""The ASGI application: HTTP to Django, WebSockets to the consumer."""

import os
from typing import Any
from urllib.parse import urlsplit

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "executor_site.settings")

from executor_site.handler import get_asgi_application

http = get_asgi_application()

from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.http.request import split_domain_port, validate_host
from django.urls import path

from batches.consumers import BatchConsumer

Scope = dict[str, Any]


class OriginCheck:
    """Turns away WebSockets that a page of another site opened.

    Programs send no ``Origin`` and are let in: it protects people with a
    browser from pages, and nothing else. Channels' own check turns them away.
    """

    def __init__(self, application: Any) -> None:
        self.application = application

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        headers = dict(scope["headers"])
        origin = headers.get(b"origin")
        if origin is not None and not self.is_allowed(origin.decode("latin-1")):
            await send({"type": "websocket.close", "code": 4403})
            return
        await self.application(scope, receive, send)

    def is_allowed(self, origin: str) -> bool:
        try:
            host, _ = split_domain_port(urlsplit(origin.lower()).netloc)
        except ValueError:  # such as a bracket that is not closed
            return False
        return bool(host) and validate_host(host, settings.ALLOWED_HOSTS)


# Django's path() is typed for views; Channels routes consumers with it.
routes: Any = [path("ws", BatchConsumer.as_asgi())]  # type: ignore[arg-type]

application = ProtocolTypeRouter(
    {
        "http": http,
        "websocket": OriginCheck(URLRouter(routes)),
    }
)
