"""Subqueries of a query on shards: allowed where one shard sees all that one database would.

Elsewhere they would quietly see the rows of one shard only, also inside a query with a key.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from django.db.models.expressions import Col, RawSQL, Subquery, Window
from django.db.models.lookups import Exact, In, Lookup
from django.db.models.query import QuerySet
from django.db.models.sql import Query, UpdateQuery
from django.db.models.sql.where import AND, WhereNode

from sharding import slot_cache
from sharding.errors import AcrossShardsRefused
from sharding.orm.keys import is_key, key_name, keys_in

__all__ = [
    "ShardedQuery",
    "check_subqueries",
    "check_values",
    "expressions_in",
    "has_subqueries",
    "is_within_key",
    "of_aggregates",
    "of_object",
    "of_update",
    "queries_in",
    "queries_inside",
    "walk",
]

Inner = tuple[Query, In | None]  # a subquery, and the lookup `… IN (subquery)` where it is in one


class ShardedQuery(Query):
    """The query of a sharded model. It refuses to be a subquery in another database."""

    def resolve_expression(self, query: Any = None, *args: Any, **kwargs: Any) -> Any:
        # Models in migrations have no key; there, who writes a subquery names the database.
        if _is_sharded(self) and not _is_sharded(query):
            raise AcrossShardsRefused(
                f"A subquery on {_label(self)} inside a query on {_label(query)} is refused: they "
                f"live in different databases. Evaluate it first: pass list(queryset) or a set of "
                f"ids."
            )
        return super().resolve_expression(query, *args, **kwargs)


def has_subqueries(query: Query) -> bool:
    """Say quickly whether there is anything for check_subqueries to look at."""
    return (
        bool(query.annotations or query.combined_queries or query._filtered_relations)
        or any(map(_is_involved, query.where.children))
        or not all(isinstance(term, str) for term in query.order_by)
    )


def check_subqueries(query: Query, aliases: Sequence[str]) -> None:
    """Refuse a subquery that does not see on one shard all that it would see in one database.

    It does when its own keys lie on `aliases`, the one shard of the outer query, or when it is tied
    to the outer row by the shard key or the primary key: what it can match is beside that row.
    """
    check_values(_roots(query), aliases)
    for part in query.combined_queries:
        check_subqueries(part, aliases)


def check_values(expressions: Iterable[Any], aliases: Sequence[str]) -> None:
    """The same for resolved expressions, as update() and aggregate() are given."""
    for inner, lookup in (found for each in expressions for found in _inner(each)):
        _require_sharded(inner)
        if not (_lies_on(inner, aliases) or _is_beside(inner, lookup)):
            raise AcrossShardsRefused(
                f"A subquery on {_label(inner)} that may match rows of other shards is refused. "
                f"Evaluate it first, e.g. with list(), or tie it to the outer row: "
                f'.filter({key_name(inner.model)}=OuterRef("…")) with its shard key.'
            )
        check_subqueries(inner, aliases)


def of_aggregates(query: Query, aggregates: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the arguments of aggregate() as Django will resolve them, if they hold subqueries or
    raw SQL.
    """
    if not any(map(_may_look_elsewhere, aggregates.values())):
        return
    scratch = query.chain()
    for name, each in aggregates.items():
        resolved = each.resolve_expression(scratch, allow_joins=True, summarize=True)
        scratch.append_annotation_mask([name])
        scratch.annotations[name] = resolved  # the next one may refer to it
        yield resolved


