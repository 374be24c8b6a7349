"""Aggregates over several shards: what each shard computes, and how the parts become one value."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from itertools import chain
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db.models import (
    Aggregate,
    Avg,
    Count,
    DecimalField,
    Func,
    Max,
    Min,
    StdDev,
    Sum,
    Value,
    Variance,
)
from django.db.models.expressions import BaseExpression, CombinedExpression
from django.db.models.functions import Coalesce

from sharding.backend.compiler import SQLCompiler
from sharding.orm.comparing import is_text, orders_by_code_point, require_comparable
from sharding.orm.keys import is_key
from sharding.orm.merge import sortable
from sharding.orm.numeric import add, divide, square_root, variance
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


def _as(kind: Callable[..., Aggregate], expression: Any, *of: BaseExpression) -> Aggregate:
    """Another aggregation under the same filter, by default of the same values."""
    sources, condition = _sources(expression)
    return kind(*(of or sources), filter=condition)


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
            known = (part for (part,) in parts if part is not None)
            return choose(known, key=sortable, default=None)

        return Recipe((expression,), combine)

    return make


def _average(expression: Any) -> Recipe:
    if expression.distinct:
        _refuse_distinct("Avg")
    _number_kind(expression)

    def combine(parts: Parts) -> Any:
        count = sum(part[1] for part in parts)
        total = _total(part[0] for part in parts)
        if not count:
            return None
        return total / count if isinstance(total, float) else divide(Decimal(total), count)

    return Recipe((_as(Sum, expression), _as(Count, expression)), combine)


def _spread(expression: Any) -> Recipe:
    """Variance and standard deviation."""
    inexact = _number_kind(expression) == "FloatField"
    return _float_spread(expression) if inexact else _exact_spread(expression)


def _exact_spread(expression: Any) -> Recipe:
    sample = expression.function.endswith("_SAMP")
    root = isinstance(expression, StdDev)
    (source,), _ = _sources(expression)
    # The square of an integer may be too large for one. A Cast would want to know how many digits.
    number = Func(source, template="(%(expressions)s)::numeric", output_field=DecimalField())
    square = CombinedExpression(number, "*", number, output_field=DecimalField())

    def combine(parts: Parts) -> Any:
        count = sum(part[0] for part in parts)
        if count <= sample:
            return None
        total, squares = (add(part[at] for part in parts if part[0]) for at in (1, 2))
        spread = variance(count, total, squares, sample=sample)
        return square_root(spread) if root else spread

    sums = (_as(Sum, expression, number), _as(Sum, expression, square))
    return Recipe((_as(Count, expression), *sums), combine)


def _float_spread(expression: Any) -> Recipe:
    """From each shard's count, mean and variance: sums of squares would lose all digits where the
    mean is large.

    After Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample
    variances" (1979).
    """
    sample = expression.function.endswith("_SAMP")
    root = isinstance(expression, StdDev)

    def combine(parts: Parts) -> Any:
        known = [part for part in parts if part[0]]
        count = sum(n for n, _, _ in known)
        if count <= sample:
            return None
        if not all(map(math.isfinite, chain(*known))):
            return math.nan
        mean = sum(n * Fraction(m) for n, m, _ in known) / count
        squares = sum(n * Fraction(v) + n * (Fraction(m) - mean) ** 2 for n, m, v in known)
        spread = float(squares / (count - sample))
        return math.sqrt(spread) if root else spread

    parts = (_as(Count, expression), _as(Avg, expression), _as(Variance, expression))
    return Recipe(parts, combine)


def _with_default(expression: Any, aliases: Sequence[str]) -> Recipe:
    aggregate, *defaults = expression.get_source_expressions()
    if len(defaults) != 1 or not isinstance(defaults[0], Value):
        refuse("default= with an expression", "Give a plain value, or replace None in Python.")
    inner = recipe(aggregate, aliases)
    default = expression.output_field.to_python(defaults[0].value)

    def combine(parts: Parts) -> Any:
        value = inner.combine(parts)
        return default if value is None else value

    return Recipe(inner.parts, combine)


def _number_kind(expression: Any) -> str:
    field = _sources(expression)[0][0]._output_field_or_none
    if field is None or field.get_internal_type() == "DurationField":
        refuse(
            f"{expression.name} of a duration or of a value of unknown type",
            "Ask for Sum and Count, and divide in Python.",
        )
    return field.get_internal_type()


def _total(values: Any) -> Any:
    known = [value for value in values if value is not None]
    if any(isinstance(value, Decimal) for value in known):
        return add(known)
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
