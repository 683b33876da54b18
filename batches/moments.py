"""Reading several rows as they stood at one moment."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection, transaction


@contextmanager
def one_moment() -> Iterator[None]:
    """Queries inside see the same state of the database, and hold up no writer.

    An ordinary transaction would do neither: SQLite's are set to take the write
    lock at once, and PostgreSQL's see what is committed between two statements.
    """
    if connection.in_atomic_block:  # whoever opened it decided
        yield
    elif connection.vendor == "sqlite":
        connection.ensure_connection()  # which reads the mode from the settings
        wrapper: Any = connection
        mode = wrapper.transaction_mode
        wrapper.transaction_mode = "DEFERRED"
        try:
            with transaction.atomic():
                yield
        finally:
            wrapper.transaction_mode = mode
    else:
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield
