"""Which file of the agent's tree is its entry."""

from collections.abc import Callable
from pathlib import Path

import pytest

from batches.archive.agent import read_agent
from batches.archive.specs import AgentSpec, BadArchive, Problem

NO_ENTRY = (
    "has no file at its top that could be run; "
    "add agent.*, ending in one of .py .js .ts .sh .rs .go .rb"
)
EMPTY = "is missing or empty; put the agent into it"


@pytest.fixture
def agent_of(tmp_path: Path) -> Callable[..., AgentSpec]:
    def write(*names: str) -> AgentSpec:
        for name in names:
            path = tmp_path / "agent_code" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if name.endswith("/"):
                path.mkdir()
            else:
                path.touch()
        return read_agent(tmp_path)

    return write


@pytest.mark.parametrize(
    ("names", "entry", "language"),
    [
        (["agent.py"], "agent.py", "python"),
        (["agent.js"], "agent.js", "javascript"),
        (["agent.ts"], "agent.ts", "typescript"),
        (["agent.sh"], "agent.sh", "bash"),
        (["agent.rs"], "agent.rs", "rust"),
        (["agent.go"], "agent.go", "go"),
        (["agent.rb"], "agent.rb", "ruby"),
        (["main.py", "agent.rb"], "agent.rb", "ruby"),
        (["a.py", "main.go"], "main.go", "go"),
        (["agent.sh", "agent.ts", "agent.js"], "agent.js", "javascript"),
        (["main.rs", "main.py"], "main.py", "python"),
        (["agent.md", "agent.json", "main.txt", "run.sh"], "run.sh", "bash"),
        (["z.py", "b.py", "a.js"], "b.py", "python"),
        (["agent.py/", "main.js"], "main.js", "javascript"),
        (["agent.test.py", "main.rb"], "main.rb", "ruby"),
        (["lib/agent.py", "start.rb"], "start.rb", "ruby"),
        (["my agent é.py"], "my agent é.py", "python"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_entry_is_found(
    names: list[str], entry: str, language: str, agent_of: Callable[..., AgentSpec]
) -> None:
    assert agent_of(*names) == AgentSpec("agent_code", entry, language)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["agent.md"], NO_ENTRY),
        (["agent", "Makefile", ".py"], NO_ENTRY),
        (["lib/agent.py"], NO_ENTRY),
        (["agent.PY"], NO_ENTRY),
        (["agent.py/"], EMPTY),
        ([], EMPTY),
        (["lib/"], EMPTY),
    ],
    ids=lambda value: (" ".join(value) or "none") if isinstance(value, list) else "",
)
def test_tree_without_an_entry_is_refused(
    names: list[str], message: str, agent_of: Callable[..., AgentSpec]
) -> None:
    with pytest.raises(BadArchive) as caught:
        agent_of(*names)

    assert caught.value.problems == [Problem("agent_code", message)]
