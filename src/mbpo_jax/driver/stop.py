"""Stops on request: the first SIGINT, SIGTERM or SIGHUP asks, a second SIGINT or a second SIGTERM ends the process.

A closing terminal may send several SIGHUPs; under nohup they are ignored.

Signals do not interrupt anything, because an exception can crash a compiler or an extension that is being imported.
Long work reads `requested`, or calls `raise_if_stopped`, wherever it can stop.
"""

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Self

EXIT_STOPPED = 3  # exit status of a command that was stopped


_OPEN: list["StopRequest"] = []  # the innermost one last


class StopRequest:
    """A context in which the signals set `requested`; an inner one begins with the outer one's `requested`.

    It applies to this process only. A process forked from it, by an environment for example, gets the previous
    handlers.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # handlers can only be set there
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                    continue
                self._previous[number] = signal.signal(number, self._on_signal)
            _OPEN.append(self)
        outer = [getattr(handler, "__self__", None) for handler in self._previous.values()]
        self.requested = any(isinstance(other, StopRequest) and other.requested for other in outer)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self in _OPEN:
            _OPEN.remove(self)
        self._put_back()

    def raise_if_stopped(self) -> None:
        """Raises KeyboardInterrupt if a stop was requested; for use while there is nothing to save yet."""
        if self.requested:
            raise KeyboardInterrupt

    def _put_back(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.requested = True
        if number != signal.SIGHUP:
            signal.signal(number, signal.SIG_DFL)


def _leave_in_child() -> None:
    """Removes the handlers in a forked child, which a single SIGTERM could not end otherwise."""
    while _OPEN:
        _OPEN.pop()._put_back()


os.register_at_fork(after_in_child=_leave_in_child)
