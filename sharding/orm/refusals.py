"""What several shards cannot answer as one database would, each with what to write instead."""

from typing import NoReturn

from django.db.models.expressions import RawSQL, Window
from django.db.models.sql import Query
from django.db.models.sql.where import ExtraWhere

from sharding.errors import AcrossShardsRefused
from sharding.orm.subqueries import check_subqueries, expressions_in, is_within_key, queries_in

__all__ = ["check_fan_out", "refuse"]


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
        _refuse_raw(each)
    for expression in expressions_in(query):
        if isinstance(expression, Window) and not is_within_key(expression, query):
            refuse(
                "A window function over rows of several users",
                "Add the shard key to its partition_by.",
            )
    check_subqueries(query, aliases=())


def _refuse_raw(query: Query) -> None:
    if query.extra or query.extra_tables or query.extra_order_by:
        refuse("extra()", "Use annotate() and filter() with expressions.")
    for expression in expressions_in(query):
        if isinstance(expression, ExtraWhere):
            refuse("extra()", "Use filter() with expressions.")
        if isinstance(expression, RawSQL):
            refuse("RawSQL", "Use expressions, whose meaning is known.")
