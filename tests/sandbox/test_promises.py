"""What every keeper promises, tried for real. Written once for all of them: see ``conftest.KEEPERS``."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from batches.sandbox.promise import (
    Command,
    FileToPut,
    Keeper,
    Layer,
    Limits,
    Reason,
    SandboxError,
    Snapshot,
)
from tests.sandbox.conftest import alive_with, numbers, py, said, sh

ROOT = Path(__file__).parents[2]


def unique_seconds() -> str:
    """An argument for ``sleep`` by which its process is found again."""
    return f"9{os.getpid()}.{next(numbers)}"


# How a command ends


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_exit_code_is_the_commands_own(keeper: Keeper, room: Layer, code: int) -> None:
    finished = sh(keeper, room, f"exit {code}")

    assert (finished.reason, finished.exit_code, finished.ok) == (Reason.EXITED, code, code == 0)


def test_death_by_a_signal_is_told_with_its_number(keeper: Keeper, room: Layer) -> None:
    finished = sh(keeper, room, "kill -SEGV $$")

    assert (finished.reason, finished.exit_code) == (Reason.KILLED, -signal.SIGSEGV)


def test_unknown_program_ends_as_in_a_shell(keeper: Keeper, room: Layer) -> None:
    finished = keeper.run(room, Command(("no-such-program",), 30))

    assert (finished.reason, finished.exit_code) == (Reason.EXITED, 127)
    assert finished.head + finished.tail == b"no-such-program: not found\n"


def test_program_that_is_not_executable_ends_as_in_a_shell(keeper: Keeper, room: Layer) -> None:
    finished = keeper.run(room, Command(("/etc/passwd",), 30))

    assert (finished.reason, finished.exit_code) == (Reason.EXITED, 126)
    assert finished.head + finished.tail == b"/etc/passwd: Permission denied\n"


@pytest.mark.parametrize("argv", [("true", "a\0b"), ("a\0b",), ("true", "x" * 3_000_000)])
def test_impossible_arguments_are_the_commands_trouble(
    keeper: Keeper, room: Layer, argv: tuple[str, ...]
) -> None:
    finished = keeper.run(room, Command(argv, 30))

    assert (finished.reason, finished.exit_code) == (Reason.EXITED, 126)


def test_missing_working_directory_is_the_commands_trouble(keeper: Keeper, room: Layer) -> None:
    finished = sh(keeper, room, "true", cwd="/no/such/folder")

    assert (finished.reason, finished.exit_code) == (Reason.EXITED, 126)
    assert b"/no/such/folder" in finished.head + finished.tail


def test_timeout_ends_a_shell_that_ignores_every_signal(keeper: Keeper, room: Layer) -> None:
    seconds = unique_seconds()

    finished = sh(keeper, room, f"trap '' HUP INT TERM QUIT; sleep {seconds}; sleep {seconds}", 0.4)

    assert (finished.reason, finished.exit_code, finished.survivors) == (Reason.TIMEOUT, None, 0)
    assert 0.4 <= finished.wall_seconds < 3
    assert alive_with(seconds) == []


def test_cancel_ends_a_command_at_once(keeper: Keeper, room: Layer) -> None:
    cancel = threading.Event()
    command = Command(("sleep", "60"), 60)
    threading.Timer(0.3, cancel.set).start()

    finished = keeper.run(room, command, cancel)

    assert (finished.reason, finished.exit_code) == (Reason.CANCELLED, None)
    assert 0.3 <= finished.wall_seconds < 3


def test_command_cancelled_before_it_began_does_not_run_on(keeper: Keeper, room: Layer) -> None:
    cancel = threading.Event()
    cancel.set()

    finished = keeper.run(room, Command(("sleep", "60"), 60), cancel)

    assert (finished.reason, finished.exit_code) == (Reason.CANCELLED, None)


def test_file_that_grows_beyond_the_limit_ends_the_command(keeper: Keeper, layer: Layer) -> None:
    limits = Limits(file_bytes=1024 * 1024)

    finished = sh(keeper, layer, "exec cat /dev/zero > big", limits=limits)

    assert finished.reason is Reason.DISK
    assert said(sh(keeper, layer, "stat -c %s big")) == f"{1024 * 1024}\n"


def test_memory_limit_refuses_memory(keeper: Keeper, room: Layer) -> None:
    limits = Limits(memory_bytes=200 * 1024**2)

    finished = py(keeper, room, "bytearray(1024**3)", limits=limits)

    assert not finished.ok
    assert finished.peak_memory_bytes < 400 * 1024**2


def test_time_and_memory_of_descendants_are_counted(keeper: Keeper, room: Layer) -> None:
    busy = "b = bytearray(80 * 1024**2); import time\nwhile time.process_time() < 0.3: pass"

    finished = sh(keeper, room, f"python3 -c '{busy}'; true")

    assert 0.3 <= finished.cpu_seconds < 3
    assert 80 * 1024**2 <= finished.peak_memory_bytes < 300 * 1024**2


# Nothing outlives a command

ESCAPES = {
    "background": "sleep {s} &",
    "nohup": "nohup sleep {s} >/dev/null 2>&1 &",
    "own session": "setsid -f sleep {s}",
    "closed descriptors": "setsid -f sleep {s} <&- >&- 2>&-",
    "double fork": "(setsid sh -c '(trap \"\" HUP TERM INT; sleep {s}) &' &)",
    "ignored signals": "sh -c 'trap \"\" HUP TERM INT USR1; sleep {s}' &",
    "clean environment": "cd / && env -i setsid -f sleep {s} <&- >&- 2>&-",
}


@pytest.mark.parametrize("escape", ESCAPES.values(), ids=ESCAPES)
def test_process_left_behind_is_counted_and_ended(keeper: Keeper, room: Layer, escape: str) -> None:
    seconds = unique_seconds()
    wait = f"until grep -qsz {seconds} /proc/[0-9]*/cmdline; do :; done"

    finished = sh(keeper, room, f"{escape.format(s=seconds)}\n{wait}; exit 3")

    assert (finished.reason, finished.exit_code) == (Reason.EXITED, 3)
    assert finished.survivors >= 1
    assert alive_with(seconds) == []


def test_hundred_daemons_are_all_ended(keeper: Keeper, room: Layer) -> None:
    seconds = unique_seconds()

    finished = sh(keeper, room, f"for i in $(seq 100); do setsid -f sleep {seconds}; done")

    assert finished.ok
    assert finished.survivors == 100
    assert alive_with(seconds) == []


def test_processes_that_fork_on_and_on_are_ended(keeper: Keeper, room: Layer) -> None:
    """Each one replaces itself with a new process in a new session, as fast as it can."""
    hop = (
        "import os\nfor _ in range(8):\n if os.fork() == 0: break\nelse: os._exit(0)\n"
        "while True:\n if os.fork(): os._exit(0)\n os.setsid()"
    )
    mark = unique_seconds()

    finished = keeper.run(room, Command(("python3", "-c", hop, mark), 30))

    assert finished.ok
    assert alive_with(mark) == []


def test_program_whose_first_thread_has_ended_is_ended(keeper: Keeper, room: Layer) -> None:
    """It looks like a zombie to everybody who does not count its threads."""
    lone_thread = (
        "import ctypes, threading, time\n"
        "threading.Thread(target=time.sleep, args=(60,)).start()\n"
        "print('there', flush=True)\n"
        "ctypes.CDLL(None).pthread_exit(None)"
    )

    finished = sh(
        keeper, room, f'mkfifo f; python3 -c "{lone_thread}" > f & read line < f; rm f; sleep 0.2'
    )

    assert finished.ok
    assert (finished.survivors, finished.wall_seconds < 20) == (1, True)


def test_surviving_writer_does_not_hold_the_command_open(keeper: Keeper, room: Layer) -> None:
    finished = sh(keeper, room, "setsid -f sleep 60; echo done")

    assert (said(finished), finished.survivors) == ("done\n", 1)
    assert finished.wall_seconds < 5


def test_killing_the_own_process_group_is_only_suicide(keeper: Keeper, room: Layer) -> None:
    seconds = unique_seconds()

    finished = sh(keeper, room, f"sleep {seconds} & kill -9 0")

    assert (finished.reason, finished.exit_code) == (Reason.KILLED, -signal.SIGKILL)
    assert finished.peak_memory_bytes > 0  # who keeps the accounts is still there
    assert alive_with(seconds) == []


@pytest.mark.parametrize("number", ["KILL", "TERM", "INT", "HUP"])
def test_command_that_goes_for_its_parent_takes_nobody_along(
    keeper: Keeper, room: Layer, number: str
) -> None:
    seconds = unique_seconds()

    finished = sh(keeper, room, f"setsid -f sleep {seconds}; kill -{number} $PPID; sleep 1")

    assert finished.reason in (Reason.KILLED, Reason.EXITED)
    assert alive_with(seconds) == []


def test_command_that_stops_its_parent_is_still_ended(keeper: Keeper, room: Layer) -> None:
    seconds = unique_seconds()

    finished = sh(keeper, room, f"kill -STOP $PPID; sleep {seconds}", timeout_seconds=0.5)

    assert (finished.reason, finished.wall_seconds < 4) == (Reason.TIMEOUT, True)
    assert alive_with(seconds) == []


def test_nothing_outlives_a_server_that_is_killed(keeper: Keeper, tmp_path: Path) -> None:
    seconds = unique_seconds()
    server = (
        "import pathlib, sys\n"
        "from batches.sandbox.promise import Command\n"
        "from tests.sandbox.conftest import KEEPERS\n"
        "keeper = KEEPERS[sys.argv[1]](pathlib.Path(sys.argv[2]))\n"
        "layer = keeper.fork(keeper.open_base(), 'work')\n"
        "script = f'setsid -f sleep {sys.argv[3]}; (trap \"\" TERM; sleep {sys.argv[3]})'\n"
        "keeper.run(layer, Command(('sh', '-c', script), 60))\n"
    )
    arguments = [keeper.probe().keeper, str(tmp_path / "work"), seconds]
    running = subprocess.Popen([sys.executable, "-c", server, *arguments], cwd=ROOT)
    wait_until(lambda: len([line for line in alive_with(seconds) if line.startswith("sleep")]) == 2)

    running.kill()
    running.wait()

    # The server's own command line has the argument too: it is dead, so only the others count.
    wait_until(lambda: alive_with(seconds) == [], seconds=2)


def test_no_zombies_and_no_descriptors_are_left_to_us(keeper: Keeper, room: Layer) -> None:
    before = open_descriptors()

    sh(keeper, room, "setsid -f sleep 60")
    sh(keeper, room, "sleep 60", timeout_seconds=0.2)
    keeper.run(room, Command(("no-such-program",), 30))

    assert open_descriptors() == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


# What a command starts with


def test_environment_holds_nothing_of_the_server(
    keeper: Keeper, room: Layer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_KEY", "secret-of-the-server")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/secret-of-the-server")
    monkeypatch.setenv("PYTHONPATH", "/secret-of-the-server")

    seen = said(sh(keeper, room, "cat /proc/self/environ; env", env={"GIVEN": "to the command"}))

    assert "secret-of-the-server" not in seen
    assert "GIVEN=to the command" in seen
    assert f"HOME={room.home}\n" in seen


def test_descriptors_of_the_server_are_not_inherited(
    keeper: Keeper, room: Layer, tmp_path: Path
) -> None:
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)

        seen = said(py(keeper, room, "import os; print(sorted(os.listdir('/proc/self/fd')))"))

    assert seen == "['0', '1', '2', '3']\n"  # the fourth is the listing itself


def test_standard_input_is_empty(keeper: Keeper, room: Layer) -> None:
    assert said(sh(keeper, room, "cat; echo end")) == "end\n"


def test_signals_and_mask_are_as_after_login(keeper: Keeper, room: Layer) -> None:
    """A queue's workers ignore SIGINT, and what is ignored is inherited."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        seen = said(sh(keeper, room, "grep -E '^Sig(Blk|Ign)' /proc/self/status; umask"))
        # What we inherited ourselves of the two signals that the C library keeps from everybody.
        kept = int(ours("SigIgn"), 16) & 0x1_8000_0000
    finally:
        signal.signal(signal.SIGINT, before)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})

    assert seen == f"SigBlk:\t0000000000000000\nSigIgn:\t{kept:016x}\n0022\n"


