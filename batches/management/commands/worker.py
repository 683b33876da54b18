"""``manage.py worker``: runs the tasks of batches."""

import signal
from typing import Any

from django.core.management.base import BaseCommand

from batches import startup
from batches.processes import die_with_parent
from batches.supervisor import Stop
from batches.workers import WorkerSupervisor


class Command(BaseCommand):
    """Runs tasks on this host, beside any number of servers and other workers."""

    help = "Run tasks; submissions are taken by `manage.py web`."

    def handle(self, *args: Any, **options: Any) -> None:
        stop = Stop()
        die_with_parent(signal.SIGTERM)
        startup.make_folders()
        startup.require_migrated()
        WorkerSupervisor().run(stop)
