"""Stopping on request: the first SIGINT, SIGTERM or SIGHUP asks, a second SIGINT or SIGTERM ends the process at once.

A terminal that closes may send several SIGHUPs; under nohup they are ignored, as ever.

Nothing is interrupted: an exception in the middle of a compiler, or of an extension that is being imported, crashes
some of them. What takes long asks `requested`, or calls `raise_if_stopped`, wherever it could stop.
"""

import signal
import threading
from types import FrameType, TracebackType
from typing import Self

EXIT_STOPPED = 3  # status of a command that was stopped


class StopRequest:
    """A context in which the signals set `requested`. One inside another begins with what the outer one was asked."""

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # only there can handlers be set
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                    continue
                self._previous[number] = signal.signal(number, self._on_signal)
        outer = [getattr(handler, "__self__", None) for handler in self._previous.values()]
        self.requested = any(isinstance(other, StopRequest) and other.requested for other in outer)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def raise_if_stopped(self) -> None:
        """Raises KeyboardInterrupt if a stop was requested: for what has not begun yet."""
        if self.requested:
            raise KeyboardInterrupt

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.requested = True
        if number != signal.SIGHUP:
            signal.signal(number, signal.SIG_DFL)
