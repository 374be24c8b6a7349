"""The rows of a queryset over several shards, in one order, as the objects that it yields."""

import sys
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from copy import copy
from itertools import chain, islice
from typing import Any, cast

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


class FanOut:
    """One queryset's query over several shards. `missing` says which of them did not answer."""

    def __init__(
        self, query: Query, aliases: Sequence[str], slot_map: SlotMap, *, partial: bool = False
    ) -> None:
        self.plain_query = query
        self.query = without_hidden(query, slot_map, aliases)
        self.aliases = tuple(aliases)
        self.partial = partial
        self.missing: frozenset[str] = frozenset()

    def objects(self, queryset: Any) -> list[Any]:
        """Return all that the queryset yields: model objects, dicts, tuples or plain values."""
        compiler = plan(self.query, self.aliases)
        return _built(queryset, compiler, self._rows(compiler))

    def stream(self, queryset: Any, chunk_size: int) -> Iterator[list[Any]]:
        """Yield the same in lists of at most `chunk_size`, through server-side cursors."""
        compiler = plan(self.query, self.aliases)
        if not groups_are_whole(self.query):
            rows: Iterable[Owned] = self._rows(compiler)
        else:
            rows = self._streamed(compiler, chunk_size)
        iterator = iter(rows)
        with marked_for_rollback(self.aliases):
            while chunk := list(islice(iterator, chunk_size)):
                yield _built(queryset, compiler, chunk)

    def count(self) -> int:
        """Return the number of rows."""
        low, high = self.query.low_mark, self.query.high_mark
        if not rows_are_whole(self.query):
            return len(self._rows(plan(_counted(self.query), self.aliases)))
        bounded = self.query.clone()
        bounded.clear_limits()
        if self.query.is_sliced:  # also where only `low` is set: Django then keeps the ORDER BY
            bounded.set_limits(0, sys.maxsize if high is None else high)
        check_fan_out(bounded)
        with answering(self._aggregates):
            total = bounded.get_count(using=self.aliases[0])
        return max(min(total, total if high is None else high) - low, 0)

    def exists(self) -> bool:
        """Say whether there is any row."""
        if self.query.low_mark or not groups_are_whole(self.query):
            return self.count() > 0
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
        answers, self.missing = scatter(self.aliases, sql, params, partial=self.partial)
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
            return list(_merged([_owned(*answer) for answer in answers.items()], compiler))
        rows = [owned for answer in answers.items() for owned in _owned(*answer)]
        if compiler.combines:
            rows = _grouped(compiler, rows)
        if compiler.sort_terms:
            sort_rows(rows, compiler.sort_terms)
        if compiler.distinct_indexes:
            rows = list(drop_repeated(rows, compiler.distinct_indexes))
        return rows[compiler.low : compiler.high]

    def _streamed(self, compiler: FanOutCompiler, chunk_size: int) -> Iterator[Owned]:
        try:
            sql, params = compiler.as_sql()
        except EmptyResultSet:
            return
        self._note()
        with ExitStack() as stack:  # when one shard fails, the others' cursors must not stay open
            cursors = [_cursor_rows(alias, sql, params, chunk_size) for alias in self.aliases]
            for cursor in cursors:
                stack.callback(cursor.close)
            streams = list(map(self._present, self.aliases, cursors))
            for stream in streams:  # all at once, under one map, and not each when it is its turn
                next(stream, None)
            yield from _merged(cast("list[Iterator[Owned]]", streams), compiler)

    def _present(self, alias: str, rows: Iterator[Owned | None]) -> Iterator[Owned | None]:
        """Yield the rows; with `partial`, none more from where a shard cannot be reached."""
        try:
            with named(alias):
                yield from rows
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


def _owned(alias: str, rows: Iterable[Row]) -> Iterator[Owned]:
    return ((alias, row) for row in rows)


def _merged(streams: Sequence[Iterator[Owned]], compiler: FanOutCompiler) -> Iterator[Owned]:
    """Merge what each shard sends in order, reading no further than the slice asks."""
    rows: Iterator[Owned] = chain.from_iterable(streams)
    if compiler.sort_terms:
        rows = merge_streams(streams, compiler.sort_terms)
    if compiler.distinct_indexes:
        rows = drop_repeated(rows, compiler.distinct_indexes)
    return islice(rows, compiler.low, compiler.high)


def _cursor_rows(alias: str, sql: str, params: Sequence[Any], size: int) -> Generator[Owned | None]:
    """Yield None when the query has begun, then its rows."""
    connection = connections[alias]
    on_server = not connection.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS")
    with connection.chunked_cursor() if on_server else connection.cursor() as cursor:
        with observing.fanning_out():
            cursor.execute(sql, params_on(alias, params))
        yield None
        while rows := cursor.fetchmany(size):
            for row in rows:
                yield alias, row


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


def _built(queryset: Any, compiler: FanOutCompiler, rows: list[Owned]) -> list[Any]:
    """Let Django's own iterable make the objects, those of each shard for themselves."""
    by_alias: dict[str, list[Row]] = defaultdict(list)
    for alias, row in rows:
        by_alias[alias].append(row[: compiler.col_count] if compiler.has_extra_select else row)
    made = {
        alias: iter(queryset._iterable_class(_Answered(queryset, compiler, alias, answer)))
        for alias, answer in by_alias.items()
    }
    return [next(made[alias]) for alias, _ in rows]


class _Answered:
    """What Django's iterables ask of a queryset, for rows that are here already."""

    def __init__(
        self, queryset: Any, compiler: FanOutCompiler, alias: str, rows: list[Row]
    ) -> None:
        self.db = alias
        self._fields = queryset._fields
        self._known_related_objects = queryset._known_related_objects
        compiler = copy(compiler)
        compiler.answer = rows
        self.query = copy(compiler.query)
        give: Callable[..., FanOutCompiler] = lambda *args, **kwargs: compiler  # noqa: E731
        self.query.get_compiler = give
