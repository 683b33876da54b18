"""How an agent is started, for each language that one can be written in."""

from batches.archive.specs import AgentSpec

# Compiled into the layer's own temporary folder: the agent's tree is read-only. That tree may
# hold a .git that leads nowhere, which Go would stumble over if it was to name the version.
GO = """set -e
cd "$(dirname "$0")"
if [ ! -f go.mod ]; then export GO111MODULE=off; fi
go build -buildvcs=false -o "$TMPDIR/agent" .
cd "$REPO_DIR"
exec "$TMPDIR/agent"
"""
RUST = """set -e
if command -v rust-script >/dev/null; then exec rust-script "$0"; fi
rustc --edition 2021 -o "$TMPDIR/agent" "$0"
exec "$TMPDIR/agent"
"""

RUNTIMES = {
    "python": ("python3",),
    "javascript": ("node",),
    "typescript": ("tsx", "node"),
    "bash": ("bash",),
    "ruby": ("ruby",),
    "go": ("go",),
    "rust": ("rustc",),
}
"""The programs that each language needs in the sandbox; the first one starts the agent."""


def command(agent: AgentSpec, folder: str) -> tuple[str, ...]:
    """The command that starts ``agent``, whose tree is found at ``folder`` inside the sandbox."""
    entry = f"{folder}/{agent.entry}"
    match agent.language:
        case "go":
            return ("sh", "-c", GO, entry)
        case "rust":
            return ("sh", "-c", RUST, entry)
        case language:
            return (RUNTIMES[language][0], entry)
