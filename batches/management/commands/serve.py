"""``manage.py serve``: everything on one machine with one command."""

import os
import signal
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from batches import startup, uploads
from batches.processes import PARENT_VARIABLE, die_with_parent
from batches.supervisor import Child, Stop, end_all

MANAGE = str(Path(__file__).resolve().parents[3] / "manage.py")
ENDING_SECONDS = 10
"""What the children get beyond ``GRACE_SECS`` to clear up after themselves."""


class Command(BaseCommand):
    """Starts the server and a worker, restarts what dies, and ends both together."""

    help = "Serve and run tasks on this machine until Ctrl-C."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--concurrent-tasks",
            type=int,
            metavar="N",
            help="tasks that run at once (MAX_CONCURRENT_TASKS)",
        )

    def handle(self, *args: Any, concurrent_tasks: int | None = None, **options: Any) -> None:
        if concurrent_tasks is not None:
            if concurrent_tasks < 1:
                raise CommandError("--concurrent-tasks must be at least 1")
            os.environ["MAX_CONCURRENT_TASKS"] = str(concurrent_tasks)
        stop = Stop()
        if PARENT_VARIABLE in os.environ:  # started by a program, which may be killed
            die_with_parent(signal.SIGTERM)
        with startup.sole_server():
            startup.require_free_port()
            startup.migrate()
            uploads.sweep_incoming(settings.INCOMING_DIR, 0)
            password = startup.ensure_admin()
            address = settings.STATE_DIR / startup.ADDRESS_FILE
            address.unlink(missing_ok=True)
            web = Child("the server", [MANAGE, "web"], {"TERM_EXECUTOR_ROLE": "web"})
            worker = Child("the worker", [MANAGE, "worker"], {"TERM_EXECUTOR_ROLE": "worker"})
            try:
                web.start()
                worker.start()
                announced = False
                while not stop.asked:
                    if not web.running:  # what it was receiving will not be finished
                        uploads.sweep_incoming(settings.INCOMING_DIR, 0)
                    web.keep_alive()
                    worker.keep_alive()
                    if not announced and address.exists() and (url := address.read_text().strip()):
                        announced = True
                        self.stdout.write(startup.banner(url, password))
                    stop.wait(0.5)
            finally:
                end_all([web, worker], settings.GRACE_SECS + ENDING_SECONDS)
                address.unlink(missing_ok=True)
