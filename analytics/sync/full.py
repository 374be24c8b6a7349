"""The full pass: every account is copied, compared and merged, in one transaction.

Afterwards analytics is as the primary was when the pass began. What `sync_user` wrote in the
meantime may so be set back, until the next pass.
"""

from collections.abc import Generator, Iterable
from contextlib import closing

from django.db import connections, transaction
from django.db.backends.utils import CursorWrapper
from psycopg.sql import SQL
from tqdm import tqdm

from analytics.sync import statements
from analytics.sync.errors import SyncAlreadyRunning, naming
from analytics.sync.result import SyncResult
from sharding import conf

__all__ = ["LOCK", "sync_all"]

LOCK = 5_716_304_229_018_443  # any number, but the same in every process


def sync_all(*, progress: bool = False) -> SyncResult:
    """Make analytics equal to the primary; all of it or, with an error, nothing.

    `progress` shows a bar on a terminal. Raises SyncAlreadyRunning, SyncFailed,
    DatabaseUnavailable.
    """
    alias = conf.analytics()
    with (
        naming(alias),
        transaction.atomic(using=alias),
        connections[alias].cursor() as cursor,
    ):
        _lock(cursor)
        cursor.execute(statements.create_incoming())
        with closing(_accounts()) as accounts:
            _copy(accounts, cursor, progress=progress)
        return _apply(cursor)


def _lock(cursor: CursorWrapper) -> None:
    # Ends with the transaction. A lock of the session would outlive us in the pool.
    cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [LOCK])
    if cursor.fetchone() != (True,):
        raise SyncAlreadyRunning(
            "Another full pass of the sync is running; this one has nothing to do."
        )


def _accounts() -> Generator[bytes]:
    """Yield the primary's accounts as PostgreSQL sends them, about one a block."""
    alias = conf.primary()
    with (
        naming(alias),
        connections[alias].cursor() as cursor,
        cursor.copy(statements.copy_from_primary()) as copy,
    ):
        yield from copy


def _copy(accounts: Iterable[bytes], cursor: CursorWrapper, *, progress: bool) -> None:
    # disable=None: a bar on a terminal only.
    bar = tqdm(accounts, unit=" rows", disable=None if progress else True)
    with bar, cursor.copy(statements.copy_to_incoming()) as copy:
        for block in bar:
            copy.write(block)


def _apply(cursor: CursorWrapper) -> SyncResult:
    # Without statistics the merge would be planned for a table of the default size.
    cursor.execute(SQL("ANALYZE {}").format(statements.INCOMING))
    cursor.execute(SQL("SELECT count(*) FROM {}").format(statements.INCOMING))
    (total,) = cursor.fetchone()
    cursor.execute(statements.merge(statements.all_incoming()))
    upserted = cursor.rowcount
    cursor.execute(statements.delete_gone())
    deleted = cursor.rowcount
    cursor.execute(SQL("DROP TABLE {}").format(statements.INCOMING))
    return SyncResult(upserted=upserted, deleted=deleted, unchanged=total - upserted)
