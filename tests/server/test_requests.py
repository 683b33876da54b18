"""HTTP as clients see it: early answers, streamed bodies, connections that go on or end."""

import hashlib
import json
import subprocess

import httpx
import pytest

from tests.server.scaffold import (
    MIB,
    eventually,
    head,
    push,
    push_until_stuck,
    read_answer,
    read_head,
    read_to_end,
    start_server,
)


def digest_of(content):
    return {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}


def test_refusal_by_headers_is_answered_before_the_body_and_stores_nothing(server):
    server.reset_peak()
    memory, written = server.status_bytes("VmHWM"), server.written_bytes()
    connection = server.connect()

    connection.sendall(head("POST", "/refuse", content_length=100 * MIB))
    answer = read_answer(connection)
    taken = push(connection, 20 * MIB)

    assert (answer.status, answer.headers["connection"], answer.body) == (401, "close", b"no")
    assert taken == 20 * MIB  # dropped by a server that lingers
    assert server.written_bytes() - written < MIB
    assert server.status_bytes("VmHWM") - memory < 10 * MIB


@pytest.mark.parametrize("client", ["curl", "httpx"])
def test_clients_that_still_send_read_the_refusal(server, tmp_path, client):
    archive = tmp_path / "archive"
    with archive.open("wb") as file:
        file.truncate(100 * MIB)

    if client == "curl":
        command = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Expect:"]
        command += ["-F", f"archive=@{archive}", f"{server.url}/refuse"]
        status = int(subprocess.run(command, capture_output=True, text=True).stdout)
    else:
        with archive.open("rb") as file:
            url = f"{server.url}/refuse"
            status = httpx.post(url, files={"archive": file}, trust_env=False).status_code

    assert status == 401


def test_lingering_after_an_early_answer_ends_by_itself(server):
    connection = server.connect()
    connection.sendall(head("POST", "/refuse", content_length=10 * MIB))

    rest = read_to_end(connection)

    assert rest.startswith(b"HTTP/1.1 401")


def test_early_answer_closes_as_soon_as_the_rest_of_the_body_has_come(server):
    connection = server.connect()
    connection.sendall(head("POST", "/refuse", content_length=10))
    answer = read_answer(connection)
    connection.settimeout(1)

    connection.sendall(b"0123456789")

    assert answer.status == 401
    assert connection.recv(1) == b""


def test_continue_is_sent_when_the_application_asks_for_the_body(server):
    connection = server.connect()

    connection.sendall(head("POST", "/digest", content_length=3, expect="100-continue"))
    interim = read_head(connection)
    connection.sendall(b"abc")
    answer = read_answer(connection)

    assert interim == (100, {})
    assert (answer.status, json.loads(answer.body)) == (200, digest_of(b"abc"))


def test_continue_is_never_sent_before_a_refusal(server):
    connection = server.connect()

    connection.sendall(head("POST", "/refuse", content_length=3, expect="100-continue"))

    assert read_to_end(connection).startswith(b"HTTP/1.1 401")


def test_chunked_body_arrives_whole(server):
    content = bytes(range(256)) * 4096

    def pieces():
        for start in range(0, len(content), 50_000):
            yield content[start : start + 50_000]

    answer = httpx.post(f"{server.url}/digest", content=pieces(), trust_env=False)

    assert (answer.status_code, answer.json()) == (200, digest_of(content))


def test_broken_chunks_reach_the_application_as_a_disconnect(server):
    connection = server.connect()
    connection.sendall(head("POST", "/digest", transfer_encoding="chunked"))

    connection.sendall(b"3\r\nabc\r\nnot a length\r\n")

    assert read_to_end(connection).startswith(b"HTTP/1.1 400")
    eventually(lambda: server.notes() == ["http.disconnect"])


def test_connection_is_reused_after_a_streamed_body(server):
    content = bytes(3 * MIB)
    connection = server.connect()

    connection.sendall(head("PUT", "/digest", content_length=len(content)) + content)
    first = read_answer(connection)
    connection.sendall(head("GET", "/"))
    second = read_answer(connection)

    assert json.loads(first.body) == digest_of(content)
    assert "connection" not in first.headers
    assert (second.status, second.body) == (200, b"hello")


def test_pipelined_requests_are_answered_in_order(server):
    connection = server.connect()

    connection.sendall(
        head("POST", "/digest", content_length=3)
        + b"abc"
        + head("POST", "/digest", content_length=4)
        + b"defg"
        + head("GET", "/")
    )
    answers = [read_answer(connection).body for _ in range(3)]

    assert json.loads(answers[0]) == digest_of(b"abc")
    assert json.loads(answers[1]) == digest_of(b"defg")
    assert answers[2] == b"hello"


