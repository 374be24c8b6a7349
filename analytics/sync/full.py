"""The reconcile: compare, then copy what differs. A first load, a repair and "nothing to do".

The log goes on collecting meanwhile; what it holds is applied afterwards. The checkpoint keeps how
far the reconcile is, so that one that was stopped goes on from there:

    {"step": "compare"}                         nothing copied yet, or all pages are
    {"step": "compare", "run": "5e1f"}          the same, compared by this run
    {"step": "compare", "why": "…"}             nothing copied yet, for a reason that is told
    {"step": "pages", "page": 400, "filenode": 16385, "empty": true}
"""

import uuid
from collections.abc import Generator, Iterator, Sequence

from django.db import connections
from psycopg.sql import SQL

from analytics.sync import indexes
from analytics.sync.batch import (
    Reconcile,
    begin,
    mark,
    nothing_is_missing,
    sync_pages,
    sync_ranges,
)
from analytics.sync.buckets import Comparison, compare, has_copies
from analytics.sync.described import Source
from analytics.sync.errors import Overtaken, ReconcileNeeded, naming
from analytics.sync.result import Progress, SyncResult
from analytics.sync.statements import Range
from analytics.sync.turn import Turn

__all__ = ["batches_of", "reconcile"]

_PAGES = 8000  # of 8 KiB, in a batch
_MANY = 0.25  # of all rows in buckets that differ: reading all in heap order is quicker
_RANGES = 2000  # in a batch


def reconcile(source: Source) -> Iterator[Progress]:
    """Make the copies equal to the rows; yield what each batch did, and where it stands.

    Raises Overtaken, SyncFailed, DatabaseUnavailable; run again, it goes on where it stopped.
    """
    state = yield from _first_pages(source)
    if indexes.are_dropped(source):
        yield Progress(SyncResult(), "building the indexes")
        indexes.build(source)
    if state and state["empty"] and _is_complete(source, state):
        return
    paged = state is not None
    found, comparing = _compare(source)
    if _differs_much(found):
        paged = True
        state = _first_page(source, empty=False)
        mark(_go_on(source, comparing), state)
        yield from _pages(source, state)
        found, comparing = _compare(source)
    equal = 0 if paged else found.rows - found.differing_rows  # page by page they were counted
    yield Progress(SyncResult(unchanged=equal), f"{len(found.ranges)} buckets differ")
    for batch in batches_of(found.ranges):
        result = sync_ranges(_go_on(source, comparing), batch, comparing)
        yield Progress(result, f"{len(batch)} buckets")
    mark(_go_on(source, comparing), None)


def _first_pages(source: Source) -> Generator[Progress, None, Reconcile | None]:
    """Copy page by page where there are no copies, or where a run that did so stopped.

    Returns what the checkpoint says then, None where there was nothing to do.
    """
    turn = begin(source)
    state = turn.reconcile
    if state and state["step"] == "pages":
        where = f"going on from page {state['page']} of the table, where the last run stopped"
        yield Progress(SyncResult(), where, news=True)
        if turn.torn:  # nor has the log what was changed since the first of them
            state = {**state, "empty": False}
            mark(turn, state)
    elif not has_copies(source):
        state = _first_page(source, empty=True)
        mark(turn, state)  # or a run that fails at once would leave nothing that is owed
        if _number_of_pages(source) > _PAGES:
            indexes.drop(source)
    else:
        return None
    return (yield from _pages(source, state))


def _is_complete(source: Source, state: Reconcile) -> bool:
    """End a first load without comparing, where counting says that no row is missing."""
    turn = _go_on(source, state)
    complete = nothing_is_missing(turn)
    if complete:
        mark(turn, None)
    return complete


def _compare(source: Source) -> tuple[Comparison, Reconcile]:
    """Compare everything; return what differs, and what the checkpoint says while that is true."""
    comparing = {"step": "compare", "run": uuid.uuid4().hex}
    mark(begin(source), comparing)
    return compare(source), comparing


def _go_on(source: Source, state: Reconcile) -> Turn:
    """Begin a batch that relies on those before: since then, no side may have been restored."""
    turn = begin(source)
    if turn.torn or turn.reconcile != state:
        raise Overtaken(f"What was done for {source.name} was undone meanwhile. Run it again.")
    return turn


def _differs_much(found: Comparison) -> bool:
    return found.differing_rows > 1000 and found.differing_rows > _MANY * found.rows


def _pages(source: Source, state: Reconcile) -> Generator[Progress, None, Reconcile]:
    """Copy the table page by page, up to its end as it is by then.

    `state` is what the checkpoint says; returns what it says at the end.
    """
    first = state["page"]
    while first < (total := _number_of_pages(source)):
        end = first + _PAGES
        turn, after = _go_on(source, state), {**state, "page": end}
        try:
            result = sync_pages(turn, first, end, after, into_empty=state["empty"])
        except ReconcileNeeded:  # rewritten: its pages are others now
            after = _first_page(source, empty=False)
            mark(turn, after)
            result, end = SyncResult(), 0
        yield Progress(result, f"page {min(end, total)} of {total}")
        first, state = end, after
    return state


def _first_page(source: Source, *, empty: bool) -> Reconcile:
    with naming(source.alias), connections[source.alias].cursor() as cursor:
        cursor.execute("SELECT pg_relation_filenode(%s::regclass)", [source.table.as_string()])
        (filenode,) = cursor.fetchone()
    return {"step": "pages", "page": 0, "filenode": filenode, "empty": empty}


def _number_of_pages(source: Source) -> int:
    query = SQL("SELECT pg_relation_size(%s::regclass) / current_setting('block_size')::int")
    with naming(source.alias), connections[source.alias].cursor() as cursor:
        cursor.execute(query, [source.table.as_string()])
        return cursor.fetchone()[0]


def batches_of(ranges: Sequence[Range]) -> Iterator[Sequence[Range]]:
    """Split ranges into as many as one statement should name."""
    for start in range(0, len(ranges), _RANGES):
        yield ranges[start : start + _RANGES]
