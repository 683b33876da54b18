"""What an operator meets: the first start, the second, and starts that cannot be."""

import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.whole.running import ROOT, Server, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("serve")) as running:
        yield running


def banner(server: Server) -> str:
    """What the latest start printed once it listened."""
    told = re.compile(r"term-executor listens on .*/submit\n", re.DOTALL)
    found: re.Match[str] = server.wait_for(
        lambda: told.search(server.log.read_text()), 20, "the banner"
    )
    return found.group()


def test_password_opens_the_admin(server: Server) -> None:
    password = (server.state / "admin.password").read_text().strip()
    with httpx.Client(base_url=server.url, follow_redirects=True) as client:
        form = client.get("/admin/login/?next=/admin/")
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', form.text)
        assert token is not None

        page = client.post(
            "/admin/login/?next=/admin/",
            data={
                "username": "admin",
                "password": password,
                "csrfmiddlewaretoken": token.group(1),
            },
            headers={"Referer": server.url},
        )

    assert page.status_code == 200
    assert "Batches" in page.text


def test_state_is_nobody_elses_business(server: Server) -> None:
    assert stat.S_IMODE(server.state.stat().st_mode) & 0o077 == 0
    assert stat.S_IMODE((server.state / "secret.key").stat().st_mode) == 0o600


def test_first_start_tells_password_and_how_to_submit_and_the_second_where_it_is(
    tmp_path: Path,
) -> None:
    with serving(tmp_path) as server:
        kept = server.state / "admin.password"
        first, url = banner(server), server.url
        password = kept.read_text().strip()
        server.stop()
        server.log.write_text("")
        server.start()
        second = banner(server)

        assert len(password) >= 16
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        assert f"admin    {url}/admin/   user admin, password {password}\n" in first
        assert f"curl -H 'X-Hotkey: <your hotkey>' -F archive=@batch.tar.gz {url}/submit" in first
        assert kept.read_text().strip() == password
        assert password not in second
        assert f"password in {kept}" in second


def test_address_stands_in_the_state_folder_only_while_the_server_runs(server: Server) -> None:
    assert httpx.get(f"{server.url}/health").status_code == 200

    server.stop()

    assert not (server.state / "address").exists()
    server.start()


def test_killed_demonstration_leaves_no_server_behind(tmp_path: Path) -> None:
    demo = subprocess.Popen(
        [sys.executable, "manage.py", "demo"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path), "STATE_DIR": str(tmp_path / "own")},
        stdout=subprocess.DEVNULL,
    )
    watched = Server(tmp_path)  # not started: it only knows whose processes are whose
    watched.log.touch()
    watched.wait_for(lambda: watched.pids("manage.py web"), 60, "the demonstration's server")

    demo.kill()
    demo.wait()

    watched.wait_for(lambda: not watched.processes(), 30, "all processes to end")
