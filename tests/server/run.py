"""Runs one server: ``python -m tests.server.run apps:application '{"grace_seconds": 5}'``."""

import asyncio
import importlib
import json
import sys

from executor_site.server import serve

DEFAULTS = {"grace_seconds": 10, "body_deadline_seconds": 60}


def main() -> None:
    module, name = sys.argv[1].split(":")
    application = getattr(importlib.import_module(f"tests.server.{module}"), name)
    options = {**DEFAULTS, **json.loads(sys.argv[2])}
    if options.pop("companion_fails", False):
        options["on_start"] = fail
    serve(application, "127.0.0.1", 0, on_listening=tell_port, **options)
    print("served", flush=True)  # noqa: T201


async def fail() -> None:
    await asyncio.sleep(0.1)
    raise RuntimeError("the companion failed")


def tell_port(port: int) -> None:
    print(port, flush=True)  # noqa: T201


main()
