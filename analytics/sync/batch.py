"""Batches: what one turn reads at the source and writes to analytics, in the order that is safe."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from django.db import connections, transaction
from django.db.backends.utils import CursorWrapper
from psycopg.errors import SerializationFailure, UniqueViolation
from psycopg.sql import SQL, Composed, Identifier

from analytics.sync import indexes, statements
from analytics.sync.arrivals import require_settled, settle, with_owned_slots
from analytics.sync.described import Source
from analytics.sync.errors import Overtaken, ReconcileNeeded, SyncFailed, naming, sqlstate
from analytics.sync.piping import pipe
from analytics.sync.result import SyncResult
from analytics.sync.statements import Range
from analytics.sync.turn import Turn, forget_token, read_checkpoint, read_position
from sharding import conf
from sharding.errors import DatabaseUnavailable

__all__ = [
    "Reconcile",
    "begin",
    "look",
    "mark",
    "nothing_is_missing",
    "replace_log",
    "sync_keys",
    "sync_log",
    "sync_pages",
    "sync_ranges",
]

_LOGGED = 10_000  # users

Reconcile = dict[str, Any]  # how far a reconcile is; see analytics.sync.full


def begin(source: Source) -> Turn:
    """Note the tokens of both sides for a batch. Raises SyncFailed, DatabaseUnavailable."""
    settle(source, _overtake)
    return look(source)


def _overtake(former: Source) -> None:
    """Do an empty batch, so that one in flight finds other tokens than it began with."""
    try:
        turn = look(former)
        mark(turn, turn.unfinished)
    except DatabaseUnavailable:
        # Such a batch may still come from a process that read before: it shall find nothing it
        # knows, and the former owner will be compared when it is back.
        with naming(conf.analytics()), _cursor(conf.analytics()) as there:
            forget_token(there, former)


def look(source: Source) -> Turn:
    """The same, for no batch: nothing is written. Raises SyncFailed, DatabaseUnavailable."""
    while True:
        token, reconcile = _checkpoint(source)
        with naming(source.alias), _cursor(source.alias) as here:
            claimed, applied = read_position(here, source)
        turn = Turn(source, token, claimed, applied, reconcile)
        # Another sync's batch in between looks the same as a side that was restored.
        if not turn.torn or _checkpoint(source)[0] == token:
            return turn


def sync_log(turn: Turn, limit: int) -> tuple[SyncResult, int]:
    """Apply the oldest `limit` entries of the log; return what changed and how many there were.

    Raises ReconcileNeeded where the log alone does not suffice, Overtaken.
    """
    if turn.disagreement:
        raise ReconcileNeeded(turn.disagreement)
    with _writing(turn.source) as there:
        with _reading(turn.source) as (here, source):
            entries = _oldest(here, source, limit)
            if not entries:
                return SyncResult(), 0
            keys = {key for _, key in entries if key}
            if truncated := [number for number, key in entries if not key]:
                raise ReconcileNeeded("the table was truncated", entries=truncated)
            _bring(here, there, source, statements.copy_keys(source, list(keys)))
            turn.claim(here)
        turn.take_over(there, None)
        result = _merge_keys(there, source, keys)
    _finish(turn, [number for number, _ in entries])
    return result, len(entries)


def sync_keys(turn: Turn, keys: Sequence[UUID]) -> SyncResult:
    """Copy the rows of these keys as they are, and delete the copies of those that are gone."""
    with _writing(turn.source) as there:
        with _reading(turn.source) as (here, source):
            _bring(here, there, source, statements.copy_keys(source, keys))
            turn.claim(here)
        turn.take_over(there, turn.unfinished)
        result = _merge_keys(there, source, set(keys))
    _finish(turn)
    return result


def sync_ranges(turn: Turn, ranges: Sequence[Range], reconcile: Reconcile | None) -> SyncResult:
    """Make the copies in these ranges of keys equal to the rows."""
    with _writing(turn.source) as there:
        with _reading(turn.source) as (here, source):
            _bring(here, there, source, statements.copy_ranges(source, ranges))
            turn.claim(here)
        turn.take_over(there, reconcile)
        result = _merge(there, source)
        low, high = [list(ends) for ends in zip(*ranges, strict=True)]
        there.execute(statements.delete_ranges(source), [low, high])
        result += SyncResult(deleted=there.rowcount)
    _finish(turn)
    return result


def sync_pages(
    turn: Turn, first: int, end: int, reconcile: Reconcile, *, into_empty: bool
) -> SyncResult:
    """Copy the rows on the table's pages from `first` to before `end`; delete nothing.

    `into_empty` copies straight into the target, and falls back to a merge where a row comes twice:
    one that moved to a later page while the pages were read.
    """
    try:
        with _writing(turn.source, incoming=not into_empty) as there:
            with _reading(turn.source) as (here, source):
                _require_filenode(here, source, reconcile)
                into = source.target if into_empty else statements.INCOMING
                copy = statements.copy_pages(source, first, end)
                rows = _bring(here, there, source, copy, into)
                turn.claim(here)
            turn.take_over(there, reconcile)
            result = SyncResult(upserted=rows) if into_empty else _merge(there, turn.source)
    except SyncFailed as error:
        if not into_empty or sqlstate(error) != UniqueViolation.sqlstate:
            raise
        again = begin(turn.source)
        return sync_pages(again, first, end, reconcile, into_empty=False)
    _finish(turn)
    return result


def nothing_is_missing(turn: Turn) -> bool:
    """Say whether a first load by pages, since which the log was kept, has copied every row.

    What was changed since stands in the log, with what was deleted. All that can be wrong besides
    is a row that moved to a page that had been read, by a change that is not logged; then there are
    fewer copies than rows. True only as long as nobody else writes: as the turn's claim says.
    """
    with _reading(turn.source) as (here, source):
        here.execute(SQL("SELECT DISTINCT user_id FROM {} LIMIT %s").format(source.log), [_LOGGED])
        logged = [key for (key,) in here.fetchall()]
        if len(logged) == _LOGGED or None in logged:
            return False
        here.execute(statements.count_rows(source))
        rows = here.fetchone()
    with naming(conf.analytics()), _cursor(conf.analytics()) as there:
        there.execute(statements.count_copies(source), [logged])
        return there.fetchone() == rows


def mark(turn: Turn, reconcile: Reconcile | None, entries: Sequence[int] = ()) -> None:
    """Note that a reconcile begins, goes on or ends, with no rows; then drop entries of the log.

    From the beginning on, nothing but a whole reconcile makes the checkpoint usable again.
    """
    _claim_only(turn, reconcile)
    _finish(turn, entries)


def replace_log(turn: Turn) -> None:
    """Empty the log, and note that only a reconcile makes up for it.

    The lock waits for every transaction that has written to the log, so what they changed is
    committed, and the reconcile, which reads after it, sees it. Raises Overtaken, SyncFailed.
    """
    alias = turn.source.alias
    _claim_only(turn, {"step": "compare"})
    with naming(alias), transaction.atomic(using=alias), _cursor(alias) as here:
        # Writers queue behind the lock: rather fail, and be run again, than hold them up.
        here.execute("SET LOCAL lock_timeout = '2s'")
        # Before the turn's own row, which a sync that waits here for the log may want next.
        here.execute(SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(turn.source.log))
        turn.finish(here, [])
        here.execute(SQL("TRUNCATE {}").format(turn.source.log))


def _claim_only(turn: Turn, reconcile: Reconcile | None) -> None:
    with _writing(turn.source, incoming=False) as there:
        with _reading(turn.source) as (here, _):
            turn.claim(here)
        turn.take_over(there, reconcile)


@contextmanager
def _reading(source: Source) -> Iterator[tuple[CursorWrapper, Source]]:
    """One snapshot of the source, and the source with the slots that it owns by it.

    What is claimed in it was read before; all of it, or nothing.
    """
    alias = source.alias
    try:
        with naming(alias), transaction.atomic(using=alias), _cursor(alias) as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            cursor.execute(statements.lock_source(source))
            require_settled(cursor, source)
            yield cursor, with_owned_slots(cursor, source)
    except SyncFailed as error:
        if sqlstate(error) == SerializationFailure.sqlstate:
            raise Overtaken(f"Another sync of {source.name} was quicker.") from error
        raise


@contextmanager
def _writing(source: Source, *, incoming: bool = True) -> Iterator[CursorWrapper]:
    """A transaction on analytics, with the temporary table for what comes in."""
    alias = conf.analytics()
    if incoming and indexes.are_dropped(source):  # a merge finds copies by the key
        indexes.build(source)
    with naming(alias), transaction.atomic(using=alias), _cursor(alias) as cursor:
        if incoming:
            cursor.execute(statements.create_incoming(source))
        yield cursor


def _finish(turn: Turn, entries: Sequence[int] = ()) -> None:
    alias = turn.source.alias
    with naming(alias), transaction.atomic(using=alias), _cursor(alias) as here:
        turn.finish(here, entries)


def _checkpoint(source: Source) -> tuple[UUID | None, Reconcile | None]:
    alias = conf.analytics()
    with naming(alias), _cursor(alias) as there:
        return read_checkpoint(there, source)


def _cursor(alias: str) -> CursorWrapper:
    return connections[alias].cursor()


def _oldest(here: CursorWrapper, source: Source, limit: int) -> list[tuple[int, UUID | None]]:
    query = SQL("SELECT id, user_id FROM {} ORDER BY id LIMIT %s").format(source.log)
    here.execute(query, [limit])
    return here.fetchall()


def _bring(
    here: CursorWrapper,
    there: CursorWrapper,
    source: Source,
    copy: Composed,
    table: Identifier = statements.INCOMING,
) -> int:
    return pipe(here, there, out=copy, into=statements.copy_to(table, source))


def _merge_keys(there: CursorWrapper, source: Source, keys: set[UUID]) -> SyncResult:
    result = _merge(there, source)
    there.execute(statements.delete_keys(source), [list(keys)])
    return result + SyncResult(deleted=there.rowcount)


def _merge(there: CursorWrapper, source: Source) -> SyncResult:
    there.execute(SQL("SELECT count(*) FROM {}").format(statements.INCOMING))
    (came,) = there.fetchone()
    there.execute(statements.merge(source))
    return SyncResult(upserted=there.rowcount, unchanged=came - there.rowcount)


def _require_filenode(here: CursorWrapper, source: Source, reconcile: Reconcile) -> None:
    """Page numbers mean something in one file of the table only; a rewrite makes another."""
    here.execute("SELECT pg_relation_filenode(%s::regclass)", [source.table.as_string()])
    if here.fetchone() != (reconcile["filenode"],):
        raise ReconcileNeeded("the table was rewritten meanwhile")
