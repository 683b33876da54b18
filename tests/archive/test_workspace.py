"""What ``workspace.yaml`` may say, in which encodings, and what is said back."""

import codecs
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batches.archive.specs import BadArchive, Problem
from batches.archive.workspace import Workspace, read_workspace

MINIMAL = Workspace("owner/name", None, None, None, ())


@pytest.fixture
def read(tmp_path: Path) -> Callable[[str | bytes], Workspace]:
    def run(content: str | bytes) -> Workspace:
        data = content.encode() if isinstance(content, str) else content
        (tmp_path / "workspace.yaml").write_bytes(data)
        return read_workspace(tmp_path / "workspace.yaml", "workspace.yaml")

    return run


@pytest.mark.parametrize(
    ("text", "workspace"),
    [
        ("repo: owner/name\nversion: null", MINIMAL),
        ("repo: owner/name\nversion:", MINIMAL),
        ('{"repo": "owner/name", "version": null, "more": {"a": [1]}}', MINIMAL),
        ("repo: '  owner/name '\nversion: ''\nbase_commit: ' '\nlanguage: ~", MINIMAL),
        (
            "repo: https://example.org/x.git\nversion: 3.10\nbase_commit: 1234567\n"
            "language: python\ninstall: [make, 'true', \"a\\nb\"]",
            Workspace(
                "https://example.org/x.git", "3.10", "1234567", "python", ("make", "true", "a\nb")
            ),
        ),
        (
            "repo: owner/name\nversion: 2\nbase_commit: 1e10\ninstall: make && make test",
            Workspace("owner/name", "2", "1e10", None, ("make && make test",)),
        ),
        (
            "repo: owner/name\nversion: 0\nbase_commit: 0012",
            Workspace("owner/name", "0", "0012", None, ()),
        ),
        ("repo: owner/name\nversion: ~\ninstall: ~", MINIMAL),
        ("repo: owner/name\nversion: ~\ninstall: []", MINIMAL),
        ("repo: owner/name\r\nversion: null\r\n", MINIMAL),
    ],
)
def test_workspace_is_read(text: str, workspace: Workspace, read: Callable[..., Workspace]) -> None:
    assert read(text) == workspace


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_workspace_may_be_in_any_unicode(encoding: str, read: Callable[..., Workspace]) -> None:
    data = "repo: owner/näme\nversion: ~\n".encode(encoding)

    assert read(data) == Workspace("owner/näme", None, None, None, ())


REPO = "`repo` is required: write a text that is not blank"
VERSION = "`version` is required: write a text, a number or null"
MAPPING = "has to be a mapping, with lines like `repo: ...`"


def item(place: int) -> str:
    return (
        f"`install`, item {place}, has to be a command: a text that is not blank, "
        "in quotes if in doubt"
    )


def text(key: str) -> str:
    return f"`{key}` has to be a text; put quotes around it"


REFUSED = {
    "empty": (b"", [MAPPING]),
    "a list": (b"- repo", [MAPPING]),
    "a text": (b"repo", [MAPPING]),
    "empty mapping": (b"{}", [REPO, VERSION]),
    "no repo": (b"version: 1", [REPO]),
    "null repo": (b"version: 1\nrepo:", [REPO]),
    "blank repo": (b"version: 1\nrepo: '  '", [REPO]),
    "mapping as repo": (b"version: 1\nrepo: {url: a}", [text("repo")]),
    "no version": (b"repo: a/b", [VERSION]),
    "boolean as version": (b"repo: a/b\nversion: true", [text("version")]),
    "list as version": (b"repo: a/b\nversion: [1]", [text("version")]),
    "list as commit": (b"repo: a/b\nversion: 1\nbase_commit: [a]", [text("base_commit")]),
    "mapping as language": (b"repo: a/b\nversion: 1\nlanguage: {a: b}", [text("language")]),
    "NUL in repo": (
        b'repo: "a\\0b"\nversion: 1',
        ["`repo` holds a character that is no text; remove it"],
    ),
    "mapping as install": (
        b"repo: a/b\nversion: 1\ninstall: {commands: [make]}",
        ["`install` has to be a list of commands"],
    ),
    "boolean as install": (
        b"repo: a/b\nversion: 1\ninstall: true",
        ["`install` has to be a list of commands"],
    ),
    "blank install": (b"repo: a/b\nversion: 1\ninstall: ''", [item(1)]),
    "odd items of install": (
        b"repo: a/b\nversion: 1\ninstall: [make, '', [a], ~, true, \"a\\0\"]",
        [item(2), item(3), item(4), item(5), item(6)],
    ),
    "everything wrong": (
        b"repo: [a]\nbase_commit: {a: b}\nlanguage: true\ninstall: {a: b}",
        [
            text("repo"),
            VERSION,
            text("base_commit"),
            text("language"),
            "`install` has to be a list of commands",
        ],
    ),
    "other encoding": ("repo: näme".encode("cp1252"), ["is not UTF-8 text; save it as UTF-8"]),
    "half a UTF-16": (codecs.BOM_UTF16_LE + b"a", ["is not UTF-8 text; save it as UTF-8"]),
    "no YAML": (b"repo: [", ["is not valid YAML; look at line 2, column 1"]),
    "too large": (b"#" * 1_048_577, ["is larger than 1048576 bytes; make it shorter"]),
    "aliases without an end": (
        b"a: &a x\nb: [" + b"*a, " * 1000 + b"]",
        ["uses more than 100 aliases; write the values out"],
    ),
}


@pytest.mark.parametrize(("content", "messages"), REFUSED.values(), ids=REFUSED)
def test_workspace_that_cannot_be_used_is_refused_for_all_its_reasons(
    content: bytes, messages: list[str], read: Callable[..., Workspace]
) -> None:
    with pytest.raises(BadArchive) as caught:
        read(content)

    assert caught.value.problems == [Problem("workspace.yaml", message) for message in messages]


def test_largest_workspace_is_read(read: Callable[..., Workspace]) -> None:
    start = b"repo: owner/name\nversion: ~\npatch: '"

    assert read(start + b"x" * (1_048_576 - len(start) - 1) + b"'") == MINIMAL


def test_workspace_has_to_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()

    said = []
    for name in ("folder", "missing"):
        with pytest.raises(BadArchive) as caught:
            read_workspace(tmp_path / name, name)
        said += caught.value.problems

    assert said == [
        Problem("folder", "is a folder; it has to be a file"),
        Problem("missing", "is missing; add it"),
    ]


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.text(alphabet="repovsin: ~[]{}&*'\"-\n0", max_size=200).map(str.encode),
    )
)
def test_any_bytes_are_a_workspace_or_problems(read: Callable[..., Workspace], data: bytes) -> None:
    try:
        answers = [read(data).repo.strip()]
    except BadArchive as bad:
        answers = [problem.message for problem in bad.problems]

    assert answers
    assert all(answers)