def ours(field: str) -> str:
    """A field of this process's status."""
    status = Path("/proc/self/status").read_text()
    return dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)[field]


def test_command_works_in_the_repository(keeper: Keeper, room: Layer) -> None:
    assert said(sh(keeper, room, "pwd; echo > $TMPDIR/x && rm $TMPDIR/x")) == f"{room.repo}\n"


def test_core_dumps_and_open_files_are_limited(keeper: Keeper, room: Layer) -> None:
    seen = said(sh(keeper, room, "ulimit -c; ulimit -n", limits=Limits(open_files=100)))

    assert seen == "0\n100\n"


# Output


def test_both_streams_arrive_in_their_order(keeper: Keeper, room: Layer) -> None:
    assert said(sh(keeper, room, "echo 1; echo 2 >&2; echo 3")) == "1\n2\n3\n"


def test_output_need_not_be_text(keeper: Keeper, room: Layer) -> None:
    finished = sh(keeper, room, r"printf '\377\000\376'")

    assert finished.head + finished.tail == b"\xff\x00\xfe"


def test_long_output_keeps_its_beginning_and_its_end(keeper: Keeper, room: Layer) -> None:
    everything = "".join(f"{number}\n" for number in range(1, 100_001)).encode()

    finished = sh(keeper, room, "seq 100000", limits=Limits(output_bytes=1000))

    assert finished.head == everything[:500]
    assert finished.tail == everything[-500:]
    assert (finished.output_bytes, finished.truncated) == (len(everything), True)


