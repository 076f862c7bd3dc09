"""Numbers in the lines that commands print."""

import math


def short(value: float) -> str:
    """Returns a number with one decimal; below 1, where that would hide it, with three significant digits."""
    hidden = math.isfinite(value) and 0.0 < abs(value) < 1.0
    return f"{value:.3g}" if hidden else f"{value:.1f}"