def of_update(query: Query, values: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the arguments of update() as Django will resolve them, if they hold expressions."""
    if any(map(_is_expression, values.values())):
        scratch = query.chain(UpdateQuery)
        scratch.add_update_values(values)
        yield from (value for _, _, value in scratch.values)


def of_object(instance: Any) -> Iterator[Any]:
    """The same for what an object is about to store."""
    stored = instance.__dict__
    expressions = {
        field.name: value
        for field in instance._meta.concrete_fields
        if _is_expression(value := stored.get(field.attname))
    }
    if expressions:
        yield from of_update(Query(type(instance)), expressions)


def queries_in(query: Query) -> Iterator[Query]:
    """Yield the query, the parts of a union, and every query inside them."""
    yield query
    for each in query.combined_queries:
        yield from queries_in(each)
    yield from queries_inside(_roots(query))


def queries_inside(expressions: Iterable[Any]) -> Iterator[Query]:
    """Yield every query inside resolved expressions."""
    for inner, _ in (found for each in expressions for found in _inner(each)):
        yield from queries_in(inner)


def expressions_in(query: Query) -> Iterator[Any]:
    """Yield every expression and lookup of a query, those of its subqueries aside."""
    for root in _roots(query):
        yield from walk(root)


def is_within_key(window: Window, query: Query) -> bool:
    """Say whether a window function in a query looks at rows of one key only."""
    parts = window.partition_by.get_source_expressions() if window.partition_by else ()
    # The key of a joined row is NULL where there is none: such rows of all users are one partition.
    return any(is_key(part) and part.alias == query.base_table for part in parts)


def _roots(query: Query) -> Iterator[Any]:
    yield query.where
    yield from query.annotations.values()
    yield from (term for term in query.order_by if not isinstance(term, str))
    for join in query.alias_map.values():
        if filtered := getattr(join, "filtered_relation", None):
            yield filtered.resolved_condition


def walk(node: Any) -> Iterator[Any]:
    """Yield an expression or lookup and all in it, subqueries aside."""
    yield node
    for child in _children(node):
        yield from walk(child)


def _inner(node: Any, lookup: In | None = None) -> Iterator[Inner]:
    if isinstance(node, Subquery):
        yield node.query, lookup
    elif isinstance(node, Query):
        yield node, lookup
    else:
        for child in _children(node):
            yield from _inner(child, node if isinstance(node, In) else None)


def _children(node: Any) -> list[Any]:
    if isinstance(node, WhereNode):
        return node.children
    if isinstance(node, Subquery | Query) or not hasattr(node, "get_source_expressions"):
        return []
    # Expressions among plain values, as in `…__in=[F("a"), …]`, are no source expressions.
    listed = node.rhs if isinstance(node, Lookup) and isinstance(node.rhs, list | tuple) else ()
    children = [*node.get_source_expressions(), *filter(_is_expression, listed)]
    return [child for child in children if child is not None]


def _may_look_elsewhere(expression: Any) -> bool:
    # An F, of another aggregate, cannot be taken to pieces.
    parts = expression.flatten() if hasattr(expression, "flatten") else ()
    return any(isinstance(part, Subquery | QuerySet | RawSQL) for part in parts)


def _is_expression(value: Any) -> bool:
    return hasattr(value, "resolve_expression")


def _is_involved(node: Any) -> bool:
    if not isinstance(node, Lookup) or not isinstance(node.lhs, Col):
        return True
    if not node.rhs_is_direct_value():
        return True
    return isinstance(node.rhs, list | tuple) and any(map(_is_expression, node.rhs))


def _require_sharded(inner: Query) -> None:
    if not _is_sharded(inner):
        raise AcrossShardsRefused(
            f"A subquery on {_label(inner)} inside a query on a shard is refused: it lives in "
            f"another database. Evaluate it first: pass list(queryset) or a set of ids."
        )


def _is_sharded(query: Query) -> bool:
    return key_name(query.model) is not None


def _label(query: Query) -> str:
    return query.model._meta.label if query.model else "no table"


def _lies_on(inner: Query, aliases: Sequence[str]) -> bool:
    if pinned := getattr(inner, "_db", None):
        return list(aliases) == [pinned]
    keys = keys_in(inner)
    return keys is not None and {*map(slot_cache.get_shard_for_user_id, keys)} <= {*aliases}


def _is_beside(inner: Query, lookup: In | None) -> bool:
    """Say whether the subquery matches only rows that lie on one shard with the outer row."""
    if getattr(inner, "_db", None):
        return False
    parts = inner.combined_queries or (inner,)
    chosen = lookup.lhs if lookup and not inner.is_sliced else None
    return all(_ties(part, part.where) or _selects(part, chosen) for part in parts)


def _selects(inner: Query, column: Any) -> bool:
    """Say whether in `column IN (inner)` a row can only be chosen by itself or its neighbours."""
    if len(inner.select) != 1 or not _are_beside(column, inner.select[0]):
        return False
    if inner.is_sliced or inner.distinct_fields:
        return False
    windows = (each for each in expressions_in(inner) if isinstance(each, Window))
    return all(is_within_key(window, inner) for window in windows)


def _ties(inner: Query, node: WhereNode) -> bool:
    """Say whether the AND-ed conditions contain `inner key = outer key`."""
    if node.connector != AND or node.negated:
        return False
    for child in node.children:
        if isinstance(child, WhereNode):
            if _ties(inner, child):
                return True
        elif isinstance(child, Exact) and _are_beside(child.lhs, child.rhs):
            inside = [side.alias in inner.alias_map for side in (child.lhs, child.rhs)]
            if inside in ([True, False], [False, True]):
                return True
    return False


def _are_beside(one: Any, other: Any) -> bool:
    """Say whether rows in which these two columns are equal lie on one shard."""
    if is_key(one) and is_key(other):
        return True
    both = isinstance(one, Col) and isinstance(other, Col)
    return both and one.target.primary_key and one.target == other.target
