"""Real batches: releases of real projects, their own tests, and agents whose reward is known.

Each repository holds two consecutive releases. The task starts from the older one and is
judged by tests of the newer one, so that the repository's own future is the solution.
"""

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings

from tests.programs import needs
from tests.whole.archives import git, pack, task
from tests.whole.releases import History, Project, make_histories
from tests.whole.running import Server, serving

# What is installed comes over the network, and that may take its time.
pytestmark = [needs("node", "npm"), pytest.mark.timeout(900)]
BATCH_SECONDS = 400

PROJECTS = [
    Project(
        name="sqlparse",
        client="pip",
        old="0.4.4",
        new="0.5.0",
        prompt="Deeply nested statements end in a RecursionError, and GO does not split batches.",
        install=("pip install -e .", "pip install 'pytest~=8.3'"),
        test="python -m pytest -q -p no:cacheprovider tests/test_regressions.py tests/test_split.py",
        tests="tests",
        red="FAILED tests/test_regressions.py::test_max_recursion",
        green="125 passed, 1 xfailed",
    ),
    Project(
        name="more-itertools",
        client="pip",
        old="10.5.0",
        new="10.6.0",
        prompt="Add loops(n), and let polynomial_from_roots work with any number of roots.",
        install=("pip install -e .",),
        # Not all of them: others of this release work for ten seconds, or ask for terabytes.
        test="python -m unittest"
        " tests.test_recipes.LoopsTests tests.test_recipes.PolynomialFromRootsTests",
        tests="tests",
        red="AttributeError: module 'more_itertools' has no attribute 'loops'",
        green="\nOK\n",
    ),
    Project(
        name="json5",
        client="npm",
        old="2.2.1",
        new="2.2.2",
        prompt="A key called __proto__ has to become a property like any other.",
        install=(),
        # Its tests are not published: this is what its changelog promises.
        test="""\
node --eval '
const parsed = require(".").parse("{\\"__proto__\\": {\\"admin\\": true}}");
console.log("keys:", Object.keys(parsed).join(), "admin:", parsed.admin);
process.exit(parsed.admin === undefined && Object.keys(parsed).length === 1 ? 0 : 1);
'""",
        tests=None,
        red="keys:  admin: true",
        green="keys: __proto__ admin: undefined",
    ),
]

GOLD = {
    "agent.py": """
import os
import subprocess
from pathlib import Path

from library.choosing import patch_for

prompt = Path(os.environ["TASK_PROMPT"]).read_text(encoding="utf-8")
subprocess.run(["git", "apply", "--whitespace=nowarn", patch_for(prompt)], check=True)
""",
    "library/__init__.py": "",
    "library/choosing.py": """
from pathlib import Path

PATCHES = Path(__file__).parent.parent / "patches"


def patch_for(prompt):
    name = prompt.splitlines()[0].removeprefix("# ")
    return PATCHES / f"{name}.diff"
""",
}
IDLE = {"agent.sh": 'cat "$TASK_PROMPT"\ngit log --oneline\ngit status --short\n'}
WRONG = {
    "agent.py": '''
"""Empties the project's own tests, and leaves a remark in each file of its sources."""

import subprocess
from pathlib import Path

REMARKS = {".py": "# looks good", ".js": "// looks good"}

tracked = subprocess.run(["git", "ls-files", "-z"], check=True, capture_output=True).stdout
for path in map(Path, tracked.decode().split("\\0")):
    if path.suffix in REMARKS and path.parts[0] in ("test", "tests"):
        path.write_bytes(b"")
    elif path.suffix in REMARKS:
        with path.open("a") as file:
            file.write("\\n" + REMARKS[path.suffix] + "\\n")
'''
}
SEEKER = {
    "agent.py": '''
"""Looks for the newer release, whose commit it has been told, and writes down what there is."""

import json
import os
from pathlib import Path

from asking import asked, lines

prompt = Path(os.environ["TASK_PROMPT"]).read_text(encoding="utf-8")
futures = json.loads((Path(__file__).parent / "futures.json").read_text())
future = futures[prompt.splitlines()[0].removeprefix("# ")]
asked("fetch", "--all", "--tags")
found = {
    "the newer release is there": asked("cat-file", "-e", future).returncode == 0,
    "it can be checked out": asked("checkout", future, "--", ".").returncode == 0,
    "commits": lines("rev-list", "--all", "--reflog"),
    "refs": lines("for-each-ref"),
    "remotes": lines("remote"),
    "objects": len(lines("cat-file", "--batch-all-objects", "--batch-check")),
    "borrows objects": os.path.exists(".git/objects/info/alternates"),
}
Path("found.json").write_text(json.dumps(found))
''',
    "asking.py": """
import subprocess


def asked(*arguments):
    return subprocess.run(["git", *arguments], capture_output=True, text=True)


def lines(*arguments):
    return asked(*arguments).stdout.splitlines()
""",
}


