"""Archives of small tasks around a repository made for the test."""

import io
import json
import os
import subprocess
import tarfile
import textwrap
from collections.abc import Mapping
from pathlib import Path

SCRIPTED_AGENT = '''
"""Does what the prompt says: its text is a Python program."""

import os

exec(compile(open(os.environ["TASK_PROMPT"]).read(), "prompt", "exec"), {})
'''


def make_repository(folder: Path, files: Mapping[str, str] | None = None) -> str:
    """A repository with one commit; returns the commit."""
    folder.mkdir(parents=True)
    for name, text in (files or {"number.txt": "1\n"}).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    git(folder, "init", "--quiet", "--initial-branch=main")
    return commit(folder)


def commit(folder: Path, message: str = "change") -> str:
    """Commit everything in ``folder``; returns the commit."""
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", f"--message={message}")
    return git(folder, "rev-parse", "HEAD")


def git(folder: Path, *arguments: str) -> str:
    environment = {
        "PATH": os.environ["PATH"],
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "test",
        "GIT_AUTHOR_EMAIL": "test@localhost",
        "GIT_COMMITTER_NAME": "test",
        "GIT_COMMITTER_EMAIL": "test@localhost",
    }
    ended = subprocess.run(
        ["git", *arguments], cwd=folder, env=environment, check=True, capture_output=True, text=True
    )
    return ended.stdout.strip()


def task(
    repo: Path | str,
    prompt: str,
    test: str = "grep -qx 2 number.txt",
    *,
    base_commit: str | None = None,
    install: list[str] | None = None,
    files: Mapping[str, str | bytes] | None = None,
) -> dict[str, str | bytes]:
    """The files of one task; ``prompt`` is a program for the scripted agent."""
    manifest = {"repo": str(repo), "version": "1", "base_commit": base_commit}
    if install is not None:
        manifest["install"] = install  # type: ignore[assignment]
    return {
        "workspace.yaml": json.dumps({k: v for k, v in manifest.items() if v is not None}),
        "prompt.md": textwrap.dedent(prompt),
        "tests/run.sh": f"#!/bin/bash\n{textwrap.dedent(test)}\n",
        **(files or {}),
    }


SOLVE = "open('number.txt', 'w').write('2\\n')\n"
IDLE = "pass\n"


def pack(
    tasks: Mapping[str, Mapping[str, str | bytes]],
    agent: Mapping[str, str | bytes] | None = None,
) -> bytes:
    """A .tar.gz of ``tasks`` and an agent; the scripted one unless another is given."""
    files: dict[str, str | bytes] = {}
    for name, parts in tasks.items():
        files |= {f"tasks/{name}/{path}": content for path, content in parts.items()}
    agent = agent or {"agent.py": SCRIPTED_AGENT}
    files |= {f"agent_code/{path}": content for path, content in agent.items()}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        for path, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(path)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()
