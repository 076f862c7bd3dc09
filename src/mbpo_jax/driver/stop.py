"""Stopping on request: the first SIGINT or SIGTERM asks, a second one ends the process at once."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Self


class StopRequest:
    """A context in which the signals set `requested` instead of interrupting what runs."""

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # only there can handlers be set
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._on_signal)
            # The command's own handler may have been asked while something swallowed its exception.
            self.requested = any(getattr(handler, "asked", False) for handler in self._previous.values())
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.requested = True
        signal.signal(number, signal.SIG_DFL)
