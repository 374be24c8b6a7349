"""PostgreSQL's division of numerics, digit for digit. Pure."""

from decimal import ROUND_HALF_UP, Context, Decimal

__all__ = ["divide"]

_BASE_DIGITS = 4  # PostgreSQL keeps numerics in base 10,000
_SIGNIFICANT_DIGITS = 16
_LARGEST_SCALE = 1000


def divide(dividend: Decimal, divisor: int) -> Decimal:
    """Return dividend / divisor with the scale and the rounding that PostgreSQL gives it.

    The rule is that of select_div_scale() in PostgreSQL's numeric.c: at least 16 significant
    digits, and no fewer decimal places than the dividend has.
    """
    weight, first = _leading(abs(dividend))
    divisor_weight, divisor_first = _leading(Decimal(divisor))
    quotient_weight = weight - divisor_weight - (first <= divisor_first)
    scale = max(_SIGNIFICANT_DIGITS - quotient_weight * _BASE_DIGITS, _scale(dividend), 0)
    context = Context(prec=_LARGEST_SCALE + 200)
    quotient = context.divide(dividend, Decimal(divisor))
    unit = Decimal(1).scaleb(-min(scale, _LARGEST_SCALE))
    return quotient.quantize(unit, rounding=ROUND_HALF_UP, context=context)


def _leading(value: Decimal) -> tuple[int, int]:
    """The weight and the value of the first base-10,000 digit that is not zero."""
    if not value:
        return 0, 0
    weight = value.adjusted() // _BASE_DIGITS
    return weight, int(value.scaleb(-weight * _BASE_DIGITS))


def _scale(value: Decimal) -> int:
    exponent = value.as_tuple().exponent
    return -exponent if isinstance(exponent, int) and exponent < 0 else 0
