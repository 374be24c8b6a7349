"""A SELECT for several shards: its SQL, the columns it needs besides, and how its rows combine."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from django.core.exceptions import EmptyResultSet, FullResultSet
from django.db import connections
from django.db.models.expressions import BaseExpression, Col, ColPairs, OrderBy, Ref, Value
from django.db.models.functions import Collate
from django.db.models.sql import Query
from django.db.models.sql.compiler import PositionRef

from sharding import conf
from sharding.backend.compiler import SQLCompiler
from sharding.orm.aggregates import Recipe, recipe
from sharding.orm.comparing import is_text, orders_by_code_point, require_comparable
from sharding.orm.keys import is_key
from sharding.orm.merge import SortTerm
from sharding.orm.refusals import check_expressions, check_fan_out, refuse

__all__ = ["FanOutCompiler", "groups_are_whole", "plan", "rows_are_whole"]

logger = logging.getLogger(__name__)

Column = tuple[BaseExpression, tuple[str, Sequence[Any]], str | None]


def plan(query: Query, aliases: Sequence[str]) -> "FanOutCompiler":
    """Return the compiler of what each shard is asked for. Raises AcrossShardsRefused.

    Warns of a deep page in the log: each shard sends all the rows that are then skipped.
    """
    check_fan_out(query)
    if query.low_mark > conf.deep_offset():
        logger.warning(
            "%s: every shard sends its first %d rows, to skip %d of all. Page by a filter on the "
            "last row that was shown, e.g. .filter(created_at__lt=…), instead of an offset.",
            query.model._meta.label if query.model else "A query",
            query.high_mark or 0,
            query.low_mark,
        )
    asked = query.clone()
    asked.clear_limits()
    if query.high_mark is not None and groups_are_whole(query):
        asked.set_limits(0, query.high_mark)
    return FanOutCompiler(asked, aliases, low=query.low_mark, high=query.high_mark)


def rows_are_whole(query: Query) -> bool:
    """Say whether no row of one shard can be the same, or of the same group, as another shard's."""
    return groups_are_whole(query) and (not query.distinct or _selects_identity(query))


def groups_are_whole(query: Query) -> bool:
    """Say whether every group of a GROUP BY, if there is one, lies on one shard."""
    if not isinstance(query.group_by, tuple):
        return True
    return any(_identifies(expression, query) for expression in query.group_by)


def _selects_identity(query: Query) -> bool:
    if query.distinct_fields:
        return False
    columns = (*query.select, *query.annotation_select.values())
    return query.default_cols or any(_identifies(column, query) for column in columns)


def _identifies(expression: object, query: Query) -> bool:
    """Say whether an expression is the key or the primary key of the query's own rows."""
    expression = _source(expression)
    if isinstance(expression, ColPairs):
        return any(_identifies(column, query) for column in expression.get_cols())
    if not isinstance(expression, Col) or expression.alias != query.base_table:
        return False
    return is_key(expression) or expression.target.primary_key


