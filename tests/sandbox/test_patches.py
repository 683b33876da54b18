"""The agent's change, taken from its layer and applied to a fresh one: nothing lost, nothing run."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from batches.sandbox.promise import Keeper, Layer, Patch, PatchRefused, Snapshot
from tests.sandbox.conftest import py, said, sh

MOST = 10 * 1024**2
GIT = "git -c user.name=Author -c user.email=author@example.org"
numbers = itertools.count()

PROJECT = rf"""
git init -q .
printf 'one\ntwo\nthree\n' > text; printf 'dos\r\nlines\r\n' > crlf.txt; printf '\000\001\002' > binary
mkdir -p pkg/deep; echo 'x = 1' > pkg/module.py; echo deep > pkg/deep/file
echo '#!/bin/sh' > run.sh; chmod +x run.sh; ln -s text link; echo tracked > tracked.log
printf '*.log\nbuild/\n' > .gitignore
git add -A; git add -f tracked.log; {GIT} commit -qm base
mkdir build; echo product > build/product; echo egg > made-by-install; echo log > ignored.log
"""

# Everything outside .git directories, as git sees it: kind, executable or not, content.
CONTENT = """
import hashlib, os, stat
for folder, folders, files in os.walk('.'):
    if '.git' in folders: folders.remove('.git')
    for name in files + [name for name in folders if os.path.islink(os.path.join(folder, name))]:
        path = os.path.join(folder, name)
        mode = os.lstat(path).st_mode
        if name == '.git' or not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)): continue
        data = os.fsencode(os.readlink(path)) if stat.S_ISLNK(mode) else open(path, 'rb').read()
        print(ascii(path), stat.S_IFMT(mode), bool(mode & 0o100), hashlib.sha1(data).hexdigest())
