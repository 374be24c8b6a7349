"""A whole sync of one source: a reconcile where one is owed, then the log until it is empty."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

from django.conf import settings
from django.db import connections
from psycopg.sql import SQL

from analytics.models import UserAnalytics
from analytics.sync.batch import begin, mark, replace_log, sync_keys, sync_log
from analytics.sync.buckets import compare, differing_keys
from analytics.sync.described import PROFILES, USERS, Source
from analytics.sync.errors import Overtaken, ReconcileNeeded, SyncFailed, naming
from analytics.sync.full import reconcile
from analytics.sync.result import SyncResult
from analytics.sync.statements import Range
from sharding import conf, get_shard_for_user_id

__all__ = ["BATCH", "Progress", "sync_log_once", "sync_source", "sync_user", "verify"]

BATCH = 10_000  # entries of the log
_ATTEMPTS = 5

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """What one batch did, and in words where the sync is."""

    result: SyncResult
    where: str


def sync_source(
    source: Source, *, full: bool = False, batch_size: int = BATCH
) -> Iterator[Progress]:
    """Make the copies equal to the source; yield after each batch.

    Raises Overtaken when another sync works on the source, SyncFailed, DatabaseUnavailable. What
    was yielded is stored; run again, it goes on from there.
    """
    _require_primary_server(source)
    turn = begin(source)
    if _log_is_too_long(source):
        yield Progress(SyncResult(), "the log has passed its limit: comparing everything instead")
        replace_log(begin(source))
        full = True
    if full or turn.disagreement:
        yield from _reconciled(source, turn.disagreement or "asked for")
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


def sync_log_once(source: Source, *, batch_size: int = BATCH) -> SyncResult | None:
    """Apply one batch of the log, for a sync that follows; None where there was nothing to do.

    Raises ReconcileNeeded, Overtaken, SyncFailed, DatabaseUnavailable.
    """
    result, entries = sync_log(begin(source), batch_size)
    return result if entries else None


def sync_user(user_id: UUID | str) -> UserAnalytics | None:
    """Copy one account, and its profile, to analytics now; return the account's copy.

    None, and no copy left, when the account is gone. Raises InvalidShardKey for an id that is no
    UUID, SyncFailed, DatabaseUnavailable.
    """
    shard = get_shard_for_user_id(user_id)
    for source in (Source(USERS, conf.primary()), Source(PROFILES, shard)):
        _sync_key(source, UUID(str(user_id)))
    return UserAnalytics.objects.filter(pk=user_id).first()


def verify(source: Source) -> list[tuple[Range, list[UUID]]]:
    """Compare and change nothing: return each bucket that differs, with the keys that do."""
    found = compare(source)
    if not found.ranges:
        return []
    keys = differing_keys(source, found.ranges)
    return [(ends, [key for key in keys if ends[0] <= key <= ends[1]]) for ends in found.ranges]


def _sync_key(source: Source, key: UUID) -> SyncResult:
    for attempt in range(_ATTEMPTS):
        try:
            return sync_keys(begin(source), [key])
        except Overtaken:
            if attempt == _ATTEMPTS - 1:
                raise SyncFailed(f"Other syncs of {source.name} are too busy. Try again.") from None
    raise AssertionError


def _reconciled(source: Source, why: str) -> Iterator[Progress]:
    yield Progress(SyncResult(), f"comparing everything: {why}")
    for result, where in reconcile(source):
        yield Progress(result, where)


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
    limit = getattr(settings, "SYNC_LOG_LIMIT", 1_000_000)
    query = SQL("SELECT count(*) FROM (SELECT FROM {} LIMIT %s) AS entries").format(source.log)
    with naming(source.alias), connections[source.alias].cursor() as cursor:
        cursor.execute(query, [limit + 1])
        return cursor.fetchone()[0] > limit
