"""Aggregates over several shards: what each shard computes, and how the parts become one value."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db.models import Aggregate, Avg, Count, Max, Min, StdDev, Sum, Value, Variance
from django.db.models.expressions import BaseExpression
from django.db.models.functions import Coalesce

from sharding.backend.compiler import SQLCompiler
from sharding.orm.comparing import is_text, orders_by_code_point, require_comparable
from sharding.orm.keys import is_key
from sharding.orm.numeric import divide
from sharding.orm.refusals import refuse

__all__ = ["Recipe", "part_query", "recipe"]

Parts = Sequence[tuple[Any, ...]]  # one tuple a shard, as long as the recipe's parts


@dataclass(frozen=True)
class Recipe:
    """`parts` is what each shard computes; `combine` makes the raw value of all shards' parts."""

    parts: tuple[BaseExpression, ...]
    combine: Callable[[Parts], Any]


def recipe(expression: BaseExpression, aliases: Sequence[str]) -> Recipe:
    """Return how a resolved aggregate is computed over shards. Raises AcrossShardsRefused."""
    if isinstance(expression, Coalesce) and expression.contains_aggregate:
        return _with_default(expression, aliases)
    text = isinstance(expression, Min | Max) and is_text(expression)
    if text and not orders_by_code_point(aliases):
        refuse(
            f"{expression.name} of a text that is not sorted by code point",
            "Use Collate(…, 'C'), or order_by() and first() or last().",
        )
    make = _RECIPES.get(type(expression))
    if make is None:
        refuse(
            f"The aggregate {expression!r}",
            "Only Count, Sum, Min, Max, Avg, Variance and StdDev, each by itself, combine from "
            "shards. Ask for these and do the rest in Python.",
        )
    return make(expression)


def part_query(compiler: SQLCompiler, recipes: Sequence[Recipe]) -> tuple[str, Sequence[Any]]:
    """Return the SQL that computes all parts on one shard, in place of the compiler's aggregates.

    Raises EmptyResultSet.
    """
    query = compiler.query.clone()
    parts = [part for each in recipes for part in each.parts]
    query.annotations = {f"part_{index}": part for index, part in enumerate(parts)}
    query.set_annotation_mask(query.annotations)
    sql, params = query.get_compiler(compiler.using, elide_empty=compiler.elide_empty).as_sql()
    if not sql:
        raise EmptyResultSet
    return sql, params


def _sources(expression: Any) -> tuple[list[Any], Any]:
    *sources, condition = expression.get_source_expressions()
    return sources, condition


def _as(kind: Callable[..., Aggregate], expression: Any) -> Aggregate:
    """The same aggregation with another function: of the same values, under the same filter."""
    sources, condition = _sources(expression)
    return kind(*sources, filter=condition)


def _count(expression: Any) -> Recipe:
    sources, _ = _sources(expression)
    if expression.distinct and not any(map(is_key, sources)):
        _refuse_distinct("Count")
    return Recipe((expression,), lambda parts: sum(part for (part,) in parts))


def _sum(expression: Any) -> Recipe:
    if expression.distinct:
        _refuse_distinct("Sum")
    return Recipe((expression,), lambda parts: _total(part for (part,) in parts))


def _refuse_distinct(name: str) -> None:
    refuse(
        f"{name}(distinct=True) of anything but the shard key",
        "The same value on two shards would count twice. Fetch the distinct values and count "
        "them: len(set(queryset.values_list(…, flat=True).distinct())).",
    )


def _extreme(choose: Callable[..., Any]) -> Callable[[Any], Recipe]:
    def make(expression: Any) -> Recipe:
        require_comparable(expression, f"{expression.name} of")

        def combine(parts: Parts) -> Any:
            return choose((part for (part,) in parts if part is not None), default=None)

        return Recipe((expression,), combine)

    return make


def _average(expression: Any) -> Recipe:
    if expression.distinct:
        _refuse_distinct("Avg")
    _require_number(expression)

    def combine(parts: Parts) -> Any:
        count = sum(part[1] for part in parts)
        total = _total(part[0] for part in parts)
        if not count:
            return None
        return total / count if isinstance(total, float) else divide(Decimal(total), count)

    return Recipe((_as(Sum, expression), _as(Count, expression)), combine)


def _spread(expression: Any) -> Recipe:
    """Variance and standard deviation, from each shard's count, mean and variance.

    After Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample
    variances" (1979): sums of squares would lose all digits where the mean is large.
    """
    _require_number(expression)
    sample = expression.function.endswith("_SAMP")
    root = isinstance(expression, StdDev)

    def combine(parts: Parts) -> Any:
        known = [tuple(map(Fraction, part)) for part in parts if part[0]]
        count = sum(n for n, _, _ in known)
        if count <= sample:
            return None
        mean = sum(n * m for n, m, _ in known) / count
        squares = sum(n * v + n * (m - mean) ** 2 for n, m, v in known)
        variance = float(squares / (count - sample))
        return math.sqrt(variance) if root else variance

    parts = (_as(Count, expression), _as(Avg, expression), _as(Variance, expression))
    return Recipe(parts, combine)


def _with_default(expression: Any, aliases: Sequence[str]) -> Recipe:
    aggregate, default = expression.get_source_expressions()
    if not isinstance(default, Value):
        refuse("default= with an expression", "Give a plain value, or replace None in Python.")
    inner = recipe(aggregate, aliases)

    def combine(parts: Parts) -> Any:
        value = inner.combine(parts)
        return default.value if value is None else value

    return Recipe(inner.parts, combine)


def _require_number(expression: Any) -> None:
    field = _sources(expression)[0][0]._output_field_or_none
    if field is None or field.get_internal_type() == "DurationField":
        refuse(
            f"{expression.name} of a duration or of a value of unknown type",
            "Ask for Sum and Count, and divide in Python.",
        )


def _total(values: Any) -> Any:
    known = [value for value in values if value is not None]
    return sum(known[1:], start=known[0]) if known else None


_RECIPES: dict[type, Callable[[Any], Recipe]] = {
    Count: _count,
    Sum: _sum,
    Min: _extreme(min),
    Max: _extreme(max),
    Avg: _average,
    Variance: _spread,
    StdDev: _spread,
}