"""


@pytest.fixture(scope="module")
def project(keeper: Keeper, ground: Snapshot) -> Iterator[Snapshot]:
    """A repository as the installation left it, ignored and untracked files included."""
    yield (snapshot := prepared(keeper, ground, PROJECT))
    keeper.discard(snapshot)


def prepared(keeper: Keeper, ground: Snapshot, script: str) -> Snapshot:
    layer = keeper.fork(ground, f"project-{next(numbers)}")
    said(sh(keeper, layer, script))
    return keeper.freeze(layer)


def content(keeper: Keeper, layer: Layer) -> list[str]:
    return sorted(said(py(keeper, layer, CONTENT)).splitlines())


def worked_on(keeper: Keeper, project: Snapshot, script: str) -> Layer:
    layer = keeper.fork(project, f"agent-{next(numbers)}")
    said(sh(keeper, layer, f"set -e\n{script}"))
    return layer


def carried(keeper: Keeper, project: Snapshot, patch: Patch) -> list[str]:
    """What a fresh layer contains once the patch is applied to it."""
    target = keeper.fork(project, f"tests-{next(numbers)}")
    keeper.apply_patch(target, patch)
    found = content(keeper, target)
    keeper.discard(target)
    return found


CHANGES = {
    "nothing": "true",
    "edit": "sed -i s/two/2/ text",
    "new file": "mkdir -p new/deep; echo x > new/deep/file; : > empty",
    "deleted file": "rm text link",
    "deleted folder": "rm -r pkg",
    "renamed": "mv pkg other; mv text text2",
    "binary": "head -c 100000 /dev/urandom > random; printf '\\000\\007' > binary",
    "line ends": "printf 'dos\\r\\nchanged\\r\\nlines\\n' > crlf.txt; printf 'a\\r\\n' > new.txt",
    "no newline at end": "printf 'one\\ntwo' > text",
    "trailing blanks": "printf 'one  \\n\\t\\n\\n\\n' > text",
    "modes": "chmod +x text; chmod -x run.sh",
    "links": "ln -sf run.sh link; ln -s /etc/passwd outside; ln -s nowhere dangling",
    "file becomes link": "rm text; ln -s run.sh text",
    "link becomes file": "rm link; echo real > link",
    "folder becomes link": "rm -r pkg; ln -s /etc pkg",
    "folder becomes file": "rm -r pkg; echo file > pkg",
    "file becomes folder": "rm text; mkdir text; echo x > text/inside",
    "commits": f"sed -i s/two/2/ text; echo x > new; git add -A; {GIT} commit -qm mine; echo y > text2",
    "commit of an ignored file": "echo changed > tracked.log",
    "untracked file of the installation": "echo changed > made-by-install; rm -f nothing",
    "untracked file removed": "rm made-by-install",
    "no longer ignored": "echo > .gitignore; echo changed > build/product",
    "ignored file in the way": "echo > .gitignore; rm -r build; echo f > build",
    "odd names": "echo x > \"$(printf 'new\\nline')\"; echo y > \"$(printf '\\377')\"; echo z > ' -q \"x\\'",
    "names that other systems refuse": "echo x > 'git~1'; echo y > 'a:b'; echo z > 'back\\slash'",
    "unreadable": "echo x > secret; mkdir locked; echo y > locked/y; chmod 000 secret locked",
    "attributes": "echo '* text=auto eol=crlf ident filter=lfs working-tree-encoding=UTF-16' "
    "> .gitattributes; printf 'a\\nb\\r\\n$Id$\\n' > mixed.txt; printf '\\303' > pkg/x",
    "attributes that hide": "echo '* binary -diff merge=ours' > .gitattributes; echo x >> text",
    "git directory gone": "rm -rf .git; echo x > text",
    "git directory a file": "rm -rf .git; echo 'gitdir: /nowhere' > .git; echo x > text",
    "git directory a link": "rm -rf .git; ln -s /etc .git; echo x > text",
    "git directory a FIFO": "rm -rf .git; mkfifo .git; echo x > text",
    "index corrupt": "echo nonsense > .git/index; echo nonsense > .git/HEAD; echo x > text",
    "info/exclude changed": "echo '*' > .git/info/exclude; echo x > new",
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_the_agent_left_arrives_in_a_fresh_layer(
    keeper: Keeper, project: Snapshot, change: str
) -> None:
    agent = worked_on(keeper, project, change)

    patch = keeper.export_patch(agent, project, MOST)

    # Only now: the export makes readable what the agent closed to its own user.
    assert carried(keeper, project, patch) == content(keeper, agent)
    assert patch.notes == ()
    keeper.discard(agent)


def test_repository_with_converted_line_ends_goes_round(keeper: Keeper, ground: Snapshot) -> None:
    script = (
        "git init -q .; echo '* text=auto eol=crlf' > .gitattributes; printf 'a\\nb\\nc\\n' > f; "
        f"printf 'a\\r\\nb\\r\\n' > g; git add -A; {GIT} commit -qm base; rm f g; git checkout -q f g"
    )
    project = prepared(keeper, ground, script)
    agent = worked_on(
        keeper, project, "sed -i s/b/changed/ f; printf 'x\\ny\\r\\n' > g; echo n > new"
    )
    left = content(keeper, agent)

    patch = keeper.export_patch(agent, project, MOST)

    assert carried(keeper, project, patch) == left
    assert patch.diff.count(b"diff --git") == 3
    for layer in (agent, project):
        keeper.discard(layer)


def test_ignored_files_and_those_of_the_installation_are_not_in_the_patch(
    keeper: Keeper, project: Snapshot
) -> None:
    agent = worked_on(keeper, project, "echo x > new.log; echo changed > build/product")

    patch = keeper.export_patch(agent, project, MOST)

    assert patch == Patch(b"")
    keeper.discard(agent)


def test_repository_without_git_has_a_patch_too(keeper: Keeper, ground: Snapshot) -> None:
    project = prepared(keeper, ground, "echo a > a; echo b > b")
    agent = worked_on(keeper, project, "git init -q .; rm a; echo c > c")
    left = content(keeper, agent)

    patch = keeper.export_patch(agent, project, MOST)

    assert carried(keeper, project, patch) == left
    for layer in (agent, project):
        keeper.discard(layer)


def test_nothing_of_the_agents_git_directory_runs(
    keeper: Keeper, project: Snapshot, tmp_path: Path
) -> None:
    mark = tmp_path / "ran"
    agent = worked_on(
        keeper,
        project,
        f"""
        printf '#!/bin/sh\\ntouch {mark}\\n' > evil; chmod +x evil; evil=$PWD/evil
        for hook in pre-commit post-index-change applypatch-msg post-checkout fsmonitor-watchman; do
            cp evil .git/hooks/$hook; done
        git config core.fsmonitor $evil; git config diff.external $evil; git config core.pager $evil
        git config filter.f.clean $evil; git config filter.f.smudge $evil; git config filter.f.process $evil
        git config diff.d.textconv $evil; git config diff.d.command $evil; git config core.editor $evil
        git config core.hooksPath $PWD
        cp .git/config $HOME/.gitconfig
        mkdir sub; git init -q sub; cp .git/config sub/.git/config
        echo '* filter=f diff=d' > .gitattributes; echo '* filter=f diff=d' > .git/info/attributes
        echo changed > text; touch new
        """,
    )
    target = keeper.fork(project, f"tests-{next(numbers)}")
    mark.unlink(missing_ok=True)  # the agent's own git calls ran it, inside

    patch = keeper.export_patch(agent, project, MOST)
    keeper.apply_patch(target, patch)

    assert not mark.exists()
    assert said(sh(keeper, target, "cat text")) == "changed\n"
    for layer in (agent, target):
        keeper.discard(layer)


def test_new_nested_repository_is_carried_as_plain_files(keeper: Keeper, project: Snapshot) -> None:
    agent = worked_on(
        keeper,
        project,
        f"mkdir sub; cd sub; git init -q .; echo x > file; git add -A; {GIT} commit -qm sub; cd ..; "
        "git init -q empty; echo y > empty/file",
    )
    left = content(keeper, agent)

    patch = keeper.export_patch(agent, project, MOST)

    assert carried(keeper, project, patch) == left
    assert sorted(patch.notes) == [
        "empty was a new repository: its files are carried, its history is not.",
        "sub was a new repository: its files are carried, its history is not.",
    ]
    keeper.discard(agent)


def test_nested_repository_of_the_installation_is_left_alone(
    keeper: Keeper, ground: Snapshot, tmp_path: Path
) -> None:
    mark = tmp_path / "ran"
    submodule = (
        f"mkdir sub; cd sub; git init -q .; echo x > f; git add -A; {GIT} commit -qm s; cd ..; "
    )
    project = prepared(
        keeper,
        ground,
        f"git init -q .; {submodule} echo a > a; git add -A 2>&1; {GIT} commit -qm base",
    )
    agent = worked_on(
        keeper,
        project,
        f"printf '#!/bin/sh\\ntouch {mark}\\n' > /tmp/evil-{os.getpid()}; "
        f"chmod +x /tmp/evil-{os.getpid()}; git -C sub config core.fsmonitor /tmp/evil-{os.getpid()}; "
        "echo b > a; echo changed > sub/f",
    )

    patch = keeper.export_patch(agent, project, MOST)

    assert patch.diff.count(b"diff --git") == 1
    assert patch.notes == ("sub is a repository of its own: changes in it are not carried.",)
    assert not mark.exists()
    Path(f"/tmp/evil-{os.getpid()}").unlink(missing_ok=True)
    for layer in (agent, project):
        keeper.discard(layer)


def test_files_put_into_an_empty_submodule_are_carried(keeper: Keeper, ground: Snapshot) -> None:
    project = prepared(
        keeper,
        ground,
        f"git init -q .; mkdir sub; git update-index --add --cacheinfo 160000,{'1' * 40},sub; "
        f"{GIT} commit -qm base",
    )
    agent = worked_on(keeper, project, "echo x > sub/file")
    left = content(keeper, agent)

    patch = keeper.export_patch(agent, project, MOST)

    assert carried(keeper, project, patch) == left
    for layer in (agent, project):
        keeper.discard(layer)


def test_what_git_cannot_track_is_left_out_and_told(keeper: Keeper, project: Snapshot) -> None:
    agent = worked_on(
        keeper,
        project,
        "rm text; mkfifo text; mkfifo .gitattributes; mkdir .GIT; echo x > .GIT/config; echo y > new",
    )

    patch = keeper.export_patch(agent, project, MOST)

    assert sorted(patch.notes) == [
        ".GIT is left out: git tracks nothing like it.",
        ".gitattributes is left out: git tracks nothing like it.",
        "text is left out: git tracks nothing like it.",
    ]
    assert carried(keeper, project, patch) == content(keeper, agent)
    keeper.discard(agent)


@pytest.mark.parametrize("instead", ["true", "ln -s /etc repo", "echo x > repo", "mkfifo repo"])
def test_lost_repository_is_one_with_everything_deleted(
    keeper: Keeper, project: Snapshot, instead: str
) -> None:
    agent = worked_on(keeper, project, f"cd ..; rm -rf repo; {instead}")

    patch = keeper.export_patch(agent, project, MOST)

    left = [line.split("'")[1] for line in carried(keeper, project, patch)]
    assert left == ["./build/product", "./ignored.log"]
    keeper.discard(agent)


@pytest.mark.parametrize(
    "script",
    [
        "head -c 20000000 /dev/urandom > random",
        "yes | head -c 20000000 > text",
        "truncate -s 3G sparse",
    ],
)
def test_patch_beyond_the_limit_is_refused(keeper: Keeper, project: Snapshot, script: str) -> None:
    agent = worked_on(keeper, project, script)

    with pytest.raises(PatchRefused):
        keeper.export_patch(agent, project, 1024**2)

    keeper.discard(agent)


def test_patch_that_does_not_fit_is_refused_as_a_whole(keeper: Keeper, project: Snapshot) -> None:
    agent = worked_on(keeper, project, "echo 1 > run.sh; echo changed > text")
    patch = keeper.export_patch(agent, project, MOST)
    target = worked_on(keeper, project, "echo other > text")
    before = content(keeper, target)

    with pytest.raises(PatchRefused, match="text"):
        keeper.apply_patch(target, patch)

    assert content(keeper, target) == before
    for layer in (agent, target):
        keeper.discard(layer)


@pytest.mark.parametrize("path", ["../outside", "/tmp/outside", ".git/hooks/x", "link-out/outside"])
def test_patch_cannot_write_outside_the_repository(
    keeper: Keeper, project: Snapshot, path: str, tmp_path: Path
) -> None:
    target = worked_on(keeper, project, f"ln -s {tmp_path} link-out")
    lines = ["diff --git a/{0} b/{0}", "new file mode 100755", "--- /dev/null", "+++ b/{0}"]
    diff = "\n".join([*lines, "@@ -0,0 +1 @@", "+x", ""]).format(path).encode()

    with pytest.raises(PatchRefused):
        keeper.apply_patch(target, Patch(diff))

    assert list(tmp_path.iterdir()) == []
    keeper.discard(target)


def test_snapshot_is_as_it_was_after_a_patch(keeper: Keeper, project: Snapshot) -> None:
    before = described(project.root / "repo")
    agent = worked_on(
        keeper, project, "rm -rf .git; echo x > text; echo > .gitignore; echo > build/x"
    )

    keeper.export_patch(agent, project, MOST)

    assert described(project.root / "repo") == before
    keeper.discard(agent)


def described(tree: Path) -> list[tuple[str, int, int]]:
    """Names, modes and sizes: git renews the times of objects that it meets again."""
    found = ((str(path), path.lstat()) for path in tree.rglob("*"))
    return sorted((path, status.st_mode, status.st_size) for path, status in found)
