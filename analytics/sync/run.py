"""A whole sync of one source: a reconcile where one is owed, then the log until it is empty."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from uuid import UUID

from django.db import connections
from psycopg.sql import SQL

from analytics.models import UserAnalytics
from analytics.sync.batch import begin, mark, replace_log, sync_keys, sync_log
from analytics.sync.buckets import compare, differing_keys
from analytics.sync.described import SYNCED, Source
from analytics.sync.errors import Overtaken, ReconcileNeeded, SyncFailed, naming
from analytics.sync.full import batches_of, reconcile
from analytics.sync.result import Progress, SyncResult
from analytics.sync.statements import Range
from analytics.sync.status import log_limit, past_limit, status
from sharding import conf, get_shard_for_user_id

__all__ = ["BATCH", "plan", "sources_of", "sync_key", "sync_source", "sync_user", "verify"]

BATCH = 10_000  # entries of the log
_ATTEMPTS = 5


def sync_source(
    source: Source, *, full: bool = False, batch_size: int = BATCH
) -> Iterator[Progress]:
    """Make the copies equal to the source; yield after each batch.

    Raises Overtaken when another sync works on the source, SyncFailed, DatabaseUnavailable. What
    was yielded is stored; run again, it goes on from there.
    """
    _require_primary_server(source)
    why = begin(source).disagreement or ("asked for" if full else "")
    if _log_is_too_long(source):
        yield Progress(SyncResult(), f"{past_limit()}: emptying it", news=True)
        replace_log(begin(source))
        why = "the log was emptied"
    if why:
        yield from _reconciled(source, why)
    while True:
        try:
            result, entries = sync_log(begin(source), batch_size)
        except ReconcileNeeded as needed:
            mark(begin(source), {"step": "compare"}, needed.entries)
            yield from _reconciled(source, str(needed))
            continue
        if entries:
            yield Progress(result, f"{entries} entries of the log")
        if entries < batch_size:
            return


def plan(source: Source) -> str:
    """Say what `sync_source` would do, after the word "would"; do nothing."""
    _require_primary_server(source)
    found = status(source)
    if found.trouble:
        return f"compare everything: {found.trouble}"
    return f"copy {found.entries} changes" if found.entries else "find nothing to do"


def sync_user(user_id: UUID | str) -> UserAnalytics | None:
    """Copy one account, and its profile, to analytics now; return the account's copy.

    None, and no copy left, when the account is gone. Raises InvalidShardKey for an id that is no
    UUID, SyncFailed, DatabaseUnavailable.
    """
    for source in sources_of(user_id):
        sync_key(source, user_id)
    return UserAnalytics.objects.filter(pk=user_id).first()


def sources_of(user_id: UUID | str) -> list[Source]:
    """Return where a user's rows are copied from. Raises InvalidShardKey for what is no UUID."""
    shard = get_shard_for_user_id(user_id)
    return [Source(synced, shard if synced.shard_field else conf.primary()) for synced in SYNCED]


def verify(source: Source) -> Iterator[tuple[Range, list[UUID]]]:
    """Compare and change nothing: yield each bucket that differs, with the keys that do."""
    ranges = compare(source).ranges
    for batch in batches_of(ranges):
        keys = differing_keys(source, batch)
        for low, high in batch:
            if found := keys[bisect_left(keys, low) : bisect_right(keys, high)]:
                yield (low, high), found


def sync_key(source: Source, key: UUID | str) -> SyncResult:
    """Copy one user's row as it is now. Raises SyncFailed, DatabaseUnavailable."""
    key = UUID(str(key))
    _require_primary_server(source)
    for attempt in range(_ATTEMPTS):
        try:
            return sync_keys(begin(source), [key])
        except Overtaken:
            if attempt == _ATTEMPTS - 1:
                raise SyncFailed(f"Other syncs of {source.name} are too busy. Try again.") from None
    raise AssertionError


def _reconciled(source: Source, why: str) -> Iterator[Progress]:
    yield Progress(SyncResult(), f"comparing everything: {why}", news=True)
    yield from reconcile(source)


def _require_primary_server(source: Source) -> None:
    """A standby has rows, but no claim can be written there."""
    with naming(source.alias), connections[source.alias].cursor() as cursor:
        cursor.execute("SELECT pg_is_in_recovery()")
        if cursor.fetchone() == (True,):
            raise SyncFailed(
                f"Database {conf.label(source.alias)} is a standby. Name its primary server in "
                f"the environment: a sync notes there what it has read."
            )


def _log_is_too_long(source: Source) -> bool:
    limit = log_limit()
    query = SQL("SELECT count(*) FROM (SELECT FROM {} LIMIT %s) AS entries").format(source.log)
    with naming(source.alias), connections[source.alias].cursor() as cursor:
        cursor.execute(query, [limit + 1])
        return cursor.fetchone()[0] > limit
