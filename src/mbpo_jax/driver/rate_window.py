"""The speed of a run, over its recent wall time."""

from collections import deque


class RateWindow:
    """Environment steps per second over the last `window_s` seconds of wall time."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._samples: deque[tuple[float, int]] = deque()

    def restart(self) -> None:
        """Forgets all samples; called when the cost of a step changes."""
        self._samples.clear()

    def add(self, now: float, step: int) -> None:
        """Stores a sample and drops those that have left the window.

        A stretch without a step (a long fit) keeps the samples before it; the rate would be zero otherwise.
        """
        samples = self._samples
        samples.append((now, step))
        while len(samples) > 2 and samples[1][0] <= now - self._window_s and samples[1][1] < step:
            samples.popleft()

    def rate(self) -> float | None:
        """Returns steps per second; None while the window has no step."""
        if len(self._samples) < 2:
            return None
        (start, first), (end, last) = self._samples[0], self._samples[-1]
        return (last - first) / (end - start) if end > start and last > first else None