def test_flood_of_output_costs_no_memory(keeper: Keeper, room: Layer) -> None:
    before = resident_bytes()

    finished = sh(keeper, room, "exec yes", timeout_seconds=1)

    assert finished.reason is Reason.TIMEOUT
    assert finished.output_bytes > 50 * 1024**2
    assert len(finished.head) + len(finished.tail) == 1024**2
    assert resident_bytes() - before < 16 * 1024**2


def test_printing_too_much_ends_the_command(keeper: Keeper, room: Layer) -> None:
    limits = Limits(output_bytes=100, output_stop_bytes=1024**2)

    finished = sh(keeper, room, "exec yes", limits=limits)

    assert (finished.reason, finished.exit_code) == (Reason.OUTPUT, None)
    assert 1024**2 < finished.output_bytes < 64 * 1024**2
    assert finished.wall_seconds < 5


# Layers


def test_layers_do_not_see_each_others_changes(keeper: Keeper, ground: Snapshot) -> None:
    one = keeper.fork(ground, "one")
    sh(keeper, one, "echo installed > $HOME/file; echo installed > file")
    snapshot = keeper.freeze(one)
    agent, tests = keeper.fork(snapshot, "agent"), keeper.fork(snapshot, "tests")

    sh(keeper, agent, "echo poisoned | tee $HOME/file > file; touch new")

    assert said(sh(keeper, tests, "cat $HOME/file file; ls")) == "installed\ninstalled\nfile\n"
    for left in (agent, tests, snapshot):
        keeper.discard(left)


