"""One task from its repository to its reward.

The repository is prepared once, the agent works in a layer of its own, its
change is judged in a fresh layer that it never touched.
"""

import threading
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings

from batches import agents, environments, keepers, rewards, transitions, workspaces
from batches.archive.specs import AgentSpec, TaskSpec, TestScript
from batches.environments import Environment
from batches.faults import InfraFault, TaskFault
from batches.journal import Journal, printable
from batches.models import Task
from batches.rewards import TestResult, ending
from batches.sandbox.promise import (
    Command,
    FileToPut,
    Finished,
    Keeper,
    Layer,
    Limits,
    Patch,
    PatchRefused,
    Reason,
)
from batches.statuses import Fault, Phase, TaskStatus

TEST_OUTPUT_BYTES = 16 * 1024
"""Kept beside the verdict of what the tests printed; the whole of it stands with each run."""


@dataclass(frozen=True)
class Work:
    """What an agent did: the change that it left, and how it ended."""

    patch: Patch
    finished: Finished

    @property
    def note(self) -> str:
        """The beginning of a verdict's sentence, when the agent did not end by itself."""
        if self.finished.reason is Reason.EXITED:
            return ""
        return f"agent: {ending(self.finished)}; "


def run_task(task: Task, cancel: threading.Event) -> None:
    """Take a claimed task to its verdict.

    Raises ``StaleStatus`` when the lease was lost on the way; whatever else it
    raises is trouble of ours, and the caller's to give the task back for.
    """
    journal = Journal(task, cancel)
    spec = task.task_spec
    archive = workspaces.unpacked(task.batch, cancel)
    with keepers.opened(workspaces.for_attempt(task)) as keeper:
        try:
            environment = environments.prepare(spec, keeper, journal)
            done = work(spec, task.batch.agent_spec, archive, environment, keeper, journal)
            results = test(spec, archive, environment, done.patch, keeper, journal)
        except TaskFault as fault:
            journal.check()
            transitions.fail(task, Fault.TASK, str(fault))
        except PatchRefused as refusal:
            journal.check()
            transitions.judge(task, passed=False, reward=0.0, reason=str(refusal), test_output="")
        else:
            journal.check()
            conclude(task, environment, done, results)


def work(
    spec: TaskSpec,
    agent: AgentSpec,
    archive: Path,
    environment: Environment,
    keeper: Keeper,
    journal: Journal,
) -> Work:
    """Let the agent at the repository; what it changed comes back as a patch."""
    transitions.advance(journal.task, TaskStatus.RUNNING_AGENT)
    layer = keeper.fork(environment.snapshot, "agent")
    tree = keeper.show(layer, archive / agent.folder, "agent")
    prompt = keeper.show(layer, archive / spec.folder / "prompt.md", "prompt.md")
    argv = agents.command(agent, tree)
    finished = keeper.run(
        layer,
        Command(
            argv,
            settings.AGENT_TIMEOUT_SECS,
            env={
                "TASK_PROMPT": prompt,
                "REPO_DIR": layer.repo,
                # The agent's tree is read-only; byte code next to it could not be written.
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            limits=Limits(output_bytes=settings.MAX_OUTPUT_BYTES),
        ),
        journal.cancel,
    )
    journal.record(
        Phase.AGENT, "agent", f"{agents.RUNTIMES[agent.language][0]} {agent.entry}", finished
    )
    if finished.exit_code == 127:
        require_runtime(agent, keeper, layer, journal)
    patch = keeper.export_patch(layer, environment.snapshot, settings.MAX_PATCH_BYTES)
    journal.keep_patch(patch)
    keeper.discard(layer)
    return Work(patch, finished)


def require_runtime(agent: AgentSpec, keeper: Keeper, layer: Layer, journal: Journal) -> None:
    """Raise ``InfraFault`` when this machine lacks what the agent's language needs.

    Asked only after the agent could not be started: that is not its failure.
    """
    for runtime in agents.RUNTIMES[agent.language]:
        look = Command(("sh", "-c", 'command -v "$0"', runtime), 10)
        if not keeper.run(layer, look, journal.cancel).ok:
            raise InfraFault(f"{runtime} is not installed, which agents in {agent.language} need")


def test(
    spec: TaskSpec,
    archive: Path,
    environment: Environment,
    patch: Patch,
    keeper: Keeper,
    journal: Journal,
) -> list[TestResult]:
    """Judge the patch in a fresh layer; the tests are written into it last, over everything."""
    transitions.advance(journal.task, TaskStatus.RUNNING_TESTS)
    layer = keeper.fork(environment.snapshot, "tests")
    keeper.apply_patch(layer, patch)
    folder = archive / spec.folder / "tests"
    keeper.put(layer, [FileToPut(path, folder / path) for path in spec.test_files])
    scripts = keeper.show(layer, folder, "tests") if folder.is_dir() else ""
    return [
        TestResult(script.name, run_test(script, scripts, layer, keeper, journal))
        for script in spec.tests
    ]


def run_test(
    script: TestScript, folder: str, layer: Layer, keeper: Keeper, journal: Journal
) -> Finished:
    """Run one test by itself, with the repository as its working directory."""
    argv = (
        ("bash", f"{folder}/{script.file}") if script.file else ("bash", "-c", script.command or "")
    )
    finished = keeper.run(
        layer,
        Command(
            argv,
            settings.TEST_TIMEOUT_SECS,
            env={"REPO_DIR": layer.repo},
            limits=Limits(output_bytes=settings.MAX_OUTPUT_BYTES),
            network="none",
        ),
        journal.cancel,
    )
    journal.record(Phase.TESTS, script.name, script.command or f"bash {script.file}", finished)
    return finished


def conclude(task: Task, environment: Environment, done: Work, results: list[TestResult]) -> None:
    """Write the verdict. Red tests after a failed install accuse the task, not the agent."""
    verdict = rewards.verdict(results)
    output = summary(results)
    broken = environment.failed_install
    if broken is not None and not verdict.passed:
        transitions.fail(
            task,
            Fault.TASK,
            f"could not be judged: {broken.name} failed ({broken.reason}, exit code "
            f"{broken.exit_code}), and after it {verdict.reason}",
            test_output=output,
        )
        return
    transitions.judge(
        task,
        passed=verdict.passed,
        reward=verdict.reward,
        reason=done.note + verdict.reason,
        test_output=output,
    )


def summary(results: list[TestResult]) -> str:
    """What the tests printed, one after another under their names, each to an equal share."""
    # At least one byte: a slice of nothing from the end would be everything.
    share = max(TEST_OUTPUT_BYTES // (2 * len(results)), 1)
    parts = []
    for result in results:
        head, tail = result.finished.head, result.finished.tail
        text = head + tail if not result.finished.truncated else head + b"\n[...]\n" + tail
        if len(text) > 2 * share:
            text = text[:share] + b"\n[...]\n" + text[-share:]
        parts.append(f"== {result.name}: {ending(result.finished)}\n{printable(text)}")
    return "\n".join(parts)
