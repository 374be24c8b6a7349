"""What can go wrong in a sync. A server that is down is sharding's DatabaseUnavailable."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import DatabaseError, connections

from sharding import conf
from sharding.errors import DatabaseUnavailable

__all__ = ["SyncAlreadyRunning", "SyncFailed", "naming"]


class SyncAlreadyRunning(Exception):
    """Another full pass holds the lock."""


class SyncFailed(Exception):
    """A database refused its part of the sync; the message names the database."""


@contextmanager
def naming(alias: str) -> Iterator[None]:
    """Turn what this database refuses into SyncFailed; DatabaseUnavailable names it already."""
    try:
        # Django wraps the errors of its own cursor methods, but not those of psycopg's `copy`.
        with connections[alias].wrap_database_errors:
            yield
    except DatabaseUnavailable:
        raise
    except DatabaseError as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise SyncFailed(
            f"Database {conf.label(alias)} stopped the sync: {reason}. Run it again when the cause "
            f"is gone."
        ) from error
