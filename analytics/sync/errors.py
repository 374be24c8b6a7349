"""What can go wrong in a sync. A server that is down is sharding's DatabaseUnavailable."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from django.db import DatabaseError, connections

from sharding import conf
from sharding.errors import DatabaseUnavailable

__all__ = ["Overtaken", "ReconcileNeeded", "SyncFailed", "naming", "sqlstate"]


class SyncFailed(Exception):
    """A database refused its part of the sync; the message names the database."""


@contextmanager
def naming(alias: str) -> Iterator[None]:
    """Turn what this database refuses into SyncFailed; DatabaseUnavailable names it already."""
    try:
        # Django wraps the errors of its own cursor methods, but not those of psycopg's `copy`.
        with connections[alias].wrap_database_errors:
            yield
    except DatabaseUnavailable as error:
        # So that the next sync of this process connects again; Django looks between requests only.
        if not connections[error.alias].in_atomic_block:
            connections[error.alias].close()
        raise
    except DatabaseError as error:
        alias = getattr(error, "alias", alias)  # of one that was asked together with others
        reason = str(error).removeprefix(f"{alias}: ").strip().partition("\n")[0].rstrip(".")
        raise SyncFailed(
            f"Database {conf.label(alias)} stopped the sync: {reason}. Run it again when the cause "
            f"is gone."
        ) from error


class Overtaken(Exception):
    """Another sync of the same source moved on first; nothing was written."""


class ReconcileNeeded(Exception):
    """The log alone cannot make the copies right; the message says why.

    `entries` are those of the log that a reconcile replaces.
    """

    def __init__(self, why: str, *, entries: Sequence[int] = ()) -> None:
        super().__init__(why)
        self.entries = entries


def sqlstate(error: BaseException | None) -> str | None:
    """Return the server's code of an error, or of what caused it."""
    while error is not None:
        if code := getattr(error, "sqlstate", None):
            return code
        error = error.__cause__
    return None
