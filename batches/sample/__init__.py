"""The sample batch of ``manage.py demo``: its project, tasks, agent and expected rewards."""

import io
import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


def make_repository(folder: Path) -> str:
    """Make a git repository of the sample project in ``folder``; returns its only commit."""
    folder.mkdir(parents=True)
    for source in sorted((FOLDER / "project").glob("*.py")):
        (folder / source.name).write_bytes(source.read_bytes())
    environment = {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "HOME": str(folder),
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
    }
    identity = ("-c", "user.name=sample", "-c", "user.email=sample@localhost")
    for arguments in (
        ("init", "--quiet", "--initial-branch=main"),
        ("add", "--all"),
        (*identity, "commit", "--quiet", "--message=The sample project"),
    ):
        subprocess.run(["git", *arguments], cwd=folder, env=environment, check=True)
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"],
        cwd=folder,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return head.stdout.strip()


def make_archive(repository: Path, commit: str) -> bytes:
    """The sample's tasks and agent as a .tar.gz, its tasks starting from ``commit``."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for part in ("tasks", "agent_code"):
            for source in sorted((FOLDER / part).rglob("*")):
                if not source.is_file() or "__pycache__" in source.parts:
                    continue
                content = source.read_bytes()
                if source.name == "workspace.yaml":
                    text = content.decode("utf-8")
                    text = text.replace("{repo}", str(repository)).replace("{commit}", commit)
                    content = text.encode("utf-8")
                member = tarfile.TarInfo(str(source.relative_to(FOLDER)))
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def expected() -> dict[str, dict[str, Any]]:
    """What each task of the sample must come to."""
    found: dict[str, dict[str, Any]] = json.loads((FOLDER / "expected.json").read_text("utf-8"))
    return found
