"""One sync at a time, as a courtesy: two would only make each other start again (see turn)."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from django.db import DatabaseError, connections
from django.db.backends.base.base import BaseDatabaseWrapper

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
    holder = _beside(alias)
    try:
        with naming(alias), holder.cursor() as cursor:
            # By a transaction, not by the session: behind PgBouncer the next transaction may be in
            # another session. It has no snapshot, so it keeps no VACUUM from its work.
            holder.set_autocommit(False)
            cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
            cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [LOCK])
            if cursor.fetchone() != (True,):
                raise AnotherSync("Another sync is running; this one has nothing to do.")
        yield
    finally:
        # A connection that is merely closed keeps the lock for a moment longer; with a lost one the
        # server has let go of it already.
        with suppress(DatabaseError):
            holder.rollback()
        holder.close()


def _beside(alias: str) -> BaseDatabaseWrapper:
    """Return a connection beside the pool, where the sync wants its own."""
    wrapper = connections[alias].copy()
    wrapper.settings_dict["OPTIONS"].pop("pool", None)
    return wrapper
