"""A small Django site behind the server: a guard as middleware, and views that read bodies."""

import asyncio
import hashlib
import os
import time
from pathlib import Path

from asgiref.sync import sync_to_async
from django.conf import settings
from django.http import JsonResponse
from django.urls import path

FOLDER = Path(os.environ["SITE_FOLDER"])
INCOMING = FOLDER / "incoming"
MIB = 1024 * 1024

settings.configure(
    SECRET_KEY="only for tests, only for tests",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=[f"{__name__}.guard"],
    FILE_UPLOAD_HANDLERS=["batches.uploads.ArchiveUploadHandler"],
    INCOMING_DIR=INCOMING,
    MAX_ARCHIVE_BYTES=int(os.environ.get("SITE_MAX_ARCHIVE_BYTES", 400 * MIB)),
    LOGGING={
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"console": {"class": "logging.StreamHandler"}},
        "loggers": {"django": {"handlers": ["console"], "level": "ERROR"}},
    },
)

from batches.uploads import ArchiveTooLarge  # noqa: E402
from executor_site.handler import get_asgi_application  # noqa: E402


def guard(get_response):
    """Synchronous only, as the worst case for the handler and for the stop."""

    def middleware(request):
        if request.headers.get("X-Key") != "good":
            return JsonResponse({"error": "unauthorized"}, status=401)
        return get_response(request)

    return middleware


def upload(request):
    try:
        archive = request.FILES.get("archive") or request.FILES.get("file")
    except ArchiveTooLarge as error:
        return JsonResponse({"error": "archive_too_large", "limit": error.limit}, status=400)
    if archive is None:
        return JsonResponse({"error": "missing_archive", "left": stored()}, status=400)
    if "keep" in request.GET:
        Path(archive.temporary_file_path()).rename(FOLDER / "kept")
    status = os.fstat(archive.fileno())
    return JsonResponse(
        {
            "name": archive.name,
            "sha256": archive.sha256,
            "size": archive.size,
            "on_disk": status.st_size,
            "mode": oct(status.st_mode & 0o777),
            "first": archive.read(4).decode("latin1"),
            "fields": request.POST.dict(),
            "files": sorted(request.FILES),
            "stored": stored(),
        }
    )


def stored():
    return len(list(INCOMING.iterdir())) if INCOMING.exists() else 0


def raw(request):
    digest, size = hashlib.sha256(), 0
    while chunk := request.read(100_000):
        digest.update(chunk)
        size += len(chunk)
    return JsonResponse({"sha256": digest.hexdigest(), "size": size})


def lines(request):
    return JsonResponse({"lines": [line.decode() for line in request]})


def body(request):
    return JsonResponse({"body": request.body.decode()})


async def async_body(request):
    return JsonResponse({"body": request.body.decode()})


async def async_wait(request):
    (FOLDER / "waiting").touch()
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        (FOLDER / "cancelled").touch()
        raise


async def read_and_wait(request):
    await sync_to_async(request.read)()
    return await async_wait(request)


def stuck(request):
    (FOLDER / "stuck").touch()
    time.sleep(3600)


urlpatterns = [
    path("upload", upload),
    path("raw", raw),
    path("lines", lines),
    path("body", body),
    path("async-body", async_body),
    path("async-wait", async_wait),
    path("read-and-wait", read_and_wait),
    path("stuck", stuck),
]

application = get_asgi_application()
