"""PostgreSQL's arithmetic of numerics, digit for digit. Pure."""

from collections.abc import Iterable
from decimal import Context, Decimal
from fractions import Fraction
from math import isqrt

__all__ = ["NAN", "add", "divide", "square_root", "variance"]

NAN = Decimal("NaN")

_BASE_DIGITS = 4  # PostgreSQL keeps numerics in base 10,000
_SIGNIFICANT_DIGITS = 16
_LARGEST_SCALE = 1000
# All the digits that a numeric can have; and like PostgreSQL it answers NaN instead of an error.
_EXACT = Context(prec=150_000, traps=[])


def add(values: Iterable[Decimal]) -> Decimal:
    """Return the sum, without Python's rounding to 28 digits."""
    total = Decimal(0)
    for value in values:
        total = _EXACT.add(total, value)
    return total


def divide(dividend: Decimal, divisor: int) -> Decimal:
    """Return dividend / divisor with the scale and the rounding that PostgreSQL gives it.

    The rule is that of select_div_scale() in PostgreSQL's numeric.c: at least 16 significant
    digits, and no fewer decimal places than the dividend has.
    """
    if not dividend.is_finite():
        return dividend
    weight, first = _leading(abs(dividend))
    divisor_weight, divisor_first = _leading(Decimal(divisor))
    quotient_weight = weight - divisor_weight - (first <= divisor_first)
    scale = max(_SIGNIFICANT_DIGITS - quotient_weight * _BASE_DIGITS, _scale(dividend), 0)
    return _rounded(Fraction(dividend) / divisor, min(scale, _LARGEST_SCALE))


def variance(count: int, total: Decimal, squares: Decimal, *, sample: bool) -> Decimal:
    """Return the variance of `count` values, more than `sample`, from their sum and its squares'.

    As numeric_stddev_internal() in numeric.c computes it.
    """
    if not (total.is_finite() and squares.is_finite()):
        return NAN
    spread = _EXACT.subtract(_EXACT.multiply(count, squares), _EXACT.multiply(total, total))
    return divide(spread, count * (count - sample)) if spread > 0 else Decimal(0)


def square_root(value: Decimal) -> Decimal:
    """Return the square root with as many decimal places as the value has."""
    if not value.is_finite():
        return value
    scale = _scale(value)
    root = isqrt(int(value.scaleb(2 * scale + 2, _EXACT)))  # one digit more, to round by
    return Decimal((root + 5) // 10).scaleb(-scale, _EXACT)


def _rounded(value: Fraction, scale: int) -> Decimal:
    """Round half away from zero, to so many decimal places."""
    scaled = abs(value) * 10**scale
    digits = (2 * scaled.numerator + scaled.denominator) // (2 * scaled.denominator)
    return Decimal(-digits if value < 0 else digits).scaleb(-scale, _EXACT)


def _leading(value: Decimal) -> tuple[int, int]:
    """The weight and the value of the first base-10,000 digit that is not zero."""
    if not value:
        return 0, 0
    weight = value.adjusted() // _BASE_DIGITS
    return weight, int(value.scaleb(-weight * _BASE_DIGITS, _EXACT))


def _scale(value: Decimal) -> int:
    exponent = value.as_tuple().exponent
    return -exponent if isinstance(exponent, int) and exponent < 0 else 0
