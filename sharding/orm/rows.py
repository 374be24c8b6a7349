"""The rows of a queryset over several shards, in one order, as the objects that it yields."""

import sys
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from copy import copy
from itertools import chain, islice
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db import connections
from django.db.models.sql import Query

from sharding import observing
from sharding.backend.compiler import SQLCompiler, answering
from sharding.errors import DatabaseUnavailable
from sharding.orm.aggregates import part_query, recipe
from sharding.orm.hidden import params_on, without_hidden
from sharding.orm.merge import drop_repeated, group_rows, merge_streams, sort_rows
from sharding.orm.plan import FanOutCompiler, groups_are_whole, plan, rows_are_whole
from sharding.orm.refusals import check_fan_out, refuse
from sharding.orm.scatter import marked_for_rollback, named, scatter
from sharding.signals import fanned_out
from sharding.slots import SlotMap

__all__ = ["FanOut"]

Row = Sequence[Any]
Owned = tuple[str, Row]
Chunks = Iterator[Sequence[Row]]


class FanOut:
    """One queryset's query over several shards. `missing` says which of them did not answer."""

    def __init__(
        self, query: Query, aliases: Sequence[str], slot_map: SlotMap, *, partial: bool = False
    ) -> None:
        self.plain_query = query
        self.query = without_hidden(query, slot_map, aliases)
        self.aliases = tuple(aliases)
        self.partial = partial
        self.missing: set[str] = set()

    def objects(self, queryset: Any) -> list[Any]:
        """Return all that the queryset yields: model objects, dicts, tuples or plain values."""
        compiler = plan(self.query, self.aliases)
        return list(_made(queryset, compiler, self._rows(compiler)))

    def stream(self, queryset: Any, chunk_size: int) -> Generator[Any]:
        """Yield the same as it comes, through server-side cursors that fetch `chunk_size` rows."""
        compiler = plan(self.query, self.aliases)
        if not groups_are_whole(self.query):
            yield from _made(queryset, compiler, self._rows(compiler))
            return
        with self._cursors(compiler, chunk_size) as streams:
            if compiler.sort_terms or compiler.distinct_indexes:
                rows = _merged([_owned(*each) for each in streams.items()], compiler)
                yield from _made(queryset, compiler, rows)
            else:
                objects = (_made_on(queryset, compiler, *each) for each in streams.items())
                yield from islice(chain.from_iterable(objects), compiler.low, compiler.high)

    def count(self) -> int:
        """Return the number of rows."""
        return self._count(self.query)

    def _count(self, query: Query) -> int:
        low, high = query.low_mark, query.high_mark
        if not rows_are_whole(query):
            return len(self._rows(plan(_counted(query), self.aliases)))
        bounded = query.clone()
        bounded.clear_limits()
        if query.is_sliced:  # also where only `low` is set: Django then keeps the ORDER BY
            bounded.set_limits(0, sys.maxsize if high is None else high)
        check_fan_out(bounded)
        with answering(self._aggregates):
            total = bounded.get_count(using=self.aliases[0])
        return max(min(total, total if high is None else high) - low, 0)

    def exists(self) -> bool:
        """Say whether there is any row."""
        if self.query.low_mark or not groups_are_whole(self.query):
            unordered = self.query.clone()
            unordered.clear_ordering(force=True)  # as Django asks
            return self._count(unordered) > 0
        check_fan_out(self.query)
        with answering(self._any_row):
            return self.query.has_results(using=self.aliases[0])

    def aggregate(self, aggregates: dict[str, Any]) -> dict[str, Any]:
        """Return name -> value. Raises AcrossShardsRefused."""
        if self.query.is_sliced or not rows_are_whole(self.query):
            refuse(
                "aggregate() of a slice, of distinct rows or of groups without the shard key",
                "Fetch the rows and compute in Python, or aggregate without it.",
            )
        check_fan_out(self.query)
        with answering(self._aggregates):
            return self.query.chain().get_aggregation(self.aliases[0], aggregates)

    def prepare_write(self) -> None:
        """Before update() or delete() on each shard. Raises AcrossShardsRefused."""
        check_fan_out(self.query)
        self._note()

    def explain(self, **options: Any) -> str:
        """Return every shard's plan, under its name."""
        compiler = plan(self.plain_query, self.aliases)
        lines = []
        for alias in self.aliases:
            lines += [f"{alias}:", compiler.query.explain(using=alias, **options)]
        return "\n".join(lines)

    def _scatter(self, sql: str, params: Sequence[Any]) -> Mapping[str, Sequence[Row]]:
        self._note()
        asked = {alias: (sql, params_on(alias, params)) for alias in self.aliases}
        answers, missing = scatter(asked, partial=self.partial)
        self.missing |= missing
        return answers

    def _note(self) -> None:
        fanned_out.send(self.query.model, aliases=self.aliases)

    def _rows(self, compiler: FanOutCompiler) -> list[Owned]:
        try:
            sql, params = compiler.as_sql()
        except EmptyResultSet:
            return []
        answers = self._scatter(sql, params)
        if compiler.sort_terms and compiler.high is not None and not compiler.combines:
            return list(_merged([_owned(a, [rows]) for a, rows in answers.items()], compiler))
        rows = [(alias, row) for alias, answer in answers.items() for row in answer]
        if compiler.combines:
            rows = _grouped(compiler, rows)
        if compiler.sort_terms:
            sort_rows(rows, compiler.sort_terms)
        if compiler.distinct_indexes:
            rows = list(drop_repeated(rows, compiler.distinct_indexes))
        return rows[compiler.low : compiler.high]

    @contextmanager
    def _cursors(self, compiler: FanOutCompiler, size: int) -> Iterator[dict[str, Chunks]]:
        """Begin the query on every shard; give what each of them sends, by alias."""
        try:
            sql, params = compiler.as_sql()
        except EmptyResultSet:
            yield {}
            return
        self._note()
        # When one shard fails, the others' cursors must not stay open.
        with marked_for_rollback(self.aliases), ExitStack() as stack:
            cursors = {alias: _chunks(alias, sql, params, size) for alias in self.aliases}
            for cursor in cursors.values():
                stack.callback(cursor.close)
            streams = {alias: self._present(alias, cursor) for alias, cursor in cursors.items()}
            for stream in streams.values():  # under one map, and not each when it is its turn
                next(stream, None)
            yield streams

    def _present(self, alias: str, chunks: Chunks) -> Chunks:
        """Yield the chunks; with `partial`, none more from where a shard cannot be reached."""
        try:
            with named(alias):
                yield from chunks
        except DatabaseUnavailable:
            if not self.partial:
                raise
            self.missing |= {alias}

    def _aggregates(self, compiler: SQLCompiler) -> Row | None:
        recipes = [recipe(each, self.aliases) for each in compiler.query.annotation_select.values()]
        try:
            sql, params = part_query(compiler, recipes)
        except EmptyResultSet:
            return None
        # Where Django knows every value beforehand it asks for constants, one row for each row.
        answers = [rows[0] for rows in self._scatter(sql, params).values() if rows]
        if not answers:
            return None
        parts = iter(zip(*answers, strict=True))
        return [
            each.combine(list(zip(*islice(parts, len(each.parts)), strict=True)))
            for each in recipes
        ]

    def _any_row(self, compiler: SQLCompiler) -> Row | None:
        try:
            sql, params = compiler.as_sql()
        except EmptyResultSet:
            return None
        return next((rows[0] for rows in self._scatter(sql, params).values() if rows), None)


