"""WebSockets: what stalled readers cost, and what everybody else notices of them."""

import json
from collections import deque

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.server.scaffold import MIB, eventually, head, push_until_stuck

HANDSHAKE = {
    "upgrade": "websocket",
    "connection": "upgrade",
    "sec_websocket_version": "13",
    "sec_websocket_key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


def test_socket_echoes_and_its_close_is_told(server):
    with connect(f"{server.ws_url}/ws/echo") as websocket:
        websocket.send("hello")
        heard = websocket.recv()

    assert heard == "hello"
    eventually(lambda: server.notes() == [["echo closed", 1000]])


def test_root_path_cannot_be_chosen_by_the_client(server):
    headers = {"Daphne-Root-Path": "/evil"}

    with connect(f"{server.ws_url}/ws/describe", additional_headers=headers) as websocket:
        root_path, names = json.loads(websocket.recv())

    assert root_path == ""
    assert "daphne-root-path" not in names


def test_close_carries_any_code_and_a_reason(server):
    with connect(f"{server.ws_url}/ws/describe") as websocket:
        websocket.recv()
        with pytest.raises(ConnectionClosed) as caught:
            websocket.recv()

    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4001, "told")


def test_message_larger_than_what_clients_may_send_arrives(server):
    with connect(f"{server.ws_url}/ws/large", max_size=None) as websocket:
        assert len(websocket.recv()) == 6 * MIB


def test_readers_that_stall_cost_bounded_memory_and_disturb_nobody(server):
    server.reset_peak()
    before = server.status_bytes("VmHWM")
    stalled = [server.connect() for _ in range(5)]

    with connect(f"{server.ws_url}/ws/echo") as healthy:
        for connection in stalled:
            connection.sendall(head("GET", "/ws/flood", **HANDSHAKE))
        eventually(lambda: server.notes() == [["flood closed", 1013]] * 5)
        healthy.send("still here")
        heard = healthy.recv()
    grown = server.status_bytes("VmHWM") - before

    assert heard == "still here"
    assert grown < 5 * 12 * MIB  # Twisted copies what waits when it joins it


def test_reader_that_stalled_and_comes_back_is_told_to_reconnect(server):
    with connect(f"{server.ws_url}/ws/flood", max_queue=1) as websocket:
        eventually(lambda: server.notes() == [["flood closed", 1013]])

        with pytest.raises(ConnectionClosed) as caught:
            deque(websocket, maxlen=0)  # reads to the end

    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (1013, "reconnect with since")


def test_client_cannot_push_more_than_the_application_reads(server):
    connection = server.connect()
    connection.sendall(head("GET", "/ws/deaf", **HANDSHAKE))
    connection.recv(65536)
    frame = b"\x82\xfe" + (60_000).to_bytes(2, "big") + bytes(4) + bytes(60_000)
    before = server.status_bytes("VmRSS")

    taken = push_until_stuck(connection, 100 * MIB, block=frame)

    assert taken < 12 * MIB  # most of it in the kernel's two socket buffers
    assert server.status_bytes("VmRSS") - before < 6 * MIB
