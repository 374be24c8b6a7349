"""What several shards cannot answer as one database would, each with what to write instead."""

from collections.abc import Iterable
from typing import Any, NoReturn

from django.db.models.expressions import RawSQL, Window
from django.db.models.sql import Query
from django.db.models.sql.where import ExtraWhere

from sharding.errors import AcrossShardsRefused
from sharding.orm.subqueries import (
    check_subqueries,
    check_values,
    expressions_in,
    is_within_key,
    queries_in,
    queries_inside,
    walk,
)

__all__ = ["check_expressions", "check_fan_out", "refuse"]


def refuse(what: str, instead: str) -> NoReturn:
    """Raise AcrossShardsRefused."""
    raise AcrossShardsRefused(f"{what} is refused over several shards. {instead}")


def check_fan_out(query: Query) -> None:
    """Refuse what is right on each shard and wrong over all of them."""
    if query.combinator:
        refuse(
            f"{query.combinator}()",
            "Evaluate the querysets and combine their rows in Python, or give all of them the "
            "same key.",
        )
    if query.select_for_update:
        refuse("select_for_update()", "Lock rows of one user: add a filter on the shard key.")
    for each in queries_in(query):
        _refuse_raw_query(each)
    _refuse_windows(expressions_in(query), query)
    check_subqueries(query, aliases=())


def check_expressions(expressions: Iterable[Any], query: Query) -> None:
    """The same for resolved expressions that are not yet, or never, a part of the query."""
    roots = list(expressions)
    parts = [part for root in roots for part in walk(root)]
    _refuse_raw(parts)
    _refuse_windows(parts, query)
    for each in queries_inside(roots):
        _refuse_raw_query(each)
    check_values(roots, aliases=())


def _refuse_windows(expressions: Iterable[Any], query: Query) -> None:
    for expression in expressions:
        if isinstance(expression, Window) and not is_within_key(expression, query):
            refuse(
                "A window function over rows of several users",
                "Add the shard key to its partition_by.",
            )


def _refuse_raw_query(query: Query) -> None:
    if query.extra or query.extra_tables or query.extra_order_by:
        refuse("extra()", "Use annotate() and filter() with expressions.")
    _refuse_raw(expressions_in(query))


def _refuse_raw(expressions: Iterable[Any]) -> None:
    for expression in expressions:
        if isinstance(expression, ExtraWhere):
            refuse("extra()", "Use filter() with expressions.")
        if isinstance(expression, RawSQL):
            refuse("RawSQL", "Use expressions, whose meaning is known.")