def test_frozen_layer_is_not_run_in_again(keeper: Keeper, ground: Snapshot) -> None:
    layer = keeper.fork(ground, "frozen")
    snapshot = keeper.freeze(layer)

    with pytest.raises(SandboxError):
        sh(keeper, layer, "true")

    keeper.discard(snapshot)


def test_absolute_paths_lead_into_the_layer_at_hand(keeper: Keeper, ground: Snapshot) -> None:
    """What an editable install leaves: a path file that names the repository, and a script."""
    installed = keeper.fork(ground, "installed")
    said(
        sh(
            keeper,
            installed,
            "mkdir src && echo 'value = 1' > src/project.py\n"
            "site=$(python3 -c 'import site; print(site.getsitepackages()[0])')\n"
            "echo $PWD/src > $site/project.pth\n"
            'script=$VIRTUAL_ENV/bin/show && echo "#!$(command -v python3)" > $script\n'
            "echo 'import project; print(project.value)' >> $script && chmod +x $script",
        )
    )
    snapshot = keeper.freeze(installed)
    agent, tests = keeper.fork(snapshot, "editing"), keeper.fork(snapshot, "judging")

    sh(keeper, agent, "echo 'value = 2' > src/project.py")

    assert said(sh(keeper, agent, "show")) == "2\n"
    assert said(sh(keeper, tests, "show")) == "1\n"
    for left in (agent, tests, snapshot):
        keeper.discard(left)


