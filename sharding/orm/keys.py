"""Whose rows a query wants, read from its resolved WHERE tree.

Not from the arguments of filter(), which miss Q objects and related managers and read exclude() the
wrong way round, and not from hints, which survive `|` and union().
"""

from typing import Any

from django.db.models.expressions import Col, ColPairs
from django.db.models.lookups import Exact, In
from django.db.models.sql import Query
from django.db.models.sql.where import AND, OR, NothingNode, WhereNode

__all__ = ["NO_KEY", "is_key", "key_name", "keys_in"]

NO_KEY = (
    "In a migration a model has no shard key, and each shard runs the migration by itself: write "
    "`.using(schema_editor.connection.alias)`, or all of it inside "
    "`with use_shard(schema_editor.connection.alias):`."
)

Keys = frozenset[Any]


def keys_in(query: Query) -> Keys | None:
    """Return the only keys whose rows the query can return, or None where it does not say."""
    if query.combinator:
        return _unite([keys_in(part) for part in query.combined_queries])
    return _keys(query.where, query) if query.where.children else None


def key_name(model: Any) -> str | None:
    """Return the name of a model's shard key. A model in a migration has lost it: None."""
    return getattr(model, "shard_key", None)


def is_key(expression: object) -> bool:
    """Say whether an expression is the shard key's column of a sharded table."""
    if not isinstance(expression, Col):
        return False
    attname = getattr(expression.target.model, "shard_key_attname", None)
    return attname == expression.target.attname


def _keys(node: Any, query: Query) -> Keys | None:
    if isinstance(node, Exact | In):
        return _looked_up(node, query)
    if isinstance(node, NothingNode):
        return frozenset()
    if not isinstance(node, WhereNode) or node.negated:
        return None
    if node.connector == AND:
        return _intersect([_keys(child, query) for child in node.children])
    if node.connector == OR:
        return _unite([_keys(child, query) for child in node.children])
    return None


def _looked_up(lookup: Exact | In, query: Query) -> Keys | None:
    if not lookup.rhs_is_direct_value():
        return None
    values = lookup.rhs if isinstance(lookup, In) else [lookup.rhs]
    column = lookup.lhs
    if isinstance(column, ColPairs):  # as prefetches over foreign keys ask
        column, values = _first_column(column, values)
    # A joined table's key says nothing of where the base table's rows are.
    if not is_key(column) or column.alias != query.base_table:
        return None
    if any(hasattr(value, "resolve_expression") for value in values):
        return None
    to_python = column.target.to_python
    return frozenset(to_python(value) for value in values if value is not None)


def _first_column(pairs: ColPairs, rows: Any) -> tuple[Col, list[Any]]:
    plain = [row for row in rows if not hasattr(row, "resolve_expression")]
    if len(plain) != len(rows):
        return pairs.get_cols()[0], [pairs]  # an expression among the values
    return pairs.get_cols()[0], [row[0] for row in plain]


def _intersect(parts: list[Keys | None]) -> Keys | None:
    known = [part for part in parts if part is not None]
    return frozenset.intersection(*known) if known else None


def _unite(parts: list[Keys | None]) -> Keys | None:
    if not parts:
        return None
    united: Keys = frozenset()
    for part in parts:
        if part is None:
            return None
        united |= part
    return united
