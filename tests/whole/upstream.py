"""A remote repository that hangs in the middle of a fetch, once."""

import os
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HANG_ONCE = """#!/bin/sh
if mkdir {mark} 2>/dev/null; then exec sleep 600; fi
exec "$@"
"""


@contextmanager
def hanging_once(repository: Path, folder: Path) -> Iterator[str]:
    """Serve ``repository``; the first who fetches waits for ever for its contents.

    That one has been told which commits it will get: its git holds the locks of the mirror by then.
    """
    hook = folder / "pack-objects"
    hook.write_text(HANG_ONCE.format(mark=folder / "asked-before"))
    hook.chmod(0o755)
    environment = {
        "PATH": os.environ["PATH"],
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_COUNT": "3",
        "GIT_CONFIG_KEY_0": "uploadpack.packObjectsHook",
        "GIT_CONFIG_VALUE_0": str(hook),
        "GIT_CONFIG_KEY_1": "uploadpack.allowAnySHA1InWant",
        "GIT_CONFIG_VALUE_1": "true",
        "GIT_CONFIG_KEY_2": "safe.directory",
        "GIT_CONFIG_VALUE_2": "*",
    }
    conversations: list[subprocess.Popen[bytes]] = []

    class Conversation(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            command = ["git", "daemon", "--inetd", "--export-all", f"--base-path={folder}"]
            conversations.append(
                subprocess.Popen(
                    [*command, str(repository)],
                    env=environment,
                    stdin=self.request,
                    stdout=self.request,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            )
            conversations[-1].wait()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Conversation) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"git://127.0.0.1:{server.server_address[1]}/{repository.relative_to(folder)}"
        finally:
            server.shutdown()
            for conversation in conversations:
                subprocess.run(["pkill", "-KILL", "--session", str(conversation.pid)], check=False)
                conversation.wait()
