"""One sync at a time, as a courtesy: two would only make each other start again (see turn)."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connections

from analytics.sync.errors import naming
from sharding import conf

__all__ = ["LOCK", "AnotherSync", "only_sync"]

LOCK = 5_716_304_229_018_443  # any number, but the same in every process


class AnotherSync(Exception):
    """Another process syncs."""


@contextmanager
def only_sync() -> Iterator[None]:
    """Hold the lock for the block. Raises AnotherSync, SyncFailed, DatabaseUnavailable."""
    alias = conf.analytics()
    with naming(alias), connections[alias].cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [LOCK])
        if cursor.fetchone() != (True,):
            raise AnotherSync("Another sync is running; this one has nothing to do.")
    try:
        yield
    finally:
        # With the connection closed or lost, the server has let go of the lock already.
        connection = connections[alias]
        if connection.connection is not None and connection.is_usable():
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [LOCK])
