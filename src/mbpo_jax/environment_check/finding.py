"""The findings of a check, one line each."""

from collections.abc import Sequence
from typing import NamedTuple


class Finding(NamedTuple):
    """What was found, and what to do about it, in one line."""

    matters: bool  # whether a run would fail or learn something wrong
    text: str


def problem(found: str, advice: str) -> Finding:
    """Returns a finding that matters."""
    return Finding(True, f"{found}: {advice}")


def note(text: str) -> Finding:
    """Returns a finding that is only worth knowing."""
    return Finding(False, text)


def numbers(indices: Sequence[int]) -> str:
    """Returns indices as text: `0, 3 to 7, 9`."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and index == runs[-1][-1] + 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def one_line(error: BaseException) -> str:
    """Returns an error as `Type: message`, cut if it is long."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
    return text if len(text) < 200 else f"{text[:200]}..."
