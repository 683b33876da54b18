"""Keeps the disk of this host tidy: removes workspaces of ended batches, and uploads that broke off."""

import logging
import uuid

from django.conf import settings

from batches import uploads, workspaces
from batches.models import Batch
from batches.sandbox import trees
from batches.statuses import ENDED_BATCH

logger = logging.getLogger(__name__)


def tidy() -> None:
    """Remove what nobody needs any more. Folders that are not this server's are left alone."""
    uploads.sweep_incoming(settings.INCOMING_DIR, settings.UPLOAD_TIMEOUT_SECS)
    for folder in workspaces.leftovers(ended):
        try:
            trees.remove(folder)
        except OSError as error:
            # A process that is just being ended may still be writing there.
            logger.info("%s could not be removed yet: %s", folder, error)


def ended(names: list[str]) -> set[str]:
    """Those of ``names`` that are ids of batches which have ended."""
    ids = []
    for name in names:
        try:
            ids.append(uuid.UUID(name))
        except ValueError:
            continue
    found = Batch.objects.filter(pk__in=ids, status__in=ENDED_BATCH)
    return {str(pk) for pk in found.values_list("pk", flat=True)}
