"""Environments: a repository at exactly its base commit, with its dependencies installed, frozen."""

from dataclasses import dataclass

from django.conf import settings

from batches import mirrors, repositories, transitions
from batches.archive.specs import TaskSpec
from batches.faults import TaskFault
from batches.journal import Journal
from batches.models import Run
from batches.rewards import ending
from batches.sandbox.promise import Command, Keeper, Layer, Limits, SandboxError, Snapshot
from batches.statuses import Phase, TaskStatus

CHECKOUT = """set -e
git init --quiet .
git fetch --quiet --depth=1 --no-tags "file://$0" "$1"
git -c advice.detachedHead=false checkout --quiet --detach "$1"
git config user.name agent
git config user.email agent@localhost
rm -rf .git/FETCH_HEAD .git/logs .git/hooks
"""
"""Only the base commit enters: no history before it to mine, and none after it to copy from."""

CLOSED_GIT = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ALLOW_PROTOCOL": "file",
}
"""Added for git commands of ours inside a sandbox: nobody's configuration, no network."""


@dataclass(frozen=True)
class Environment:
    """What a task's layers are forked from. ``failed_install`` is the first command that failed."""

    snapshot: Snapshot
    commit: str
    failed_install: Run | None


def prepare(spec: TaskSpec, keeper: Keeper, journal: Journal) -> Environment:
    """Clone, install and freeze. Raises ``TaskFault`` when the task cannot be prepared as written."""
    try:
        url = repositories.address(spec.repo, allow_local=settings.ALLOW_LOCAL_REPOS)
    except repositories.BadRepository as error:  # accepted under other settings than today's
        raise TaskFault(f"the repository {error}") from None
    kept = mirrors.Mirrors(settings.MIRRORS_DIR, settings.CLONE_TIMEOUT_SECS, journal.cancel)
    source = kept.source(url, spec.base_commit)
    journal.check()
    layer = keeper.fork(keeper.open_base(), "environment")
    checkout(source, keeper, layer, journal)
    transitions.advance(journal.task, TaskStatus.INSTALLING_DEPS, base_commit=source.commit)
    failed = install(spec, keeper, layer, journal)
    return Environment(keeper.freeze(layer), source.commit, failed)


def checkout(source: mirrors.Source, keeper: Keeper, layer: Layer, journal: Journal) -> None:
    """Put the one commit into the layer's repository."""
    mirror = keeper.show(layer, source.mirror, "mirror", ours=True)
    finished = keeper.run(
        layer,
        Command(
            ("sh", "-c", CHECKOUT, mirror, source.commit),
            settings.CLONE_TIMEOUT_SECS,
            env=CLOSED_GIT,
            limits=Limits(output_bytes=settings.MAX_OUTPUT_BYTES),
            network="none",
        ),
        journal.cancel,
    )
    journal.record(Phase.CLONE, "checkout", f"git checkout {source.commit}", finished)
    if not finished.ok:
        raise SandboxError(f"the checkout of {source.commit} failed: {ending(finished)}")


def install(spec: TaskSpec, keeper: Keeper, layer: Layer, journal: Journal) -> Run | None:
    """Run the install commands in their order; returns the first that failed, if any.

    The rest is still run: recipes in the wild often hold a step that fails and
    does not matter. With ``INSTALL_FAILURE=fail`` the first failure ends the task.
    """
    failed = None
    for number, line in enumerate(spec.install, start=1):
        finished = keeper.run(
            layer,
            Command(
                ("bash", "-c", line),
                settings.CLONE_TIMEOUT_SECS,
                limits=Limits(output_bytes=settings.MAX_OUTPUT_BYTES),
                network="full",
            ),
            journal.cancel,
        )
        run = journal.record(Phase.INSTALL, f"install {number}", line, finished)
        if finished.ok or failed is not None:
            continue
        failed = run
        if settings.INSTALL_FAILURE == "fail":
            raise TaskFault(f"install command {number} failed: {ending(finished)}")
    return failed
