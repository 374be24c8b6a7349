"""The arithmetic of numerics, against the server's own."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from django.db import connection
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from sharding.orm.numeric import add, divide, square_root, variance
from tests.sharding.orm import examples


@st.composite
def numerics(draw: Callable[..., Any]) -> Decimal:
    """Numbers of a few or of many digits, trailing zeros included, and now and then none."""
    if draw(st.integers(0, 30)) == 30:
        return Decimal(draw(st.sampled_from(["NaN", "Infinity", "-Infinity"])))
    digits = draw(st.one_of(st.integers(0, 99_999), st.integers(0, 10**40)))
    scale = draw(st.integers(0, 40))
    return Decimal((draw(st.integers(0, 1)), tuple(map(int, str(digits))), -scale))


def server(sql: str, *params: Any) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {sql}", params)
        (value,) = cursor.fetchone()
    return value


class NumericTests(TestCase):
    def assertDigits(self, number: Decimal | None, expected: Decimal | None) -> None:
        self.assertEqual(str(number), str(expected))

    @examples(300)
    @given(numerics(), st.integers(1, 10**20))
    def test_divide(self, dividend: Decimal, divisor: int) -> None:
        expected = server("%s::numeric / %s::numeric", dividend, divisor)
        self.assertDigits(divide(dividend, divisor), expected)

    @examples(100)
    @given(st.lists(numerics(), min_size=1))
    def test_add(self, values: list[Decimal]) -> None:
        self.assertDigits(add(values), server("sum(x) FROM unnest(%s::numeric[]) x", values))

    @examples(200)
    @given(st.lists(numerics(), min_size=2), st.booleans())
    def test_variance(self, values: list[Decimal], sample: bool) -> None:
        suffix = "samp" if sample else "pop"
        sums = "count(x), sum(x), sum(x * x)"
        query = f"ARRAY[var_{suffix}(x), stddev_{suffix}(x), {sums}] FROM unnest(%s::numeric[]) x"
        spread, deviation, count, total, squares = server(query, values)
        computed = variance(int(count), total, squares, sample=sample)
        self.assertDigits(computed, spread)
        self.assertDigits(square_root(computed), deviation)
