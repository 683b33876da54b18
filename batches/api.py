"""The REST API: authorise, hand over, answer. Shapes are in ``schemas``, work is elsewhere."""

import time
from typing import Any
from uuid import UUID

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.multipartparser import MultiPartParserError
from ninja import NinjaAPI
from ninja.errors import ValidationError
from prometheus_client import CONTENT_TYPE_LATEST

from batches import metrics, submissions
from batches.archive.specs import BadArchive
from batches.middleware import error
from batches.models import Batch, Task
from batches.moments import one_moment
from batches.schemas import (
    Accepted,
    ArchiveError,
    BatchDetail,
    BatchLine,
    BatchTasks,
    Error,
    Health,
    Status,
    TaskDetail,
    TaskResult,
    batch_numbers,
    rfc3339,
)
from batches.statuses import Phase
from batches.uploads import ArchiveTooLarge, UploadedArchive
from executor_site import __version__

STARTED = time.monotonic()

MULTIPART_OVERHEAD = 1024 * 1024
"""What a request may be longer than the largest archive in it: boundaries, headers, small fields."""

UPLOAD_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "archive": {
                            "type": "string",
                            "format": "binary",
                            "description": "A .zip, .tar.gz or .tar. The field may be named `file` too.",
                        }
                    },
                    "required": ["archive"],
                }
            }
        },
    },
    "security": [{"hotkey": []}],
}

api = NinjaAPI(
    title="term-executor",
    version=__version__,
    description="Runs tasks against a coding agent and answers with rewards.",
    openapi_url="/openapi.json",
    docs_url=None,
    openapi_extra={
        "components": {
            "securitySchemes": {
                "hotkey": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "X-Hotkey",
                    "description": "An authorised SS58 address.",
                }
            }
        }
    },
)


class Refusal(Exception):
    """An answer in the shape of every refusal, thrown from wherever it becomes clear."""

    def __init__(self, status: int, code: str, message: str, **more: Any) -> None:
        super().__init__(message)
        self.response = error(status, code, message, **more)


@api.exception_handler(Refusal)
def answer_refusal(request: HttpRequest, refusal: Refusal) -> HttpResponse:
    return refusal.response


@api.exception_handler(ValidationError)
def answer_invalid(request: HttpRequest, invalid: ValidationError) -> HttpResponse:
    """Parameters that do not fit. An id that is no UUID is simply the id of nothing."""
    if any(problem["loc"][0] == "path" for problem in invalid.errors):
        return not_found()
    names = ", ".join(str(problem["loc"][-1]) for problem in invalid.errors)
    return error(400, "invalid_parameter", f"these parameters cannot be used: {names}")


def not_found() -> JsonResponse:
    return error(404, "not_found", "there is no such batch or task")


@api.get("/health", response=Health, tags=["server"])
def health(request: HttpRequest) -> dict[str, str]:
    """Whether the server answers."""
    return {"status": "ok"}


@api.get("/status", response=Status, tags=["server"])
def status(request: HttpRequest) -> dict[str, Any]:
    """The server in numbers."""
    batches, tasks = metrics.counted()
    return {
        "version": __version__,
        "uptime_secs": int(time.monotonic() - STARTED),
        "active_batches": batches["active"],
        "total_batches": batches["total"],
        "completed_batches": batches["completed"],
        "tasks_passed": tasks["passed"],
        "tasks_failed": tasks["failed"],
        "max_concurrent_tasks": settings.MAX_CONCURRENT_TASKS,
        "has_active_batch": batches["active"] > 0,
    }


@api.get(
    "/metrics",
    tags=["server"],
    openapi_extra={
        "responses": {200: {"description": "Prometheus text", "content": {"text/plain": {}}}}
    },
)
def show_metrics(request: HttpRequest) -> HttpResponse:
    """The server in numbers, for Prometheus."""
    return HttpResponse(metrics.render(), content_type=CONTENT_TYPE_LATEST)


