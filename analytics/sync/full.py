"""The reconcile: compare, then copy what differs. A first load, a repair and "nothing to do".

The log goes on collecting meanwhile; what it holds is applied afterwards. The checkpoint keeps how
far the reconcile is, so that one that was stopped goes on from there:

    {"step": "compare"}                         nothing copied yet, or all pages are
    {"step": "compare", "run": "5e1f"}          the same, compared by this run
    {"step": "pages", "page": 400, "filenode": 16385, "empty": true}
"""

import uuid
from collections.abc import Iterator, Sequence

from django.db import connections
from psycopg.sql import SQL

from analytics.sync.batch import Reconcile, begin, mark, sync_pages, sync_ranges
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
    state = begin(source).reconcile
    paged = True
    if state and state["step"] == "pages":
        where = f"going on from page {state['page']} of the table, where the last run stopped"
        yield Progress(SyncResult(), where, news=True)
        yield from _pages(source, state)
    elif not has_copies(source):
        first = _first_page(source, empty=True)
        mark(begin(source), first)  # or a run that fails at once would leave nothing that is owed
        yield from _pages(source, first)
    else:
        paged = False
    found, comparing = _compare(source)
    if _differs_much(found):
        paged = True
        yield from _pages(source, _first_page(source, empty=False))
        found, comparing = _compare(source)
    equal = 0 if paged else found.rows - found.differing_rows  # page by page they were counted
    yield Progress(SyncResult(unchanged=equal), f"{len(found.ranges)} buckets differ")
    for batch in batches_of(found.ranges):
        result = sync_ranges(_go_on(source, comparing), batch, comparing)
        yield Progress(result, f"{len(batch)} buckets")
    mark(_go_on(source, comparing), None)


def _compare(source: Source) -> tuple[Comparison, Reconcile]:
    """Compare everything; return what differs, and what the checkpoint says while that is true."""
    comparing = {"step": "compare", "run": uuid.uuid4().hex}
    mark(begin(source), comparing)
    return compare(source), comparing


def _go_on(source: Source, comparing: Reconcile) -> Turn:
    """Begin a batch that relies on the comparison: since then, no side may have been restored."""
    turn = begin(source)
    if turn.torn or turn.reconcile != comparing:
        raise Overtaken(f"What was compared of {source.name} was changed meanwhile. Run it again.")
    return turn


def _differs_much(found: Comparison) -> bool:
    return found.differing_rows > 1000 and found.differing_rows > _MANY * found.rows


def _pages(source: Source, state: Reconcile) -> Iterator[Progress]:
    """Copy the table page by page, up to its end as it is by then."""
    first = state["page"]
    while first < (total := _number_of_pages(source)):
        end = first + _PAGES
        after = {**state, "page": end}
        try:
            result = sync_pages(begin(source), first, end, after, into_empty=state["empty"])
        except ReconcileNeeded:  # rewritten: its pages are others now
            after = _first_page(source, empty=False)
            result, end = SyncResult(), 0
        yield Progress(result, f"page {min(end, total)} of {total}")
        first, state = end, after


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
