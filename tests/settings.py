"""The settings of the test-suite: a fresh state folder, and a database in a file.

In a file, because tests watch it from threads and processes as the server's feed does.
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

folder = tempfile.mkdtemp(prefix="term-executor-tests-")
atexit.register(shutil.rmtree, folder, ignore_errors=True)
for name in ("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "AUTHORIZED_HOTKEYS", "PORT", "HOST"):
    os.environ.pop(name, None)
os.environ["STATE_DIR"] = f"{folder}/state"
os.environ["WORKSPACE_BASE"] = f"{folder}/workspaces"
os.environ["ALLOW_LOCAL_REPOS"] = "1"

from executor_site.settings import *  # noqa: E402, F403 - the environment comes first
from executor_site.settings import DATABASES, STATE_DIR  # noqa: E402

for made in ("archives", "incoming", "mirrors"):
    (Path(STATE_DIR) / made).mkdir(parents=True, exist_ok=True)
DATABASES["default"]["TEST"] = {"NAME": f"{folder}/test.sqlite3"}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