@api.post(
    "/submit",
    response={202: Accepted, 400: ArchiveError, 401: Error, 503: Error},
    tags=["batches"],
    openapi_extra=UPLOAD_BODY,
)
def submit(request: HttpRequest, concurrent_tasks: str | None = None) -> tuple[int, dict[str, Any]]:
    """Run an archive of tasks and an agent.

    Everything that can be refused by its headers is refused before the body is
    read; who is busy is decided again, for good, once the upload is complete.
    """
    if submissions.is_busy():
        raise busy()
    concurrent = concurrency(concurrent_tasks)
    length = request.headers.get("Content-Length", "")
    if length.isdigit() and int(length) > settings.MAX_ARCHIVE_BYTES + MULTIPART_OVERHEAD:
        raise too_large()
    upload = uploaded(request)
    try:
        batch = submissions.accept(
            upload.path, upload.sha256, request.headers["X-Hotkey"], concurrent
        )
    except submissions.Busy:
        raise busy() from None
    except submissions.Interrupted:
        raise Refusal(503, "interrupted", "the server was interrupted; submit again") from None
    except BadArchive as bad:
        raise Refusal(
            400,
            "extraction_failed",
            "the archive cannot be used; see problems",
            problems=[problem.as_json() for problem in bad.problems],
        ) from None
    finally:
        upload.close()
    return 202, {
        "batch_id": batch.pk,
        "total_tasks": batch.total_tasks,
        "concurrent_tasks": batch.concurrent_tasks,
        "ws_url": f"/ws?batch_id={batch.pk}",
    }


def concurrency(asked: str | None) -> int:
    """How many tasks may run at once: what is asked for, and no more than the server allows."""
    if asked is None:
        return int(settings.MAX_CONCURRENT_TASKS)
    if not (asked.isascii() and asked.isdigit() and len(asked) < 10 and int(asked) > 0):
        raise Refusal(
            400, "invalid_concurrent_tasks", "concurrent_tasks must be a whole number above zero"
        )
    return min(int(asked), int(settings.MAX_CONCURRENT_TASKS))


def uploaded(request: HttpRequest) -> UploadedArchive:
    """The archive of a request, by now on our disk."""
    try:
        files = request.FILES
    except ArchiveTooLarge:
        raise too_large() from None
    except (MultiPartParserError, OSError, ValueError) as trouble:
        raise Refusal(400, "upload_failed", f"the upload could not be read: {trouble}") from None
    upload = files.get("archive") or files.get("file")
    if not isinstance(upload, UploadedArchive):
        raise Refusal(
            400, "missing_archive", "send the archive as multipart/form-data in the field archive"
        )
    return upload


def busy() -> Refusal:
    return Refusal(503, "busy", "another batch is in progress; submit again when it has ended")


def too_large() -> Refusal:
    return Refusal(
        400,
        "archive_too_large",
        f"the archive is larger than {settings.MAX_ARCHIVE_BYTES} bytes (MAX_ARCHIVE_BYTES)",
    )


@api.get("/batches", response=list[BatchLine], tags=["batches"])
def batches(request: HttpRequest) -> list[dict[str, Any]]:
    """All batches, newest first."""
    rows = Batch.objects.values_list("pk", "created_at", "status")
    return [
        {"batch_id": pk, "created_at": rfc3339(created), "status": state}
        for pk, created, state in rows.iterator(chunk_size=1000)
    ]


@api.get("/batch/{batch_id}", response={200: BatchDetail, 404: Error}, tags=["batches"])
def batch_detail(request: HttpRequest, batch_id: UUID) -> Any:
    """A batch and its tasks, as they stand at one moment."""
    with one_moment():
        batch = Batch.objects.with_progress().filter(pk=batch_id).first()
        if batch is None:
            return not_found()
        tasks = list(batch.tasks.defer("spec"))
    return {
        "batch_id": batch.pk,
        **batch_numbers(batch),
        "error": batch.error or None,
        "duration_ms": batch.duration_ms,
        "tasks": [TaskResult.of(task) for task in tasks],
        "created_at": rfc3339(batch.created_at),
        "started_at": rfc3339(batch.started_at),
        "finished_at": rfc3339(batch.finished_at),
        "concurrent_tasks": batch.concurrent_tasks,
    }


@api.get("/batch/{batch_id}/tasks", response={200: BatchTasks, 404: Error}, tags=["batches"])
def batch_tasks(request: HttpRequest, batch_id: UUID) -> Any:
    """The tasks of a batch, in the order of the archive."""
    batch = Batch.objects.filter(pk=batch_id).first()
    if batch is None:
        return not_found()
    tasks = batch.tasks.defer("spec")
    return {"batch_id": batch.pk, "tasks": [TaskResult.of(task) for task in tasks]}


@api.get(
    "/batch/{batch_id}/task/{path:task_id}",
    response={200: TaskDetail, 404: Error},
    tags=["batches"],
)
def task_detail(request: HttpRequest, batch_id: UUID, task_id: str) -> Any:
    """A task with each of its tests."""
    task = Task.objects.filter(batch=batch_id, name=task_id).defer("spec").first()
    if task is None:
        return not_found()
    return TaskDetail.of_runs(task, list(task.runs.filter(phase=Phase.TESTS, attempt=task.attempt)))