def test_pip_installs_into_the_layer(keeper: Keeper, room: Layer) -> None:
    seen = said(sh(keeper, room, "pip --version; python3 -m pip --version"))

    assert seen.count(f"{room.home.removesuffix('/home')}/") == 2


def test_layer_survives_losing_everything(keeper: Keeper, layer: Layer) -> None:
    """It lived in a folder that the command may remove, or put something else in the place of."""
    sh(keeper, layer, 'cd /; live=$(dirname "$HOME"); rm -rf "$live"; ln -s /etc "$live"')

    finished = sh(keeper, layer, "echo again", cwd="/")

    assert said(finished) == "again\n"
    assert Path("/etc/passwd").exists()


def test_layer_full_of_traps_is_copied_and_discarded(keeper: Keeper, ground: Snapshot) -> None:
    layer = keeper.fork(ground, "traps")
    outside = Path(layer.root).parent / "outside"
    sh(
        keeper,
        layer,
        "mkfifo fifo; ln -s / root; ln -s loop loop; ln -s /nowhere dangling; "
        "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"socket\")'; "
        "mkdir locked; echo x > locked/x; echo y > \"$(printf 'new\\nline')\"; echo z > $(printf '\\377'); chmod 000 locked/x locked; mknod null c 1 3; true",
    )
    snapshot = keeper.freeze(layer)

    copied = keeper.fork(snapshot, "traps-again")

    names = said(py(keeper, copied, "import os; print(sorted(map(os.fsencode, os.listdir('.'))))"))
    assert (
        names
        == str(sorted([b"fifo", b"root", b"loop", b"dangling", b"locked", b"new\nline", b"\xff"]))
        + "\n"
    )
    keeper.discard(copied)
    keeper.discard(snapshot)
    assert not outside.exists()
    assert not copied.root.exists()
    assert not snapshot.root.exists()


def test_tree_of_three_thousand_levels_is_copied_and_discarded(
    keeper: Keeper, ground: Snapshot
) -> None:
    layer = keeper.fork(ground, "deep")
    dig = "import os\nfor _ in range(3_000): os.mkdir('level-with-a-name'); os.chdir('level-with-a-name')"
    said(py(keeper, layer, dig + "\nopen('bottom', 'w').close()"))
    snapshot = keeper.freeze(layer)

    copied = keeper.fork(snapshot, "deeper")

    climb = (
        "import os\nfor _ in range(3_000): os.chdir('level-with-a-name')\nprint(os.listdir('.'))"
    )
    assert said(py(keeper, copied, climb)) == "['bottom']\n"
    keeper.discard(copied)
    keeper.discard(snapshot)
    assert not copied.root.exists()
    assert not snapshot.root.exists()


def test_closing_removes_everything_and_may_be_repeated(keeper: Keeper, tmp_path: Path) -> None:
    another = type(keeper)(tmp_path / "work")  # type: ignore[call-arg]
    layer = another.fork(another.open_base(), "work")
    sh(another, layer, "mkdir -p a/b; chmod 000 a; mkfifo fifo")

    another.close()
    another.close()

    assert list(tmp_path.iterdir()) == []


# Files of the server


def test_shown_folder_can_be_read_but_not_changed(
    keeper: Keeper, layer: Layer, tmp_path: Path
) -> None:
    source = tmp_path / "agent"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "file").write_text("original")
    (source / "run").write_text("#!/bin/sh\necho ran")
    (source / "run").chmod(0o755)

    place = keeper.show(layer, source, "agent")

    assert said(sh(keeper, layer, f"cat {place}/deep/file; echo; {place}/run")) == "original\nran\n"
    modes = said(sh(keeper, layer, f"find {place} -perm /222"))
    sh(keeper, layer, f"chmod -R u+w {place}; echo changed > {place}/deep/file; rm -rf {place}")
    assert modes == ""
    assert (source / "deep" / "file").read_text() == "original"


def test_shown_file_lies_outside_the_repository(
    keeper: Keeper, layer: Layer, tmp_path: Path
) -> None:
    (tmp_path / "prompt.md").write_text("do it")

    place = keeper.show(layer, tmp_path / "prompt.md", "prompt.md")

    assert said(sh(keeper, layer, f"cat {place}; ls")) == "do it"
    assert not place.startswith(layer.repo)


