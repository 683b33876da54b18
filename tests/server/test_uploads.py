"""Uploads through Django: one copy on the disk, and none when they fail."""

import hashlib
import json
import os
import time

import httpx
import pytest

from batches.uploads import sweep_incoming
from tests.server.scaffold import MIB, eventually, head, read_answer, start_server

BOUNDARY = "frontier"


def part(field, filename, content):
    named = f'; filename="{filename}"' if filename else ""
    disposition = f'Content-Disposition: form-data; name="{field}"{named}'
    return f"--{BOUNDARY}\r\n{disposition}\r\n\r\n".encode() + content + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()


def post(server, body, path="/upload", key="good"):
    headers = {"X-Key": key, "Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    return httpx.post(f"{server.url}{path}", content=body, headers=headers, trust_env=False)


def upload_head(length, key="good"):
    return head(
        "POST",
        "/upload",
        x_key=key,
        content_length=length,
        content_type=f"multipart/form-data; boundary={BOUNDARY}",
    )


def left_behind(site):
    """Every file below the server's folder but its log."""
    return [p.name for p in site.folder.rglob("*") if p.is_file() and p.name != "server.log"]


def test_large_upload_is_written_once_and_hardly_uses_memory(site):
    block, blocks = os.urandom(MIB), 300
    opening = part("archive", "big.zip", b"")[:-2]
    post(site, part("archive", "small.zip", b"warm up") + END)
    site.reset_peak()
    memory, written = site.status_bytes("VmHWM"), site.written_bytes()
    digest = hashlib.sha256()

    connection = site.connect()
    connection.sendall(upload_head(len(opening) + blocks * MIB + 2 + len(END)) + opening)
    for _ in range(blocks):
        connection.sendall(block)
        digest.update(block)
    connection.sendall(b"\r\n" + END)
    answer = read_answer(connection)

    assert json.loads(answer.body) == {
        "name": "big.zip",
        "sha256": digest.hexdigest(),
        "size": blocks * MIB,
        "on_disk": blocks * MIB,
        "mode": "0o600",
        "first": block[:4].decode("latin1"),
        "fields": {},
        "files": ["archive"],
        "stored": 1,
    }
    assert site.status_bytes("VmHWM") - memory < 100 * MIB
    assert site.written_bytes() - written < 310 * MIB
    eventually(lambda: left_behind(site) == [])


def test_unauthorised_upload_stores_nothing(site):
    written = site.written_bytes()
    connection = site.connect()

    connection.sendall(upload_head(100 * MIB, key="bad") + part("archive", "a.zip", bytes(MIB)))
    answer = read_answer(connection)

    assert (answer.status, answer.headers["connection"]) == (401, "close")
    assert site.written_bytes() - written < MIB
    assert left_behind(site) == []


def test_archive_over_the_limit_is_refused_in_mid_body(tmp_path, monkeypatch):
    monkeypatch.setenv("SITE_MAX_ARCHIVE_BYTES", str(2 * MIB))
    with start_server(tmp_path, "site:application") as server:
        connection = server.connect()

        connection.sendall(upload_head(50 * MIB) + part("archive", "a.zip", bytes(3 * MIB)))
        answer = read_answer(connection)

        assert answer.status == 400
        assert json.loads(answer.body) == {"error": "archive_too_large", "limit": 2 * MIB}
        assert left_behind(server) == []


def test_archive_of_exactly_the_limit_is_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("SITE_MAX_ARCHIVE_BYTES", str(2 * MIB))
    with start_server(tmp_path, "site:application") as server:
        answer = post(server, part("archive", "a.zip", bytes(2 * MIB)) + END)

    assert (answer.status_code, answer.json()["size"]) == (200, 2 * MIB)


def test_only_the_first_archive_field_is_kept(site):
    body = (
        part("note", None, b"hello")
        + part("picture", "p.png", b"no archive")
        + part("file", "first.zip", b"first")
        + part("archive", "second.zip", b"second")
        + END
    )

    answer = post(site, body).json()

    assert (answer["name"], answer["first"], answer["stored"]) == ("first.zip", "firs", 1)
    assert (answer["fields"], answer["files"]) == ({"note": "hello"}, ["file"])
    assert answer["sha256"] == hashlib.sha256(b"first").hexdigest()
    eventually(lambda: left_behind(site) == [])


def test_archive_that_was_moved_away_stays(site):
    post(site, part("archive", "a.zip", b"keep me") + END, path="/upload?keep")

    eventually(lambda: left_behind(site) == ["kept"])
    kept = site.folder / "kept"
    assert kept.read_bytes() == b"keep me"
    kept.unlink()


def test_chunked_upload_is_read_like_any_other(site):
    def pieces():
        yield part("archive", "a.zip", b"in pieces")[:50]
        yield part("archive", "a.zip", b"in pieces")[50:] + END

    answer = post(site, pieces())

    assert (answer.status_code, answer.json()["size"]) == (200, 9)


def test_client_that_leaves_in_mid_archive_leaves_no_file(site):
    connection = site.connect()
    connection.sendall(upload_head(50 * MIB) + part("archive", "a.zip", bytes(MIB)))
    eventually(lambda: left_behind(site))

    connection.close()

    eventually(lambda: left_behind(site) == [])


@pytest.mark.parametrize("second", ["archive", "other"])
def test_client_that_leaves_after_the_archive_leaves_no_file(site, second):
    whole = part("archive", "a.zip", bytes(MIB))
    connection = site.connect()
    connection.sendall(upload_head(50 * MIB) + whole + part(second, "b.zip", bytes(MIB)))
    eventually(lambda: left_behind(site))

    connection.close()

    eventually(lambda: left_behind(site) == [])


def test_body_without_its_last_boundary_is_refused_and_leaves_no_file(site):
    answer = post(site, part("archive", "a.zip", b"cut short"))

    assert answer.status_code == 400
    assert left_behind(site) == []


def test_form_without_an_archive_has_none(site):
    answer = post(site, part("picture", "p.png", b"no archive") + END)

    assert (answer.status_code, answer.json()) == (400, {"error": "missing_archive", "left": 0})


def test_sweep_removes_old_leftovers_and_nothing_else(tmp_path):
    old, fresh, other = tmp_path / "a.part", tmp_path / "b.part", tmp_path / "c.zip"
    target, link = tmp_path / "target", tmp_path / "d.part"
    for path in (old, fresh, other, target):
        path.write_bytes(b"")
    link.symlink_to(target)
    for path in (old, other, target):
        os.utime(path, (time.time() - 100, time.time() - 100))
    os.utime(link, (0, 0), follow_symlinks=False)

    removed = sweep_incoming(tmp_path, older_than_seconds=50)

    assert removed == 1
    assert {path.name for path in tmp_path.iterdir()} == {"b.part", "c.zip", "d.part", "target"}
    assert sweep_incoming(tmp_path / "missing", older_than_seconds=50) == 0
