"""Repositories: which addresses are accepted, and which names of commits."""

import re
from pathlib import Path
from urllib.parse import urlsplit

GITHUB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9._-]{1,100}")
REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,250}")


class BadRepository(ValueError):
    """An address that is not accepted; the message says what is."""


def address(repo: str, *, allow_local: bool) -> str:
    """The URL or path to fetch ``repo`` from. ``owner/name`` means GitHub.

    Raises ``BadRepository`` for transports that run programs (``ext::``),
    for options in disguise and for credentials, which would end up in logs.
    """
    repo = repo.strip()
    if repo.startswith("-") or any(ord(character) < 32 for character in repo):
        raise BadRepository("is not a repository address")
    try:
        parts = urlsplit(repo) if "://" in repo else None
    except ValueError:  # such as a bracket that is not closed
        raise BadRepository("is not a repository address") from None
    if parts is not None and parts.scheme in ("https", "http", "git"):
        if parts.username is not None or parts.password is not None:
            raise BadRepository("must not contain a user name or password")
        if not parts.hostname:
            raise BadRepository("names no host")
        return repo
    local = parts is not None and parts.scheme == "file"
    if local or Path(repo).is_absolute():
        if not allow_local:
            raise BadRepository(
                "is a local path; the server accepts those with ALLOW_LOCAL_REPOS=1"
            )
        if local and parts is not None and parts.netloc not in ("", "localhost"):
            raise BadRepository("names a host; a file:// address has three slashes")
        return repo if local else f"file://{repo}"
    if "::" not in repo and GITHUB_NAME.fullmatch(repo):
        return f"https://github.com/{repo.removesuffix('.git')}.git"
    raise BadRepository("must be an https:// address or owner/name (which means GitHub)")


def revision(name: str) -> str:
    """``name`` if it can name a commit, branch or tag; raises ``BadRepository`` otherwise."""
    if not REVISION.fullmatch(name) or ".." in name or name.endswith((".lock", "/", ".")):
        raise BadRepository("is not the name of a commit, branch or tag")
    return name