def test_head_has_the_headers_and_no_body(server):
    connection = server.connect()

    connection.sendall(head("HEAD", "/") + head("GET", "/", connection="close"))
    headers_only = read_head(connection)
    rest = read_to_end(connection)

    assert (headers_only[0], headers_only[1]["content-length"]) == (200, "5")
    assert rest.startswith(b"HTTP/1.1 200")
    assert rest.endswith(b"hello")


def test_http_1_0_client_gets_its_answer_and_the_close(server):
    connection = server.connect()

    connection.sendall(b"POST /digest HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc")
    raw = read_to_end(connection)

    assert json.loads(raw.split(b"\r\n\r\n", 1)[1]) == digest_of(b"abc")


def test_client_that_leaves_in_mid_body_is_a_disconnect(server):
    connection = server.connect()
    connection.sendall(head("POST", "/digest", content_length=1000) + b"abc")

    connection.close()

    eventually(lambda: server.notes() == ["http.disconnect"])


def test_disconnect_is_told_again_to_whoever_asks_again(server):
    connection = server.connect()
    connection.sendall(head("GET", "/wait"))
    eventually(lambda: server.notes() == ["begun"])

    connection.close()

    eventually(lambda: server.notes() == ["begun", "http.disconnect", "http.disconnect"])


def test_root_path_cannot_be_chosen_by_the_client(server):
    headers = {"Daphne-Root-Path": "/evil", "daphne_root_path": "/evil"}

    bare = httpx.get(f"{server.url}/describe", headers=headers, trust_env=False)
    with_body = httpx.post(f"{server.url}/describe", headers=headers, content=b"x", trust_env=False)

    for answer in (bare, with_body):
        root_path, path, names = answer.json()
        assert (root_path, path) == ("", "/describe")
        assert not [name for name in names if "root" in name]


def test_upgrade_with_a_body_is_plain_http(server):
    connection = server.connect()

    connection.sendall(
        head("POST", "/digest", content_length=3, upgrade="websocket", connection="upgrade")
        + b"abc"
    )

    assert json.loads(read_answer(connection).body) == digest_of(b"abc")


def test_two_lengths_are_refused_without_running_the_application(server):
    connection = server.connect()

    connection.sendall(
        b"POST /digest HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc"
    )

    assert read_to_end(connection) == b"HTTP/1.1 400 Bad Request\r\n\r\n"
    assert server.notes() == []


def test_client_cannot_push_more_than_the_application_reads(server):
    connection = server.connect()
    connection.sendall(head("POST", "/hold", content_length=100 * MIB))
    eventually(lambda: server.notes() == ["held"])
    before = server.status_bytes("VmRSS")

    taken = push_until_stuck(connection, 100 * MIB)
    grown = server.status_bytes("VmRSS") - before
    server.get("/release")
    push(connection, 100 * MIB - taken)
    answer = read_answer(connection)

    assert taken < 12 * MIB  # most of it in the kernel's two socket buffers
    assert grown < 4 * MIB
    assert json.loads(answer.body) == digest_of(bytes(100 * MIB))


def test_answer_is_written_no_faster_than_the_client_reads(server):
    connection = server.connect()
    before = server.status_bytes("VmRSS")

    connection.sendall(head("GET", "/download"))
    read_head(connection)
    server.notes()
    grown = server.status_bytes("VmRSS") - before
    notes_before = server.notes()
    connection.recv(1)

    assert grown < 8 * MIB
    assert notes_before == []


def test_answer_that_breaks_off_closes_the_connection(server):
    connection = server.connect()

    connection.sendall(head("GET", "/broken"))
    raw = read_to_end(connection)

    assert raw.endswith(b"6\r\nso far\r\n")
    # The loop that noticed goes on: it is the one that would notice a second time.
    connection = server.connect()
    connection.sendall(head("GET", "/broken"))
    assert read_to_end(connection).endswith(b"6\r\nso far\r\n")


@pytest.mark.parametrize("dripping", [True, False])
def test_body_that_takes_too_long_is_cut_off(tmp_path, dripping):
    with start_server(tmp_path, "apps:application", body_deadline_seconds=0.6) as server:
        connection = server.connect()
        connection.sendall(head("POST", "/digest", content_length=1000))
        connection.settimeout(0.1)

        sent, raw = 0, b""
        while not raw:
            if dripping:
                sent += connection.send(b"x")
            try:
                raw = connection.recv(65536)
            except TimeoutError:
                continue

        assert raw.startswith(b"HTTP/1.1 408 ")
        assert json.loads(raw.split(b"\r\n\r\n")[1]) == {
            "error": "request_timeout",
            "message": "The body did not arrive within 0.6 seconds.",
        }
        assert sent < 20
        eventually(lambda: server.notes() == ["http.disconnect"])
