"""``manage.py demo``: one real batch from start to finish, on a server of its own."""

import tempfile
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from rich.console import Console

from batches import demo


class Command(BaseCommand):
    """Succeeds only if every task of the sample got the reward that it must get."""

    help = "Run a sample batch on a temporary server and show its progress."

    def handle(self, *args: Any, **options: Any) -> None:
        console = Console()
        with tempfile.TemporaryDirectory(prefix="term-executor-demo-") as folder:
            try:
                demo.run(Path(folder), console)
            except demo.DemoFailed as failure:
                raise CommandError(str(failure)) from None
        console.print("Each task got the reward that it must get.", style="bold green")
