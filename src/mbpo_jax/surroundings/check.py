"""The result of checking one part of the surroundings."""

import dataclasses
from collections.abc import Callable


@dataclasses.dataclass
class Check:
    """What was found out about one part, as lines, and what would go wrong there."""

    title: str
    lines: list[str] = dataclasses.field(default_factory=list)
    fails: list[str] = dataclasses.field(default_factory=list)  # what would fail
    slow: list[str] = dataclasses.field(default_factory=list)  # what would be slow
    lacks: list[str] = dataclasses.field(default_factory=list)  # what would not be available, though runs work


def guarded(title: str, fill: Callable[[Check], None]) -> Check:
    """Returns the check that `fill` fills; if it raises, in unusual surroundings, the error becomes a line."""
    check = Check(title)
    try:
        fill(check)
    except Exception as error:
        check.lines.append(f"could not be checked ({type(error).__name__}: {' '.join(str(error).split())})")
    return check


def size(num_bytes: float) -> str:
    """Returns a number of bytes as text."""
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.0f} MB"