class FanOutCompiler(SQLCompiler):
    """Compiles a SELECT once for all shards, with hidden columns after the visible ones.

    After as_sql(): `sort_terms`; `distinct_indexes`, the columns in which no two rows may agree;
    and where `combines` says that groups do, `recipes`: column -> its recipe and the columns of
    its parts.
    """

    has_extra_select = False  # where the query matches nothing, and is not compiled

    def __init__(
        self, query: Query, aliases: Sequence[str], *, low: int = 0, high: int | None = None
    ) -> None:
        super().__init__(query, connections[aliases[0]], aliases[0])
        self.aliases = tuple(aliases)
        self.low, self.high = low, high
        self.sort_terms: list[SortTerm] = []
        self.distinct_indexes: list[int] = []
        self.combines = not groups_are_whole(query)
        self.recipes: dict[int, tuple[Recipe, range]] = {}
        self.folded: set[int] = set()
        self._hidden: list[Column] = []
        self._converters: dict[tuple[int, ...], Any] = {}
        self.answer: Iterable[Sequence[Sequence[Any]]] = ()  # chunks of rows

    def execute_sql(self, *args: Any, **kwargs: Any) -> Any:
        """Give Django's iterables the rows that are already here."""
        return self.answer

    def get_converters(self, expressions: Any) -> Any:
        """Django's, found once for all shards: the compilers of their rows are copies of this."""
        known = tuple(map(id, expressions))
        if known not in self._converters:
            self._converters[known] = super().get_converters(expressions)
        return self._converters[known]

    def get_order_by(self) -> list[Any]:
        terms = [each for term in super().get_order_by() for each in self._singles(*term)]
        # Those of Meta.ordering are not in the query, which was looked at before.
        check_expressions((resolved for resolved, _ in terms), self.query)
        for resolved, (sql, _, _) in terms:
            if self.ordering_parts.search(sql)[1] == "%s":
                refuse("Ordering by a constant", "PostgreSQL takes it for a column's position.")
            require_comparable(resolved.expression, "ORDER BY of")
        return [self._by_code_point(*term) for term in terms]

    def get_distinct(self) -> tuple[list[str], list[Any]]:
        heads = [self.compile(self._collated(head)) for head in self._heads()]
        return [sql for sql, _ in heads], [params for _, params in heads]

    def get_extra_select(self, order_by: Any, select: Any) -> Any:
        if self.query.group_by and self._meta_ordering:
            order_by = ()  # Django leaves Meta.ordering out of GROUP BY queries
        super().get_extra_select(order_by, select)
        self.col_count = _width(select)
        self._hidden, self.sort_terms = [], []
        for resolved, (sql, params, _) in order_by:
            index = self._index(resolved, sql, params, select)
            self.sort_terms.append(_sort_term(resolved, index))
        self._find_distinct(select)
        if self.combines:
            self._find_recipes(select, order_by)
        if self.qualify and (self._hidden or self.distinct_indexes):
            refuse(
                "A filter on a window function, with distinct() or an order by a column that is "
                "not selected,",
                "Leave out distinct() and select the column, or sort in Python.",
            )
        return self._hidden

    def _singles(self, resolved: OrderBy, compiled: Any) -> Iterator[Any]:
        """The terms that a composite primary key stands for, each of one column."""
        if not isinstance(resolved.expression, ColPairs):
            yield resolved, compiled
            return
        for column in resolved.expression.get_cols():
            single = resolved.copy()
            single.set_source_expressions([column])
            yield single, (*self.compile(single), False)

    def _by_code_point(self, resolved: OrderBy, compiled: Any) -> Any:
        collated = self._collated(resolved.expression)
        if collated is resolved.expression:
            return resolved, compiled
        resolved = resolved.copy()
        resolved.set_source_expressions([collated])
        return resolved, (*self.compile(resolved), False)

    def _collated(self, expression: Any) -> Any:
        if is_text(expression) and not orders_by_code_point(self.aliases):
            return Collate(_source(expression), "C")
        return expression

    def _heads(self) -> list[Any]:
        """The expressions of distinct(…)."""
        return [self.query.resolve_ref(name) for name in self.query.distinct_fields]

    def _index(self, resolved: OrderBy, sql: str, params: Sequence[Any], select: Any) -> int:
        """Return the column that holds a sort term's value, adding a hidden one where none does."""
        expression = resolved.expression
        if isinstance(expression, PositionRef):
            return expression.ordinal - 1
        if isinstance(expression, Ref):
            for index, (_, _, alias) in _placed(select):
                if alias == expression.refs:
                    return index
        plain = self.ordering_parts.search(sql)[1]
        return self._column(expression, plain, params, select)

    def _column(self, expression: Any, sql: str, params: Sequence[Any], select: Any) -> int:
        columns = [*select, *self._hidden]
        for index, (_, compiled, _) in _placed(columns):
            if (compiled[0], tuple(compiled[1])) == (sql, tuple(params)):
                return index
        self._hidden.append((expression, (sql, params), None))
        return _width(columns)

    def _find_distinct(self, select: Any) -> None:
        if self.query.distinct_fields:
            found = {self._comparable("distinct() of", head, select) for head in self._heads()}
            self.distinct_indexes = sorted(found)
        elif self.query.distinct and not _selects_identity(self.query):
            for expression, _, _ in select:
                require_comparable(expression, "distinct() of")
            self.distinct_indexes = list(range(_width([*select, *self._hidden])))

    def _comparable(self, what: str, expression: Any, select: Any) -> int:
        require_comparable(expression, what)
        sql, params = self.compile(expression)
        return self._column(expression, sql, params, select)

    def _find_recipes(self, select: Any, order_by: Any) -> None:
        if self.qualify:  # its columns are, to Django, a part of the group
            refuse(
                "A filter on a window function, with groups without the shard key,",
                "Fetch the rows and group them in Python.",
            )
        if self.having:
            refuse(
                "A filter on an aggregate of groups without the shard key",
                "Leave the filter out and drop the groups in Python.",
            )
        if self.query.distinct_fields:
            refuse("distinct(…) of groups without the shard key", "Choose the groups in Python.")
        for grouped in self._grouped(select, order_by):
            with suppress(EmptyResultSet, FullResultSet):  # a constant makes no groups
                self._comparable("GROUP BY of", grouped, select)
        for index, (expression, _, _) in enumerate([*select, *self._hidden]):
            if not expression.contains_aggregate:
                require_comparable(expression, "GROUP BY of")
                continue
            made = recipe(expression, self.aliases)
            start = len(select) + len(self._hidden)
            self._hidden += [(part, self._compiled(part), None) for part in made.parts]
            self.recipes[index] = made, range(start, start + len(made.parts))
            self.folded |= {index, *self.recipes[index][1]}

    def _grouped(self, select: Any, order_by: Any) -> Iterator[Any]:
        """Yield what makes groups, as Django's get_group_by() finds it.

        That is also what values() leaves out, and of a subquery the outer columns that it names.
        """
        references = {each.refs for each in self.query.group_by if isinstance(each, Ref)}
        yield from map(_source, self.query.group_by)
        for expression, _, alias in select:
            if alias not in references:
                yield from expression.get_group_by_cols()
        for resolved, (_, _, is_reference) in order_by:
            if not is_reference:
                yield from resolved.get_group_by_cols()

    def _compiled(self, part: BaseExpression) -> tuple[str, Sequence[Any]]:
        try:
            return self.compile(part)
        except EmptyResultSet:  # its filter matches nothing; Django's get_select() does the same
            return self.compile(Value(part.empty_result_set_value))


def _placed(columns: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    """Each column with its place in the rows, where a composite primary key has several."""
    place = 0
    for column in columns:
        yield place, column
        place += _width([column])


def _width(columns: Iterable[Any]) -> int:
    """How many values the columns have in a row."""
    return sum(len(each) if isinstance(each, ColPairs) else 1 for each, _, _ in columns)


def _source(expression: Any) -> Any:
    while isinstance(expression, Ref):
        expression = expression.source
    return expression


def _sort_term(resolved: OrderBy, index: int) -> SortTerm:
    # PostgreSQL's default: NULL is larger than every value.
    nulls_first = resolved.nulls_first or (resolved.descending and not resolved.nulls_last)
    return SortTerm(index, descending=resolved.descending, nulls_first=bool(nulls_first))
