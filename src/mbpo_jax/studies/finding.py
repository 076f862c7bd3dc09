"""What a study leaves behind."""

from typing import Any, NamedTuple

from matplotlib.figure import Figure


class Finding(NamedTuple):
    """A sentence, the numbers behind it, and their picture."""

    sentence: str
    numbers: dict[str, Any]  # JSON
    figure: Figure
