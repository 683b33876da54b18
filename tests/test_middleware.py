"""Who may change something: every method, every path, and the ways around."""

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import markcoroutinefunction
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, AsyncRequestFactory, Client, RequestFactory
from pytest_django import Settings

from batches.middleware import Hotkey
from tests.factories import HOTKEY

UNAUTHORISED = {
    "error": "unauthorized",
    "message": "send an authorised hotkey in X-Hotkey",
}
PATHS = ["/", "/submit", "/batch/x", "/nothing/here", "/static/x", "/openapi.json", "/ws"]
ROUNDABOUT = [
    "//admin/",
    "/admin",
    "/Admin/",
    "/./admin/",
    "/submit/../admin/",
    "/%2e/admin/",
    "/submit/%2e%2e/admin/",
    "/%2fadmin/",
    "/submit?/admin/",
    "/submit;/admin/",
    "/\\admin/",
]


@pytest.mark.parametrize("path", [*PATHS, *ROUNDABOUT])
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "BREW"])
def test_stranger_changes_nothing_anywhere(method: str, path: str) -> None:
    answer = Client().generic(method, path)

    assert (answer.status_code, answer.json()) == (401, UNAUTHORISED)


@pytest.mark.parametrize("path", [*PATHS, *ROUNDABOUT])
@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_stranger_changes_nothing_anywhere_asynchronously(method: str, path: str) -> None:
    answer = await AsyncClient().generic(method, path)

    assert (answer.status_code, answer.json()) == (401, UNAUTHORISED)


@pytest.mark.parametrize("prefix", ["/admin", "/admin/", "/admin/x"])
def test_prefix_that_a_client_may_have_chosen_opens_nothing(prefix: str) -> None:
    answer = Client().post("/submit", SCRIPT_NAME=prefix)

    assert (answer.status_code, answer.json()) == (401, UNAUTHORISED)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "path", ["/admin/../submit", "/admin/%2e%2e/submit", "/admin//submit", "/admin/submit"]
)
def test_nothing_but_the_admin_is_behind_the_paths_of_the_admin(path: str) -> None:
    answer = Client(enforce_csrf_checks=True).post(path)

    # The answers of the admin itself: to its login page, or refused for want of a token.
    assert answer.status_code in (302, 403)
    assert "X-Hotkey" not in answer.content.decode()


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_everybody_may_read(method: str) -> None:
    assert Client().generic(method, "/health").status_code != 401
    assert Client().get("/health").json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"X-Hotkey": HOTKEY}, 404),
        ({"x-hotkey": HOTKEY}, 404),
        ({"X_Hotkey": HOTKEY}, 404),
        ({"X-Hotkey": f"{HOTKEY},{HOTKEY}"}, 401),
        ({"X-Hotkey": HOTKEY.lower()}, 401),
        ({"Cookie": f"X-Hotkey={HOTKEY}"}, 401),
    ],
)
def test_only_the_header_counts(headers: dict[str, str], status: int) -> None:
    assert Client(headers=headers).post("/nothing").status_code == status


def test_hotkeys_are_those_of_the_settings(settings: Settings) -> None:
    other = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
    settings.AUTHORIZED_HOTKEYS = (other,)

    codes = [
        Client(headers={"X-Hotkey": offered}).post("/nothing").status_code
        for offered in (HOTKEY, other)
    ]

    assert codes == [401, 404]


class Body:
    """A request's body that must not be looked at."""

    def read(self, *_: object) -> bytes:
        raise AssertionError("the body was read")


def test_refusal_comes_before_the_body_is_read() -> None:
    request = RequestFactory().post("/submit")
    request._stream = Body()  # type: ignore[attr-defined]
    refuse = Hotkey(unreachable)

    answer = refuse(request)

    assert isinstance(answer, HttpResponse)
    assert answer.status_code == 401


def unreachable(request: HttpRequest) -> HttpResponse:
    raise AssertionError("the view was called")


@pytest.mark.parametrize("path", ["/submit", "/health"])
async def test_kind_of_the_next_in_line_decides_the_kind_of_the_answer(path: str) -> None:
    async def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse("seen")

    answers: Callable[..., Any] = Hotkey(markcoroutinefunction(view))
    request = AsyncRequestFactory().post(path)

    answer = answers(request)

    assert inspect.isawaitable(answer)
    assert asyncio.iscoroutinefunction(view)
    assert (await answer).status_code == 401
    request = AsyncRequestFactory().get(path)
    assert (await answers(request)).content == b"seen"
