"""``agent_code/``: the agent's tree, and the file in it that is run."""

import os
from pathlib import Path

from batches.archive.specs import AgentSpec, BadArchive, Problem

FOLDER = "agent_code"
LANGUAGES = {
    ".py": "python",
    ".js": "javascript",
    ".ts": "typescript",
    ".sh": "bash",
    ".rs": "rust",
    ".go": "go",
    ".rb": "ruby",
}
"""By the entry file's ending. Where several files could be meant, the earlier language is."""


def read_agent(root: Path) -> AgentSpec:
    """The agent of the archive unpacked to ``root``. Raises ``BadArchive``."""
    folder = root / FOLDER
    if not any(names for _, _, names in os.walk(folder)):
        raise BadArchive([Problem(FOLDER, "is missing or empty; put the agent into it")])
    entry = entry_of(sorted(path.name for path in folder.iterdir() if path.is_file()))
    if entry is None:
        endings = " ".join(LANGUAGES)
        message = (
            f"has no file at its top that could be run; add agent.*, ending in one of {endings}"
        )
        raise BadArchive([Problem(FOLDER, message)])
    return AgentSpec(FOLDER, entry, LANGUAGES[Path(entry).suffix])


def entry_of(names: list[str]) -> str | None:
    """The one of ``names``, which are sorted, that starts the agent."""
    preferred = [f"{stem}{ending}" for stem in ("agent", "main") for ending in LANGUAGES]
    others = [name for ending in LANGUAGES for name in names if Path(name).suffix == ending]
    return next((name for name in [*preferred, *others] if name in names), None)
