"""What several shards cannot answer as one database would, each with what to write instead."""

from collections.abc import Iterator
from typing import Any, NoReturn

from django.db.models.expressions import Col, RawSQL, Subquery, Window
from django.db.models.lookups import Exact, In, Lookup
from django.db.models.sql import Query
from django.db.models.sql.where import AND, WhereNode

from sharding import slot_cache
from sharding.errors import AcrossShardsRefused
from sharding.orm.keys import is_key, keys_in

__all__ = ["check_fan_out", "check_subqueries", "has_subqueries", "refuse"]


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
    if query.extra or query.extra_tables or query.extra_order_by:
        refuse("extra()", "Use annotate() and filter() with expressions.")
    for expression in _expressions(query):
        if isinstance(expression, RawSQL):
            refuse("RawSQL", "Use expressions, whose meaning is known.")
        if isinstance(expression, Window) and not _within_key(expression):
            refuse(
                "A window function over rows of several users",
                "Add the shard key to its partition_by.",
            )
    check_subqueries(query, aliases=())


def has_subqueries(query: Query) -> bool:
    """Say quickly whether there is anything for check_subqueries to look at."""
    return bool(query.annotations) or any(map(_is_involved, query.where.children))


def check_subqueries(query: Query, aliases: tuple[str, ...]) -> None:
    """Refuse a subquery that does not see on one shard all that it would see in one database.

    It does when its own keys lie on `aliases`, the one shard of the outer query, or when it is tied
    to the outer row by the shard key, so that the rows it can match are beside that row.
    """
    for inner, tied in _subqueries(query):
        _require_sharded(inner)
        keys = keys_in(inner)
        owners = {slot_cache.get_shard_for_user_id(key) for key in keys} if keys else set()
        if not tied and not _is_tied(inner) and not (owners and owners <= set(aliases)):
            label = inner.model._meta.label if inner.model else "it"
            refuse(
                f"A subquery on {label} that may match rows of other shards",
                f"Evaluate it first, e.g. with list(), or tie it to the outer row: "
                f'.filter({getattr(inner.model, "shard_key", "key")}=OuterRef("…")) with the '
                f"outer row's shard key.",
            )
        check_subqueries(inner, aliases)


def _require_sharded(inner: Query) -> None:
    if not hasattr(inner.model, "shard_key_attname"):
        label = inner.model._meta.label if inner.model else "a table"
        raise AcrossShardsRefused(
            f"A subquery on {label} inside a query on a shard is refused: {label} lives in "
            f"another database. Evaluate it first: pass list(queryset) or a set of ids."
        )


def _is_involved(node: Any) -> bool:
    return not (
        isinstance(node, Lookup) and isinstance(node.lhs, Col) and node.rhs_is_direct_value()
    )


def _subqueries(query: Query) -> Iterator[tuple[Query, bool]]:
    """Each query inside this one, and whether where it stands ties it to the outer row."""
    for expression in _expressions(query):
        if isinstance(expression, Subquery):
            yield expression.query, False
        elif isinstance(expression, Lookup) and isinstance(expression.rhs, Query):
            yield expression.rhs, isinstance(expression, In) and _selects_key(expression)


def _selects_key(lookup: In) -> bool:
    """Say whether this is `key IN (SELECT key …)`: only rows beside the outer one can match."""
    inner = lookup.rhs
    return (
        is_key(lookup.lhs)
        and not inner.is_sliced
        and len(inner.select) == 1
        and is_key(inner.select[0])
    )


def _is_tied(inner: Query) -> bool:
    return inner.where.connector == AND and not inner.where.negated and _ties(inner, inner.where)


def _ties(inner: Query, node: WhereNode) -> bool:
    """Say whether the AND-ed conditions contain `inner key = outer key`."""
    for child in node.children:
        if isinstance(child, WhereNode):
            if child.connector == AND and not child.negated and _ties(inner, child):
                return True
        elif isinstance(child, Exact) and is_key(child.lhs) and is_key(child.rhs):
            inside = [side.alias in inner.alias_map for side in (child.lhs, child.rhs)]
            if inside in ([True, False], [False, True]):
                return True
    return False


def _within_key(window: Window) -> bool:
    parts = window.partition_by.get_source_expressions() if window.partition_by else ()
    return any(is_key(part) for part in parts)


def _expressions(query: Query) -> Iterator[Any]:
    """Every expression and lookup of a query, those of its subqueries aside."""
    yield from _walk(query.where)
    for annotation in query.annotations.values():
        yield from _walk(annotation)
    for order in query.order_by:
        if hasattr(order, "get_source_expressions"):
            yield from _walk(order)


def _walk(node: Any) -> Iterator[Any]:
    yield node
    if isinstance(node, Subquery):
        return
    children = node.children if isinstance(node, WhereNode) else node.get_source_expressions()
    for child in children:
        if hasattr(child, "get_source_expressions") and not isinstance(child, Query):
            yield from _walk(child)
