"""How long a run will still take: what is left to do, by kind of work, times what each kind has taken lately."""

from collections.abc import Callable, Collection, Mapping

MEMORY = 20  # about how many of the newest samples of a kind its mean covers


class TimeLeft:
    """Mean seconds by kind of work.

    The first sample of a kind includes its compilation, so it counts only until there is a second.
    """

    def __init__(self, num_left: Mapping[str, Callable[[int], int]], minor: Collection[str] = ()) -> None:
        """Stores what is to be done; no kind of work has been timed yet.

        Args:
          num_left: by kind, (step) -> how often it will still be done after that environment step.
          minor: kinds that take little time; they count as nothing until they have been timed.
        """
        self._num_left, self._minor = dict(num_left), frozenset(minor)
        self._mean: dict[str, float] = {}
        self._num_samples: dict[str, int] = {}

    def add(self, kind: str, seconds: float) -> None:
        """Stores that a kind of work was done once, and how many seconds it took."""
        count = self._num_samples.get(kind, 0)
        weight = 1.0 if count < 2 else max(1.0 / count, 1.0 / MEMORY)
        before = self._mean.get(kind, 0.0)
        self._mean[kind] = before + weight * (seconds - before)
        self._num_samples[kind] = count + 1

    def seconds(self, step: int) -> float | None:
        """Returns the seconds that are left after an environment step; None while a main kind has not been timed."""
        total = 0.0
        for kind, num_left in self._num_left.items():
            count = num_left(step)
            if count and kind not in self._mean and kind not in self._minor:
                return None
            total += count * self._mean.get(kind, 0.0)
        return total
