"""What a look at one part of the surroundings gives."""

import dataclasses
from collections.abc import Callable


@dataclasses.dataclass
class Look:
    """Lines about one part, and in words what would go wrong."""

    title: str
    lines: list[str] = dataclasses.field(default_factory=list)
    fails: list[str] = dataclasses.field(default_factory=list)  # what would fail
    slow: list[str] = dataclasses.field(default_factory=list)  # what would be slow
    lacks: list[str] = dataclasses.field(default_factory=list)  # what would not be there, though runs go on


def guarded(title: str, fill: Callable[[Look], None]) -> Look:
    """Returns a look; one line of what `fill` raises, whatever it is, where the surroundings are that odd."""
    look = Look(title)
    try:
        fill(look)
    except Exception as error:
        look.lines.append(f"could not be looked at ({type(error).__name__}: {' '.join(str(error).split())})")
    return look


def size(num_bytes: float) -> str:
    """Returns a number of bytes as a text."""
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.0f} MB"
