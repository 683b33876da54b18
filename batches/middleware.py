"""What stands before every view: who may change something, and the admin's static files."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from whitenoise.middleware import WhiteNoiseMiddleware

from batches import hotkeys

GetResponse = Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
STAFF_PATHS = ("/admin/",)
"""Guarded by login and CSRF token instead."""


def error(status: int, code: str, message: str, **more: Any) -> JsonResponse:
    """The shape of every refusal."""
    return JsonResponse({"error": code, "message": message, **more}, status=status)


class Hotkey:
    """Refuses requests that change something and carry no authorised ``X-Hotkey``.

    Whatever the path: an address that does not exist answers strangers no
    differently from one that does. Works without the body having been read.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self.is_refused(request):
            refusal = error(401, "unauthorized", "send an authorised hotkey in X-Hotkey")
            return self.answer(refusal) if self.is_async else refusal
        return self.get_response(request)

    async def answer(self, response: HttpResponse) -> HttpResponse:
        return response

    def is_refused(self, request: HttpRequest) -> bool:
        # path_info, never path: that one begins with a prefix that clients could choose.
        if request.method in SAFE_METHODS or request.path_info.startswith(STAFF_PATHS):
            return False
        offered = request.headers.get("X-Hotkey")
        return not hotkeys.authorised(offered, settings.AUTHORIZED_HOTKEYS)


class StaticFiles(WhiteNoiseMiddleware):  # type: ignore[misc]  # whitenoise has no types
    """Whitenoise for an asynchronous server: its own middleware holds a thread for every request.

    A thread that waits inside a request also keeps the server from ending.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: GetResponse) -> None:
        super().__init__(get_response)
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        if not self.is_async:
            return super().__call__(request)
        if request.method in SAFE_METHODS and request.path_info.startswith(self.static_prefix):
            return asyncio.to_thread(self.serve_found, request)
        return self.get_response(request)

    def serve_found(self, request: HttpRequest) -> HttpResponseBase:
        found = self.files.get(request.path_info)
        if found is None:
            return error(404, "not_found", "there is no such file")
        streamed = self.serve(found, request)
        # Read here, in a thread: an asynchronous server would have to read it whole anyway.
        content = b"".join(streamed.streaming_content)
        streamed.close()
        return HttpResponse(content, status=streamed.status_code, headers=dict(streamed.items()))