def _counted(query: Query) -> Query:
    """The query without what does not change how many rows there are, as Django counts."""
    counted = query.clone()
    counted.clear_ordering()  # unless a slice or distinct(…) needs it
    if not counted.distinct:
        grouped = {
            name for name, each in counted.annotation_select.items() if not each.contains_aggregate
        }
        counted.set_annotation_mask(grouped)
    return counted


def _owned(alias: str, chunks: Iterable[Sequence[Row]]) -> Iterator[Owned]:
    return ((alias, row) for row in chain.from_iterable(chunks))


def _merged(streams: Sequence[Iterator[Owned]], compiler: FanOutCompiler) -> Iterator[Owned]:
    """Merge what each shard sends in order, reading no further than the slice asks."""
    rows: Iterator[Owned] = chain.from_iterable(streams)
    if compiler.sort_terms:
        rows = merge_streams(streams, compiler.sort_terms)
    if compiler.distinct_indexes:
        rows = drop_repeated(rows, compiler.distinct_indexes)
    return islice(rows, compiler.low, compiler.high)


def _chunks(
    alias: str, sql: str, params: Sequence[Any], size: int
) -> Generator[Sequence[Row], None, None]:
    """Yield nothing of the rows when the query has begun, then chunks of them."""
    connection = connections[alias]
    on_server = not connection.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS")
    with connection.chunked_cursor() if on_server else connection.cursor() as cursor:
        with observing.fanning_out():
            cursor.execute(sql, params_on(alias, params))
        yield ()
        while rows := cursor.fetchmany(size):
            yield rows


def _grouped(compiler: FanOutCompiler, rows: list[Owned]) -> list[Owned]:
    """Make one row of each group, its aggregates combined from the shards' parts."""
    groups = group_rows(rows, compiler.folded)
    combined: list[Owned] = []
    for owner, members in groups:
        whole = list(members[0])
        for index, (made, columns) in compiler.recipes.items():
            parts = [tuple(row[column] for column in columns) for row in members]
            whole[index] = made.combine(parts)
        combined.append((owner, whole))
    return combined


def _made(queryset: Any, compiler: FanOutCompiler, rows: Iterable[Owned]) -> Iterator[Any]:
    """Make the objects of rows that come from several shards by turns."""
    waiting: dict[str, deque[Sequence[Row]]] = {alias: deque() for alias in compiler.aliases}
    made = {
        alias: _made_on(queryset, compiler, alias, iter(queue.popleft, None))
        for alias, queue in waiting.items()
    }
    for alias, row in rows:
        waiting[alias].append((row,))
        yield next(made[alias])


def _made_on(
    queryset: Any, compiler: FanOutCompiler, alias: str, chunks: Iterable[Sequence[Row]]
) -> Iterator[Any]:
    """Let Django's own iterable make the objects of one shard's rows."""
    if compiler.has_extra_select:
        visible = compiler.col_count
        chunks = ([row[:visible] for row in rows] for rows in chunks)
    return iter(queryset._iterable_class(_Answered(queryset, compiler, alias, chunks)))


class _Answered:
    """What Django's iterables ask of a queryset, for rows that are here already."""

    def __init__(
        self,
        queryset: Any,
        compiler: FanOutCompiler,
        alias: str,
        chunks: Iterable[Sequence[Row]],
    ) -> None:
        self.db = alias
        self._fields = queryset._fields
        self._known_related_objects = queryset._known_related_objects
        compiler = copy(compiler)
        compiler.answer = chunks
        self.query = _AnsweredQuery(compiler)


class _AnsweredQuery:
    """A query whose compiler has the rows."""

    def __init__(self, compiler: FanOutCompiler) -> None:
        self._compiler = compiler

    def get_compiler(self, *args: Any, **kwargs: Any) -> FanOutCompiler:
        return self._compiler

    def __getattr__(self, name: str) -> Any:
        return getattr(self._compiler.query, name)
