"""How far the copies are behind, and how much is in the logs."""

from dataclasses import dataclass, replace
from datetime import timedelta

from django.conf import settings
from django.db import connections
from psycopg.sql import SQL

from analytics.models import SyncRun
from analytics.sync.batch import look
from analytics.sync.described import Source
from analytics.sync.errors import naming
from sharding import conf

__all__ = ["SourceStatus", "lag", "last_runs", "log_limit", "measure", "past_limit", "status"]


@dataclass(frozen=True)
class SourceStatus:
    """One source: its log, the token of its checkpoint, and in `trouble` why a reconcile is owed.

    Of a source never synced the checkpoint is empty, and so are both where analytics was not asked.
    """

    source: str
    entries: int
    bytes: int
    lag: timedelta
    checkpoint: str = ""
    trouble: str = ""


def lag(source: Source) -> timedelta:
    """Return the age of the oldest entry of the log: never less than the copies are behind."""
    query = SQL("SELECT coalesce(clock_timestamp() - min(at), '0') FROM {}").format(source.log)
    with naming(source.alias), connections[source.alias].cursor() as cursor:
        cursor.execute(query)
        return max(cursor.fetchone()[0], timedelta())


def status(source: Source) -> SourceStatus:
    """Look at one source, and write nothing. Raises SyncFailed, DatabaseUnavailable."""
    turn = look(source)
    found = measure(source)
    checkpoint = str(turn.token) if turn.token else ""
    return replace(found, checkpoint=checkpoint, trouble=turn.disagreement or found.trouble)


def measure(source: Source) -> SourceStatus:
    """Look at a source's log alone. Raises SyncFailed, DatabaseUnavailable.

    Analytics, which may be down, is not asked.
    """
    query = SQL(
        "SELECT count(*), count(*) - count(user_id), pg_total_relation_size(%s::regclass) FROM {}"
    ).format(source.log)
    with naming(source.alias), connections[source.alias].cursor() as cursor:
        cursor.execute(query, [source.log.as_string()])
        entries, truncated, size = cursor.fetchone()
    trouble = "the table was truncated" if truncated else ""
    if entries > log_limit():
        trouble = past_limit()
    return SourceStatus(source.name, entries, size, lag(source), trouble=trouble)


def log_limit() -> int:
    """Return how many entries a log may have before a run empties it instead."""
    return getattr(settings, "SYNC_LOG_LIMIT", 1_000_000)


def past_limit() -> str:
    """Say what that is, where it is the reason."""
    return f"the log has passed its limit of {log_limit():,} entries"


def last_runs(number: int = 5) -> list[SyncRun]:
    """Return the newest records of runs."""
    with naming(conf.analytics()):
        return list(SyncRun.objects.order_by("-started_at")[:number])
