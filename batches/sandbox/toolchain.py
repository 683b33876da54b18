"""What a layer offers its commands: a clean environment, and a Python that installs into the layer."""

import importlib.util
import os
import pwd
from pathlib import Path

from batches.sandbox import trees

PIP = '#!/bin/sh\nexec "$(dirname "$0")/python3" -m pip "$@"\n'


def environment(live: Path, path: str) -> dict[str, str]:
    """The variables of every command: nothing of ours, and installers pointed into the layer.

    The folders in front of ``path`` are those that ``pip install``, ``npm -g``,
    ``gem``, ``go install`` and ``cargo install`` put programs into.
    """
    home = live / "home"
    npm, go, cargo, gem = (home / name for name in (".npm-global", "go", ".cargo", ".gem"))
    programs = [live / "venv" / "bin", home / ".local" / "bin"]
    programs += [folder / "bin" for folder in (npm, go, cargo, gem)]
    user = _user_name()
    env = {
        "PATH": ":".join([*map(str, programs), path]),
        "HOME": str(home),
        "TMPDIR": str(live / "tmp"),
        "USER": user,
        "LOGNAME": user,
        "SHELL": "/bin/sh",
        "LANG": "C.UTF-8",
        "npm_config_prefix": str(npm),
        # Nobody reads the answers here, and a registry that is slow to give them stops the install.
        "npm_config_audit": "false",
        "npm_config_fund": "false",
        "npm_config_update_notifier": "false",
        "GOPATH": str(go),
        "GOBIN": str(go / "bin"),
        "CARGO_HOME": str(cargo),
        "GEM_HOME": str(gem),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        # A layer is copied for each phase: what was downloaded need not be in it twice.
        "PIP_NO_CACHE_DIR": "1",
    }
    if (live / "venv").is_dir():
        env["VIRTUAL_ENV"] = str(live / "venv")
    return env


def add_pip(venv: Path) -> None:
    """Copy this server's own pip into ``venv``, when it has one.

    Much faster than ``ensurepip``, which many systems leave out of their Python anyway.
    """
    spec = importlib.util.find_spec("pip")
    if spec is None or spec.origin is None:
        return
    package = Path(spec.origin).parent
    (site_packages,) = venv.glob("lib/python3*/site-packages")
    for source in (package, *package.parent.glob("pip-*.dist-info")):
        trees.copy(source, site_packages / source.name)
    # Half of its files, copied with each layer, and of use to tasks that call pip again and again only.
    for cache in list((site_packages / "pip").rglob("__pycache__")):
        trees.remove(cache)
    for name in ("pip", "pip3"):
        launcher = venv / "bin" / name
        launcher.write_text(PIP)
        launcher.chmod(0o755)


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a container's user without an entry in /etc/passwd
        return str(os.geteuid())
