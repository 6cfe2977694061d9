"""Numbers as the page prints them: a real minus sign, fixed digits, and a dash for what does not exist."""

import math
from collections.abc import Sequence

NONE = "\u2013"
NBSP = "\u00a0"
_SUPERSCRIPT = str.maketrans("-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")


def number(value: float | None, digits: int = 3, *, sign: bool = False) -> str:
    """Print `value` with `digits` decimals; zero never carries a sign."""
    if value is None:
        return NONE
    text = f"{value:+,.{digits}f}" if sign else f"{value:,.{digits}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "\u2212")


def signed(value: float | None) -> str:
    """Print a number of any size, signed, with three digits: ``+0.0123``."""
    return NONE if value is None else f"{value:+.3g}".replace("-", "\u2212") if value else "0"


def share(value: float | None) -> str:
    """Print a rate in [0, 1] as percent, for example ``61.2 %``."""
    return NONE if value is None else f"{number(100 * value, 1)}{NBSP}%"


def points(value: float | None) -> str:
    """Print a difference of two rates in percentage points, signed."""
    return NONE if value is None else number(100 * value, 1, sign=True)


def change(value: float | None, *, fine: bool = False) -> str:
    """Print a difference in percentage points, signed; `fine` keeps three digits of a change per unit of score."""
    if value is None or not fine or value == 0:
        return points(value)
    size = math.floor(math.log10(abs(100 * value)))
    return number(100 * value, min(max(2 - size, 0), 12), sign=True)


def change_interval(bounds: Sequence[float | None] | None, *, fine: bool = False) -> str:
    """Print the interval of `change`."""
    if not fine or bounds is None or len(bounds) != 2 or bounds[0] is None or bounds[1] is None:
        return interval(bounds, 100, 1)
    low, high = (change(bound, fine=True).removeprefix("+") for bound in bounds)
    return f"[{low}, {high}]"


def percent(value: float | None) -> str:
    """Print an effect in percent. An exact zero is ``0 %``; what only rounds to zero is ``0.0 %``."""
    return NONE if value is None else f"{_percent_digits(value)}{NBSP}%"


def _percent_digits(value: float) -> str:
    if value == 0:
        return "0"
    if abs(value) < 0.05:
        return "0.0"
    return number(value, 0 if abs(value) >= 9.95 else 1)


def interval(bounds: Sequence[float | None] | None, scale: float = 1.0, digits: int | None = None) -> str:
    """Print ``[low, high]``; one decimal where the bounds are small, unless `digits` says otherwise."""
    if bounds is None or len(bounds) != 2 or bounds[0] is None or bounds[1] is None:
        return "[no interval]"
    low, high = bounds[0] * scale, bounds[1] * scale
    if digits is None:
        digits = 0 if max(abs(low), abs(high)) >= 9.95 or low == high == 0 else 1
    return f"[{number(low, digits)}, {number(high, digits)}]"


def chance(value: float | None) -> str:
    """Print a p or q value: decimals down to 0.001, below that a power of ten."""
    if value is None:
        return NONE
    if value >= 0.001:
        return f"{value:.3f}"
    if value < 1e-300:
        return "under 10\u207b\u00b3\u2070\u2070"
    exponent = math.floor(math.log10(value))
    mantissa = f"{value / 10.0**exponent:.1f}"
    if mantissa == "10.0":
        mantissa, exponent = "1.0", exponent + 1
    return f"{mantissa}\u00b710{str(exponent).translate(_SUPERSCRIPT)}"


def nats(value: float) -> str:
    """Print a divergence: two digits, below 0.001 a power of ten."""
    if abs(value) < 0.001:
        return chance(value) if value > 0 else "0" if value == 0 else number(value, 3)
    return f"{value:.2g}".replace("-", "\u2212")


def count(value: int, noun: str, plural: str | None = None) -> str:
    """Print ``1 expert``, ``1,024 experts``."""
    return f"{value:,}{NBSP}{noun if value == 1 else plural or noun + 's'}"
