"""The result of a study."""

from typing import Any, NamedTuple

from matplotlib.figure import Figure


class Finding(NamedTuple):
    """A sentence, the numbers behind it, and a figure of the numbers."""

    sentence: str
    numbers: dict[str, Any]  # JSON
    figure: Figure