@pytest.fixture(scope="module")
def histories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, History]:
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    return make_histories(PROJECTS, shared / "downloads", tmp_path_factory.mktemp("projects"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One whose tasks find the package registries as this machine does."""
    folder = tmp_path_factory.mktemp("server")
    passed_on = {name: os.environ[name] for name in settings.TASK_ENV if name in os.environ}
    with serving(folder, AGENT_TIMEOUT_SECS="120", **passed_on) as running:
        yield running


def judged(
    server: Server, histories: dict[str, History], agent: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Every project as a task of one batch, at its end: the task's row by the project's name."""
    tasks = {}
    for project in PROJECTS:
        history = histories[project.name]
        tests = history.files(project.tests) if project.tests else {}
        tasks[project.name] = task(
            history.folder,
            f"# {project.name}\n\n{project.prompt}\n",
            project.test,
            base_commit=history.old,
            install=list(project.install),
            files={f"tests/{path}": content for path, content in tests.items()},
        )
    ended = server.ended(server.accepted(pack(tasks, agent)), BATCH_SECONDS)
    return {row["task_id"]: row for row in ended["tasks"]}


def verdicts(rows: dict[str, dict[str, Any]]) -> dict[str, tuple[Any, ...]]:
    fields = ("status", "passed", "reward", "error", "fault", "attempt")
    return {name: tuple(row[field] for field in fields) for name, row in rows.items()}


def names_without(text: str, rows: dict[str, dict[str, Any]]) -> dict[str, str]:
    """What the tests printed that did not print what they must, ``red`` or ``green``."""
    expected = {project.name: getattr(project, text) for project in PROJECTS}
    outputs = {name: row["test_output"] for name, row in rows.items()}
    return {name: outputs[name] for name in expected if expected[name] not in outputs[name]}


PASSED = ("completed", True, 1.0, None, None, 1)
NOT_PASSED = ("failed", False, 0.0, None, "agent", 1)


def test_agent_with_the_fixes_earns_every_reward(
    server: Server, histories: dict[str, History]
) -> None:
    fixes = {
        f"patches/{project.name}.diff": histories[project.name].fix(project.tests)
        for project in PROJECTS
    }

    rows = judged(server, histories, {**GOLD, **fixes})

    assert verdicts(rows) == {project.name: PASSED for project in PROJECTS}, rows
    assert names_without("green", rows) == {}


def test_agent_that_does_nothing_earns_nothing(
    server: Server, histories: dict[str, History]
) -> None:
    rows = judged(server, histories, IDLE)

    assert verdicts(rows) == {project.name: NOT_PASSED for project in PROJECTS}, rows
    assert names_without("red", rows) == {}


def test_agent_that_empties_the_tests_and_mends_nothing_earns_nothing(
    server: Server, histories: dict[str, History]
) -> None:
    rows = judged(server, histories, WRONG)

    assert verdicts(rows) == {project.name: NOT_PASSED for project in PROJECTS}, rows
    assert names_without("red", rows) == {}


def test_agent_that_knows_the_newer_commit_finds_nothing_of_it(
    server: Server, histories: dict[str, History]
) -> None:
    futures = {name: history.new for name, history in histories.items()}
    tasks = {
        name: task(history.folder, f"# {name}\n", "cat found.json", base_commit=history.old)
        for name, history in histories.items()
    }
    agent = {**SEEKER, "futures.json": json.dumps(futures)}

    ended = server.ended(server.accepted(pack(tasks, agent)), BATCH_SECONDS)

    assert ended["aggregate_reward"] == 1.0, ended["tasks"]
    prefix = "== run.sh: exit code 0\n"
    found = {
        row["task_id"]: json.loads(row["test_output"].removeprefix(prefix))
        for row in ended["tasks"]
    }
    assert found == {
        name: {
            "the newer release is there": False,
            "it can be checked out": False,
            "commits": [history.old],
            "refs": [],
            "remotes": [],
            "objects": history.objects(),
            "borrows objects": False,
        }
        for name, history in histories.items()
    }
    for history in histories.values():
        assert git(history.folder, "rev-list", "main") == f"{history.new}\n{history.old}"
