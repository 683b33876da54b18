"""An agent of several files in each language, through a real server, and what it finds there."""

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from tests.programs import needs
from tests.whole.archives import IDLE, SCRIPTED_AGENT, SOLVE, pack, task
from tests.whole.running import Server, serving

pytestmark = pytest.mark.timeout(600)
BATCH_SECONDS = 300
PROMPT = "Write 2 into number.txt."

# Each agent takes its answer from a second file, and leaves three lines beside it:
# the folder that it works in, REPO_DIR, and its prompt.
AGENTS = {
    "python": {
        "agent.py": """
import os

from library.answers import answer

with open("number.txt", "w") as file:
    print(answer(), file=file)
with open("facts.txt", "w") as file:
    print(os.getcwd(), os.environ["REPO_DIR"], sep="\\n", file=file)
    file.write(open(os.environ["TASK_PROMPT"]).read())
""",
        "library/__init__.py": "",
        "library/answers.py": "def answer():\n    return 2\n",
    },
    "javascript": {
        "agent.js": """
const fs = require("node:fs");
const { answer } = require("./library/answers");

fs.writeFileSync("number.txt", `${answer()}\\n`);
const prompt = fs.readFileSync(process.env.TASK_PROMPT, "utf8");
fs.writeFileSync("facts.txt", `${process.cwd()}\\n${process.env.REPO_DIR}\\n${prompt}`);
""",
        "library/answers.js": "exports.answer = () => 2;\n",
    },
    "javascript modules": {
        "package.json": '{"type": "module"}',
        "agent.js": """
import fs from "node:fs";
import { answer } from "./library/answers.js";

fs.writeFileSync("number.txt", `${answer()}\\n`);
const prompt = fs.readFileSync(process.env.TASK_PROMPT, "utf8");
fs.writeFileSync("facts.txt", `${process.cwd()}\\n${process.env.REPO_DIR}\\n${prompt}`);
""",
        "library/answers.js": "export const answer = () => 2;\n",
    },
    "typescript": {
        "agent.ts": """
import fs from "node:fs";
import { answer } from "./library/answers";

const prompt: string = fs.readFileSync(process.env.TASK_PROMPT as string, "utf8");
fs.writeFileSync("number.txt", `${answer()}\\n`);
fs.writeFileSync("facts.txt", `${process.cwd()}\\n${process.env.REPO_DIR}\\n${prompt}`);
""",
        "library/answers.ts": "export const answer = (): number => 2;\n",
    },
    "bash": {
        "agent.sh": """
source "$(dirname "$0")/library/answers.sh"
answer >number.txt
pwd >facts.txt
echo "$REPO_DIR" >>facts.txt
cat "$TASK_PROMPT" >>facts.txt
""",
        "library/answers.sh": "answer() { echo 2; }\n",
    },
    "ruby": {
        "agent.rb": """
require_relative "library/answers"

File.write("number.txt", "#{answer}\\n")
prompt = File.read(ENV.fetch("TASK_PROMPT"))
File.write("facts.txt", "#{Dir.pwd}\\n#{ENV.fetch("REPO_DIR")}\\n#{prompt}")
""",
        "library/answers.rb": "def answer\n  2\nend\n",
    },
    "go": {
        "main.go": """
package main

import "os"

func main() {
	folder, _ := os.Getwd()
	prompt, _ := os.ReadFile(os.Getenv("TASK_PROMPT"))
	facts := folder + "\\n" + os.Getenv("REPO_DIR") + "\\n" + string(prompt)
	os.WriteFile("number.txt", []byte(answer()+"\\n"), 0o644)
	os.WriteFile("facts.txt", []byte(facts), 0o644)
}
""",
        "answers.go": 'package main\n\nfunc answer() string { return "2" }\n',
    },
    "go modules": {
        # As submodules have it: go would ask git about the repository, and fail.
        ".git": "gitdir: /nowhere\n",
        "go.mod": "module solver\n\ngo 1.18\n",
        "main.go": """
package main

import (
	"os"

	"solver/library"
)

func main() {
	folder, _ := os.Getwd()
	prompt, _ := os.ReadFile(os.Getenv("TASK_PROMPT"))
	facts := folder + "\\n" + os.Getenv("REPO_DIR") + "\\n" + string(prompt)
	os.WriteFile("number.txt", []byte(library.Answer()+"\\n"), 0o644)
	os.WriteFile("facts.txt", []byte(facts), 0o644)
}
""",
        "library/answers.go": 'package library\n\nfunc Answer() string { return "2" }\n',
    },
    "rust": {
        "agent.rs": """
use std::{env, fs};

mod library;

fn main() {
    let folder = env::current_dir().unwrap();
    let prompt = fs::read_to_string(env::var("TASK_PROMPT").unwrap()).unwrap();
    let repo = env::var("REPO_DIR").unwrap();
    fs::write("number.txt", format!("{}\\n", library::answer())).unwrap();
    fs::write("facts.txt", format!("{}\\n{repo}\\n{prompt}", folder.display())).unwrap();
}
""",
        "library/mod.rs": "pub fn answer() -> u8 {\n    2\n}\n",
    },
}
PROGRAMS = {
    "javascript": ("node",),
    "javascript modules": ("node",),
    "typescript": ("tsx", "node"),
    "ruby": ("ruby",),
    "go": ("go",),
    "go modules": ("go",),
    "rust": ("rustc",),
}
LACKING = {"node", "go", "rustc", "rust-script"}
LANGUAGES = [
    pytest.param(name, marks=needs(*PROGRAMS.get(name, ())), id=name.replace(" ", "-"))
    for name in AGENTS
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One with patience: compilers are slow where everybody else is compiling too."""
    with serving(tmp_path_factory.mktemp("server"), AGENT_TIMEOUT_SECS="240") as running:
        yield running


@pytest.fixture(scope="module")
def bare_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that finds every program there is, but for what runs most languages; tsx needs node."""
    folder = tmp_path_factory.mktemp("bare-server")
    programs = folder / "programs"
    programs.mkdir()
    for place in settings.TASK_PATH.split(":"):
        for program in Path(place).glob("*"):
            link = programs / program.name
            if program.name not in LACKING and not link.is_symlink():
                link.symlink_to(program)
    with serving(folder, TASK_PATH=str(programs), MAX_ATTEMPTS="2") as running:
        yield running


def only_task(server: Server, archive: bytes) -> dict[str, Any]:
    """The one task of a batch, at its end."""
    ended = server.ended(server.accepted(archive), BATCH_SECONDS)
    (row,) = ended["tasks"]
    found: dict[str, Any] = row
    return found


@pytest.mark.parametrize("language", LANGUAGES)
def test_agent_of_several_files_works_in_the_repository(
    server: Server, repo: Path, language: str
) -> None:
    test = f"""\
    cat number.txt
    diff facts.txt <(printf '%s\\n' "$REPO_DIR" "$REPO_DIR" "{PROMPT}") && git status --short
    """
    archive = pack({"a": task(repo, f"{PROMPT}\n", test)}, AGENTS[language])

    row = only_task(server, archive)

    assert (row["passed"], row["error"]) == (True, None), row
    assert row["test_output"] == ("== run.sh: exit code 0\n2\n M number.txt\n?? facts.txt\n")


def test_agent_finds_its_files_outside_of_the_repository_and_write_protected(
    server: Server, repo: Path
) -> None:
    agent = {
        "agent.sh": """
{
    cd "$(dirname "$0")"
    case "$PWD/" in "$REPO_DIR"/*) echo inside ;; *) echo outside ;; esac
    find . "$TASK_PROMPT" -printf '%f %m\\n' | sort
} >"$REPO_DIR/found.txt"
""",
        "library/data.txt": "",
    }
    archive = pack({"a": task(repo, "Look around.", "cat found.txt")}, agent)

    row = only_task(server, archive)

    first, outside, *found = row["test_output"].splitlines()
    modes = {name: int(mode, 8) for name, mode in (line.split() for line in found)}
    writable = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
    assert (first, outside) == ("== run.sh: exit code 0", "outside")
    assert sorted(modes) == [".", "agent.sh", "data.txt", "library", "prompt.md"]
    assert {name: mode for name, mode in modes.items() if mode & writable} == {}


def test_tests_find_nothing_of_the_agent(server: Server, repo: Path) -> None:
    agent = {"agent.py": SCRIPTED_AGENT, "library/notes.py": "# the-agents-own-words\n"}
    # In two pieces, or the test would find itself. The layer is what the repository lies in.
    test = 'grep -rlI "the-agents-""own-words" "$(dirname "$REPO_DIR")"; test $? = 1'
    look = 'import os\nos.system("grep -rlI the-agents-own-words $REPO_DIR/.. >number.txt")\n'
    tasks = {
        "agent": task(repo, look, "grep -c library/notes.py number.txt"),
        "tests": task(repo, IDLE, test),
    }

    ended = server.ended(server.accepted(pack(tasks, agent)), BATCH_SECONDS)

    outputs = {row["task_id"]: row["test_output"] for row in ended["tasks"]}
    assert outputs == {
        "agent": "== run.sh: exit code 0\n1\n",
        "tests": "== run.sh: exit code 0\n",
    }


@pytest.mark.parametrize(
    ("language", "missing"),
    [
        ("javascript", "node"),
        pytest.param("typescript", "node", marks=needs("tsx")),
        ("go", "go"),
        ("rust", "rustc"),
    ],
)
def test_language_that_the_server_lacks_is_not_held_against_the_agent(
    bare_server: Server, repo: Path, language: str, missing: str
) -> None:
    archive = pack({"a": task(repo, PROMPT)}, AGENTS[language])

    row = only_task(bare_server, archive)

    fields = ("status", "passed", "reward", "fault", "attempt", "error")
    assert tuple(row[field] for field in fields) == (
        "failed",
        None,
        0.0,
        "infra",
        2,
        f"could not be judged: {missing} is not installed, "
        f"which agents in {language} need (2 attempts)",
    )


def test_agent_that_ends_as_if_it_were_missing_is_judged(server: Server, repo: Path) -> None:
    agent = {"agent.py": f"import sys\n{SOLVE}sys.exit(127)\n"}

    row = only_task(server, pack({"a": task(repo, PROMPT)}, agent))

    assert (row["passed"], row["reward"], row["attempt"]) == (True, 1.0, 1)
