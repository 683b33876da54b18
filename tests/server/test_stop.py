"""How a server ends: it drains, and it ends whatever happens."""

import json
import signal
import socket
import time

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.server.scaffold import (
    eventually,
    head,
    read_answer,
    read_to_end,
    start_server,
)


def is_refused(server):
    try:
        socket.create_connection(("127.0.0.1", server.port), 1).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_request_in_flight_is_answered_and_new_ones_refused(tmp_path, number):
    with start_server(tmp_path, "apps:application") as server:
        connection = server.connect()
        connection.sendall(head("GET", "/slow"))
        eventually(lambda: server.notes() == ["slow"])

        server.signal(number)
        eventually(lambda: is_refused(server))
        answer = read_answer(connection)
        ended = server.wait()

    assert (answer.status, answer.headers["connection"], answer.body) == (200, "close", b"done")
    assert (ended.exit_code, ended.log) == (0, "")


def test_upload_in_flight_may_finish(tmp_path):
    with start_server(tmp_path, "apps:application") as server:
        connection = server.connect()
        connection.sendall(head("POST", "/digest", content_length=6) + b"abc")
        server.notes()

        server.signal()
        eventually(lambda: is_refused(server))
        connection.sendall(b"def")
        answer = read_answer(connection)
        ended = server.wait()

    assert json.loads(answer.body)["size"] == 6
    assert ended.exit_code == 0


def test_idle_and_half_open_connections_do_not_delay_the_stop(tmp_path):
    with start_server(tmp_path, "apps:application") as server:
        idle, half, silent = server.connect(), server.connect(), server.connect()
        idle.sendall(head("GET", "/"))
        read_answer(idle)
        half.sendall(b"GET / HTTP/1.1\r\nHost: te")
        server.notes()

        begun = time.monotonic()
        server.signal()
        rests = [read_to_end(connection) for connection in (idle, half, silent)]
        ended = server.wait()

    assert rests == [b"", b"", b""]
    assert (ended.exit_code, ended.log) == (0, "")
    assert time.monotonic() - begun < 3


def test_request_that_outlives_the_grace_is_cut(tmp_path):
    with start_server(tmp_path, "apps:application", grace_seconds=0.5) as server:
        connection = server.connect()
        connection.sendall(head("GET", "/endless"))
        eventually(lambda: server.notes() == ["endless"])

        server.signal()
        raw = read_to_end(connection)
        ended = server.wait()

    assert raw == b""
    assert (ended.exit_code, ended.log) == (0, "")


def test_stuck_thread_does_not_keep_the_process(tmp_path):
    with start_server(tmp_path, "apps:application", grace_seconds=0.2) as server:
        server.connect().sendall(head("GET", "/stuck"))
        eventually(lambda: server.notes() == ["stuck"])

        server.signal()
        ended = server.wait()

    assert ended.exit_code == 0


def test_stuck_thread_under_sync_only_middleware_does_not_keep_the_process(tmp_path):
    with start_server(tmp_path, "site:application", grace_seconds=0.2) as server:
        server.connect().sendall(head("GET", "/stuck", x_key="good"))
        eventually((tmp_path / "stuck").exists)

        server.signal()
        ended = server.wait()

    assert ended.exit_code == 0


def test_sockets_are_told_that_the_service_restarts(tmp_path):
    with start_server(tmp_path, "apps:application") as server:
        with connect(f"{server.ws_url}/ws/echo") as websocket:
            websocket.send("hello")
            websocket.recv()

            server.signal()
            with pytest.raises(ConnectionClosed) as caught:
                websocket.recv()
        ended = server.wait()

    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (1012, "service restart")
    assert (ended.exit_code, ended.log) == (0, "")


def test_socket_that_does_not_answer_the_close_is_not_waited_for(tmp_path):
    with start_server(tmp_path, "apps:application", grace_seconds=30) as server:
        connection = server.connect()
        handshake = {"upgrade": "websocket", "connection": "upgrade"}
        handshake |= {
            "sec_websocket_version": "13",
            "sec_websocket_key": "AAAAAAAAAAAAAAAAAAAAAA==",
        }
        connection.sendall(head("GET", "/ws/echo", **handshake))
        connection.recv(65536)

        begun = time.monotonic()
        server.signal()
        ended = server.wait()

    assert ended.exit_code == 0
    assert time.monotonic() - begun < 6


def test_server_stops_with_its_companion_and_says_why(tmp_path):
    with start_server(tmp_path, "apps:application", companion_fails=True) as server:
        ended = server.wait()

    assert ended.exit_code == 1
    assert ended.log.endswith("RuntimeError: the companion failed\n")
