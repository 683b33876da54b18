"""``manage.py web``: the server process for HTTP and WebSockets."""

import signal
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from batches import startup, uploads
from batches.processes import die_with_parent


class Command(BaseCommand):
    """Serves the API, the admin and the watchers. Runs beside any number of workers."""

    help = "Serve HTTP and WebSockets; tasks are run by `manage.py worker`."

    def handle(self, *args: Any, **options: Any) -> None:
        die_with_parent(signal.SIGTERM)
        startup.make_folders()
        startup.require_migrated()
        uploads.sweep_incoming(settings.INCOMING_DIR, settings.UPLOAD_TIMEOUT_SECS)
        # The reactor is installed by the import, and only this command wants one.
        from executor_site.asgi import application
        from executor_site.server import serve

        def announce(port: int) -> None:
            url = startup.address(port)
            (settings.STATE_DIR / startup.ADDRESS_FILE).write_text(url + "\n")
            self.stdout.write(f"listening on {url}")

        serve(
            application,
            settings.HOST,
            settings.PORT,
            grace_seconds=settings.GRACE_SECS,
            body_deadline_seconds=settings.UPLOAD_TIMEOUT_SECS,
            on_listening=announce,
        )
