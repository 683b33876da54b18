"""Django's requests with bodies that are read while they arrive."""

import hashlib
import json

import httpx
import pytest

from tests.server.scaffold import MIB, eventually, head, read_answer, read_head, start_server

KEY = {"X-Key": "good"}


def test_body_is_read_while_it_arrives(site):
    content = bytes(range(256)) * 40_000

    answer = httpx.put(f"{site.url}/raw", content=content, headers=KEY, trust_env=False)

    assert answer.json() == {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}


def test_refusal_by_middleware_comes_before_continue(site):
    connection = site.connect()

    connection.sendall(head("PUT", "/raw", content_length=MIB, expect="100-continue"))
    status, headers = read_head(connection)

    assert (status, headers["connection"]) == (401, "close")


def test_view_that_reads_makes_the_client_continue(site):
    connection = site.connect()

    connection.sendall(head("PUT", "/body", content_length=3, expect="100-continue", x_key="good"))
    interim = read_head(connection)
    connection.sendall(b"abc")
    answer = read_answer(connection)

    assert interim == (100, {})
    assert json.loads(answer.body) == {"body": "abc"}


@pytest.mark.parametrize("pieces", [[b"one\ntwo", b"\n\nthree"], [b""], [b"\n"], [b"abc"]])
def test_body_has_lines(site, pieces):
    answer = httpx.put(f"{site.url}/lines", content=iter(pieces), headers=KEY, trust_env=False)

    expected = b"".join(pieces).decode().splitlines(keepends=True)
    assert answer.json() == {"lines": expected}


def test_connection_is_reused_after_a_body_was_read(site):
    connection = site.connect()

    bodies = []
    for content in (b"first", b"second"):
        request = head("PUT", "/body", content_length=len(content), x_key="good")
        connection.sendall(request)
        connection.sendall(content)
        bodies.append(json.loads(read_answer(connection).body))

    assert bodies == [{"body": "first"}, {"body": "second"}]


def test_missing_body_is_empty_even_in_an_async_view(site):
    answer = httpx.get(f"{site.url}/async-body", headers=KEY, trust_env=False)

    assert answer.json() == {"body": ""}


def test_async_view_that_reads_the_body_fails_with_advice(tmp_path):
    with start_server(tmp_path, "site:application") as server:
        answer = httpx.put(f"{server.url}/async-body", content=b"x", headers=KEY, trust_env=False)
        server.signal()
        log = server.wait().log

    assert answer.status_code == 500
    assert "read it in a synchronous view, or through sync_to_async()" in log


def test_client_that_leaves_cancels_the_view(site):
    connection = site.connect()
    connection.sendall(head("GET", "/async-wait", x_key="good"))
    eventually((site.folder / "waiting").exists)

    connection.close()

    eventually((site.folder / "cancelled").exists)
    for name in ("waiting", "cancelled"):
        (site.folder / name).unlink()


def test_client_that_leaves_after_its_body_was_read_cancels_the_view(site):
    connection = site.connect()
    connection.sendall(head("PUT", "/read-and-wait", x_key="good", content_length=3) + b"abc")
    eventually((site.folder / "waiting").exists)

    connection.close()

    eventually((site.folder / "cancelled").exists)
    for name in ("waiting", "cancelled"):
        (site.folder / name).unlink()
