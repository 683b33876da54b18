"""Answers to requests that no view answers: JSON, like every other refusal."""

from django.http import HttpRequest, HttpResponse

from batches.middleware import error


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    return error(400, "bad_request", "the request cannot be understood")


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    return error(403, "forbidden", "this needs rights that you do not have")


def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    return error(404, "not_found", "there is nothing at this address; see /openapi.json")


def server_error(request: HttpRequest) -> HttpResponse:
    return error(500, "internal_error", "the server failed; its log says more")
