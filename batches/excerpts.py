"""What commands printed, cut to what fits on a page before it leaves the database.

A command may have printed a mebibyte, and a task may have many commands.
"""

from typing import Any

from django.db.models import Case, F, QuerySet, When
from django.db.models.functions import Concat, Left, Length, Right

from batches.models import Run

EDGE_CHARACTERS = 8 * 1024
"""So much is shown of the beginning, and as much of the end."""

# Short output lies in the head alone. Where something is missing, the text before it
# and the text after it must not be taken for one.
WHOLE = Concat("output_head", "output_tail")
BEFORE = Case(When(truncated=True, then=F("output_head")), default=WHOLE)
AFTER = Case(When(truncated=True, then=F("output_tail")), default=WHOLE)


def with_excerpts(runs: QuerySet[Run]) -> QuerySet[Run]:
    """``runs`` for ``excerpt``; the whole output of each stays in the database."""
    return runs.defer("output_head", "output_tail").annotate(
        first=Left(BEFORE, EDGE_CHARACTERS), last=Right(AFTER, EDGE_CHARACTERS), kept=Length(WHOLE)
    )


def excerpt(run: Any) -> tuple[str, int, str]:
    """The beginning, how many bytes are missing after it, and the end."""
    overlap = len(run.first) + len(run.last) - run.kept
    if not run.truncated and overlap >= 0:
        return run.first + run.last[overlap:], 0, ""
    shown = len(run.first.encode()) + len(run.last.encode())
    return run.first, max(run.output_bytes - shown, 1), run.last
