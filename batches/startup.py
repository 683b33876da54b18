"""What has to be in order before a server process starts, and what it tells its operator."""

import errno
import fcntl
import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

ADMIN_NAME = "admin"
PASSWORD_FILE = "admin.password"  # noqa: S105 - the name of the file
ADDRESS_FILE = "address"
"""Holds the address that the running server listens on, for programs that start one."""
PORT_SECONDS = 3.0


@contextmanager
def sole_server() -> Iterator[None]:
    """Hold ``STATE_DIR`` for one ``serve`` at a time; raises ``CommandError`` when it is taken."""
    make_folders()
    with (settings.STATE_DIR / "serve.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CommandError(
                f"another server uses {settings.STATE_DIR}; stop it, or set STATE_DIR to another folder"
            ) from None
        yield


def make_folders() -> None:
    """Create the folders of ``STATE_DIR``. Nobody but the server has business in them."""
    for folder in (
        settings.STATE_DIR,
        settings.ARCHIVES_DIR,
        settings.INCOMING_DIR,
        settings.MIRRORS_DIR,
    ):
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise CommandError(f"STATE_DIR: {folder} cannot be made: {error}") from None
    if not os.access(settings.STATE_DIR, os.W_OK):
        raise CommandError(f"STATE_DIR: {settings.STATE_DIR} cannot be written to")


def migrate() -> None:
    """Bring the database up to date. SQLite is switched to its write-ahead log by the way."""
    call_command("migrate", interactive=False, verbosity=0)


def require_migrated() -> None:
    """Raise ``CommandError`` when the database is not up to date."""
    executor = MigrationExecutor(connection)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        raise CommandError("the database is not up to date; run: manage.py migrate")


def ensure_admin() -> str | None:
    """Make the first staff account; returns its generated password, or ``None`` when there is one.

    The password is kept beside the database, readable for the server's account only.
    """
    users = get_user_model()._default_manager
    if users.filter(is_superuser=True).exists():
        return None
    password = secrets.token_urlsafe(12)
    keeper: Path = settings.STATE_DIR / PASSWORD_FILE
    descriptor = os.open(keeper, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(password + "\n")
    users.create_superuser(ADMIN_NAME, password=password)
    return password


def require_free_port() -> None:
    """Raise ``CommandError`` when nobody can listen on ``HOST`` and ``PORT``.

    Waits a moment for a server whose supervisor was killed: it is ending.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            settings.HOST, settings.PORT, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise CommandError(f"HOST: {settings.HOST} cannot be looked up: {error}") from None
    end = time.monotonic() + PORT_SECONDS
    while (trouble := cannot_bind(family, kind, address)) is not None:
        if trouble.errno != errno.EADDRINUSE or time.monotonic() > end:
            raise CommandError(
                f"cannot listen on {settings.HOST}:{settings.PORT}: {trouble.strerror}; "
                "set PORT to a free one (0 picks one)"
            )
        time.sleep(0.2)


def cannot_bind(family: int, kind: int, address: Any) -> OSError | None:
    """What stands against listening on ``address``; ``None`` when nothing does."""
    with socket.socket(family, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            return error
    return None


def address(port: int) -> str:
    """The URL under which this machine reaches a server that listens on ``port``."""
    host = settings.HOST
    if host in ("0.0.0.0", "::", ""):  # noqa: S104 - compared, not bound
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def banner(url: str, password: str | None) -> str:
    """What an operator wants to know when the server has started."""
    admin = f"{url}/admin/   user {ADMIN_NAME}"
    kept = settings.STATE_DIR / PASSWORD_FILE
    admin += f", password {password}" if password else f", password in {kept}"
    return "\n".join(
        [
            f"term-executor listens on {url}   (Ctrl-C stops it)",
            f"  admin    {admin}",
            f"  state    {settings.STATE_DIR}",
            f"  sandbox  {settings.SANDBOX}: strangers' code runs with this account's rights",
            f"  submit   curl -H 'X-Hotkey: <your hotkey>' -F archive=@batch.tar.gz {url}/submit",
            "",
        ]
    )
