"""Repositories: which addresses and names of commits are accepted."""

import pytest

from batches.repositories import BadRepository, address, revision


@pytest.mark.parametrize(
    ("repo", "url"),
    [
        ("owner/name", "https://github.com/owner/name.git"),
        (" owner/name.git ", "https://github.com/owner/name.git"),
        ("o-w/n.a_m-e", "https://github.com/o-w/n.a_m-e.git"),
        ("https://example.org/a/b.git", "https://example.org/a/b.git"),
        ("http://example.org:8080/a", "http://example.org:8080/a"),
        ("git://example.org/a", "git://example.org/a"),
        ("https://[::1]:8443/a", "https://[::1]:8443/a"),
        ("/srv/git/a", "file:///srv/git/a"),
        ("file:///srv/git/a", "file:///srv/git/a"),
        ("file://localhost/srv/git/a", "file://localhost/srv/git/a"),
    ],
)
def test_address_is_accepted(repo: str, url: str) -> None:
    assert address(repo, allow_local=True) == url


@pytest.mark.parametrize(
    ("repo", "why"),
    [
        ("", "must be an https:// address"),
        ("name", "must be an https:// address"),
        ("owner/name/more", "must be an https:// address"),
        ("-owner/name", "is not a repository address"),
        ("--upload-pack=id", "is not a repository address"),
        ("https://example.org/a\nb", "is not a repository address"),
        ("https://example.org/a\0", "is not a repository address"),
        ("https://[::1/a", "is not a repository address"),
        ("https://exa\u2100mple.org/a", "is not a repository address"),
        ("ext::sh -c id", "must be an https:// address"),
        ("ext://sh", "must be an https:// address"),
        ("fd::17", "must be an https:// address"),
        ("ssh://example.org/a", "must be an https:// address"),
        ("git@example.org:a/b", "must be an https:// address"),
        ("../../etc", "must be an https:// address"),
        ("./a", "must be an https:// address"),
        ("~/a", "must be an https:// address"),
        ("https://user:secret@example.org/a", "must not contain a user name"),
        ("https://token@example.org/a", "must not contain a user name"),
        ("https://:secret@example.org/a", "must not contain a user name"),
        ("https:///a", "names no host"),
        ("file://example.org/a", "names a host"),
    ],
)
def test_address_is_refused(repo: str, why: str) -> None:
    with pytest.raises(BadRepository, match=why) as refusal:
        address(repo, allow_local=True)

    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize("repo", ["/srv/git/a", "file:///srv/git/a"])
def test_local_path_is_refused_unless_allowed(repo: str) -> None:
    with pytest.raises(BadRepository, match="ALLOW_LOCAL_REPOS=1"):
        address(repo, allow_local=False)


@pytest.mark.parametrize(
    "name", ["main", "v1.0", "feature/x", "a" * 40, "abcd", "release-1.2+build", "HEAD", "0.1"]
)
def test_revision_is_accepted(name: str) -> None:
    assert revision(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *("", "-x", "--upload-pack=id", "a..b", "main~1", "main^", "HEAD@{1}", "a b", "a:b", "a\n"),
        *("/main", "main/", "x.lock", "main.", "*", "refs/heads/*:refs/heads/*", "a" * 252),
    ],
)
def test_revision_is_refused(name: str) -> None:
    with pytest.raises(BadRepository, match="not the name of a commit, branch or tag"):
        revision(name)
