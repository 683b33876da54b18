"""ASGI applications without a framework, each written to show one thing about the server."""

import asyncio
import hashlib
import json
import time

NOTES = []
"""What the applications have seen; ``GET /notes`` tells."""


async def answer(send, status=200, body=b"", headers=()):
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [length, *headers]})
    await send({"type": "http.response.body", "body": body})


async def answer_json(send, value):
    await answer(send, 200, json.dumps(value).encode())


async def read_body(receive):
    """Digest and size of the body, or the type of the message that ended it early."""
    digest, size = hashlib.sha256(), 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return message["type"]
        digest.update(message["body"])
        size += len(message["body"])
        if not message["more_body"]:
            return {"sha256": digest.hexdigest(), "size": size}


async def hello(scope, receive, send):
    await answer(send, body=b"hello")


async def refuse(scope, receive, send):
    NOTES.append("refused")
    await answer(send, 401, b"no")


async def digest(scope, receive, send):
    outcome = await read_body(receive)
    NOTES.append(outcome)
    await answer_json(send, outcome)


async def describe(scope, receive, send):
    headers = sorted(name.decode() for name, _ in scope["headers"])
    await answer_json(send, [scope["root_path"], scope["path"], headers])


async def notes(scope, receive, send):
    await answer_json(send, NOTES)


async def forget(scope, receive, send):
    NOTES.clear()
    RELEASE.clear()
    await answer(send)


async def wait_for_leave(scope, receive, send):
    """Never answers, never reads; notes what it is told first and after that."""
    NOTES.append("begun")
    await receive()
    NOTES.append((await receive())["type"])
    NOTES.append((await receive())["type"])


async def hold(scope, receive, send):
    """Reads nothing until ``/release``, then everything."""
    NOTES.append("held")
    await RELEASE.wait()
    await answer_json(send, await read_body(receive))


async def release(scope, receive, send):
    RELEASE.set()
    await answer(send)


async def slow(scope, receive, send):
    NOTES.append("slow")
    await asyncio.sleep(1)
    await answer(send, body=b"done")


async def endless(scope, receive, send):
    NOTES.append("endless")
    await asyncio.sleep(3600)


async def stuck(scope, receive, send):
    """Blocks a thread of the pool, which no cancelling reaches."""
    NOTES.append("stuck")
    await asyncio.to_thread(time.sleep, 3600)


async def broken(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"so far", "more_body": True})
    raise RuntimeError("broken on purpose")


async def download(scope, receive, send):
    """Endless output; notes how far it got."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(2000):
        await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
    NOTES.append("all written")


async def socket_echo(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})
    NOTES.append(["echo closed", message["code"]])


async def socket_describe(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    headers = sorted(name.decode() for name, _ in scope["headers"])
    await send({"type": "websocket.send", "text": json.dumps([scope["root_path"], headers])})
    await send({"type": "websocket.close", "code": 4001, "reason": "told"})


async def socket_flood(scope, receive, send):
    """Sends for as long as the client is said to be there, then goes on for a while."""
    await receive()
    await send({"type": "websocket.accept"})
    leaving = asyncio.ensure_future(receive())
    text, sent = "x" * 65536, 0
    while not leaving.done():
        await send({"type": "websocket.send", "text": text})
        sent += 1
        await asyncio.sleep(0)
    for _ in range(1000):
        await send({"type": "websocket.send", "text": text})
    NOTES.append(["flood closed", leaving.result()["code"]])


async def socket_large(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": "x" * (6 * 1024 * 1024)})
    await send({"type": "websocket.close"})


async def socket_deaf(scope, receive, send):
    """Accepts, then never asks for another message."""
    await receive()
    await send({"type": "websocket.accept"})
    await asyncio.sleep(3600)


PAGES = {
    "/": hello,
    "/refuse": refuse,
    "/digest": digest,
    "/describe": describe,
    "/notes": notes,
    "/forget": forget,
    "/wait": wait_for_leave,
    "/hold": hold,
    "/release": release,
    "/slow": slow,
    "/endless": endless,
    "/stuck": stuck,
    "/broken": broken,
    "/download": download,
    "/ws/echo": socket_echo,
    "/ws/describe": socket_describe,
    "/ws/flood": socket_flood,
    "/ws/large": socket_large,
    "/ws/deaf": socket_deaf,
}
RELEASE = asyncio.Event()


async def application(scope, receive, send):
    await PAGES[scope["path"]](scope, receive, send)
