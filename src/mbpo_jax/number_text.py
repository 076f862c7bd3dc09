"""Numbers in the lines that commands print, and in reports."""

import math


def short(value: float, beside: float | None = None) -> str:
    """Returns a number with one decimal; below 1, where that would hide it, with three significant digits.

    Args:
      beside: the number that decides instead, of which `value` is the deviation.
    """
    size = value if beside is None else beside
    return f"{value:.3g}" if math.isfinite(size) and 0.0 < abs(size) < 1.0 else f"{value:.1f}"


def whole(value: float) -> str:
    """Returns a number without decimals; below 10, where that would hide it, with two significant digits."""
    return f"{value:.2g}" if 0.0 < abs(value) < 9.95 else f"{value:.0f}"
