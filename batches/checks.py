"""System checks: combinations of settings that would lose or double work."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register


@register()
def queue_retry_above_timeout(**kwargs: Any) -> list[CheckMessage]:
    """A lane must end before its message is delivered again."""
    cluster: dict[str, Any] = settings.Q_CLUSTER
    if cluster["retry"] > cluster["timeout"] > settings.SESSION_TTL_SECS:
        return []
    return [
        Error(
            "The queue would deliver lanes again while they run.",
            hint="Keep Q_CLUSTER retry > timeout > SESSION_TTL_SECS.",
            id="batches.E001",
        )
    ]
