"""Knocks: "look again" from a process that committed to the feeds of other hosts.

On one host nobody needs them: a feed sees SQLite's ``data_version`` move, or
looks four times a second. A knock that is lost costs that quarter of a second.
"""

import logging

from asgiref.sync import async_to_sync
from channels.layers import channel_layers
from django.conf import settings

logger = logging.getLogger(__name__)

GROUP = "feeds"


def knock() -> None:
    """Wake the feeds of all servers. Never raises: what was committed stays committed."""
    if "knocks" not in settings.CHANNEL_LAYERS:
        return
    try:
        async_to_sync(channel_layers["knocks"].group_send)(GROUP, {"type": "look"})
    except Exception as error:  # noqa: BLE001 - whatever Redis says, the row is there and is found
        logger.warning("no knock could be sent: %s", error)