def test_what_only_our_own_commands_see_can_be_read_too(
    keeper: Keeper, layer: Layer, tmp_path: Path
) -> None:
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "HEAD").write_text("ref")

    place = keeper.show(layer, tmp_path / "mirror", "mirror", ours=True)

    assert said(sh(keeper, layer, f"cat {place}/HEAD")) == "ref"


def test_showing_does_not_follow_a_link_of_the_command(
    keeper: Keeper, layer: Layer, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "prompt.md").write_text("do it")
    place = keeper.show(layer, tmp_path / "prompt.md", "prompt.md")
    sh(keeper, layer, f"cd / && rm -rf $(dirname {place}) && ln -s {outside} $(dirname {place})")

    keeper.show(layer, tmp_path / "prompt.md", "prompt.md")

    assert list(outside.iterdir()) == []
    assert said(sh(keeper, layer, f"cat {place}")) == "do it"


OBSTACLES = {
    "nothing": "true",
    "link to a folder": "ln -s {outside} tests",
    "dangling link": "ln -s {outside}/new tests",
    "a file": "echo x > tests",
    "a FIFO": "mkfifo tests",
    "link at the file": "mkdir tests; ln -s {outside}/test_it.py tests/test_it.py",
    "FIFO at the file": "mkdir tests; mkfifo tests/test_it.py",
    "folder at the file": "mkdir -p tests/test_it.py/deep; chmod 000 tests/test_it.py/deep",
    "read-only file": "mkdir tests; echo x > tests/test_it.py; chmod 000 tests/test_it.py tests",
    "hard link": "mkdir tests; ln {outside}/test_it.py tests/test_it.py || true",
    "repository is a link": "cd ..; rm -rf repo; ln -s {outside} repo",
}


@pytest.mark.parametrize("obstacle", OBSTACLES.values(), ids=OBSTACLES)
def test_put_replaces_what_is_in_its_way_and_follows_nothing(
    keeper: Keeper, layer: Layer, tmp_path: Path, obstacle: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "test_it.py").write_text("not to be touched")
    (tmp_path / "source").write_text("the test")
    said(sh(keeper, layer, obstacle.format(outside=outside)))

    keeper.put(layer, [FileToPut("tests/test_it.py", tmp_path / "source", executable=True)])

    seen = said(
        sh(keeper, layer, "cat tests/test_it.py; stat -c '\n%A %F' tests/test_it.py; pwd -P")
    )
    assert seen == f"the test\n-rwxr-xr-x regular file\n{layer.repo}\n"
    assert [path.name for path in outside.iterdir()] == ["test_it.py"]
    assert (outside / "test_it.py").read_text() == "not to be touched"


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../x", "a/../../x", ".git/hooks/pre-commit", "sub/.GIT/config", "", "."],
)
def test_put_refuses_paths_that_are_not_the_repositorys(
    keeper: Keeper, room: Layer, tmp_path: Path, path: str
) -> None:
    (tmp_path / "source").write_text("x")

    with pytest.raises(ValueError, match="not a path"):
        keeper.put(room, [FileToPut(path, tmp_path / "source")])


# What only walls can keep


@pytest.mark.usefixtures("isolated")
def test_files_of_the_server_cannot_be_read(keeper: Keeper, room: Layer, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")

    assert not sh(keeper, room, f"cat {tmp_path}/secret").ok


@pytest.mark.usefixtures("isolated")
def test_processes_of_the_server_cannot_be_seen(keeper: Keeper, room: Layer) -> None:
    parent = f"/proc/{os.getpid()}/cmdline"

    seen = sh(keeper, room, f"cat {parent}")

    assert Path(parent).read_bytes() not in seen.head + seen.tail


@pytest.mark.usefixtures("isolated")
def test_ports_of_the_server_cannot_be_reached_without_network(keeper: Keeper, room: Layer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        connect = f"import socket; socket.create_connection(('127.0.0.1', {port}), 2)"

        assert not py(keeper, room, connect, network="none").ok


def open_descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def wait_until(true, seconds: float = 20) -> None:  # type: ignore[no-untyped-def]
    give_up_at = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < give_up_at, "it did not come about in time"
        time.sleep(0.01)
