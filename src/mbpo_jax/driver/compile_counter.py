"""Counts XLA's compilations, so that a run can show that each of its functions compiles once."""

import threading

import jax.monitoring

EVENT = "/jax/core/compile/backend_compile_duration"


class _Totals:
    """Compilations of this process since the listener was registered."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._registered = False
        self._count, self._seconds = 0, 0.0

    def register(self) -> None:
        with self._lock:
            if not self._registered:
                jax.monitoring.register_event_duration_secs_listener(self._on_event)
                self._registered = True

    def read(self) -> tuple[int, float]:
        with self._lock:
            return self._count, self._seconds

    def _on_event(self, event: str, duration_secs: float, **labels: str | int) -> None:
        del labels
        if event == EVENT:
            with self._lock:
                self._count += 1
                self._seconds += duration_secs


_TOTALS = _Totals()  # jax keeps its listeners per process, so their sum lives per process too


class CompileCounter:
    """Backend compilations of this process, in any thread, since this counter was constructed.

    A program fetched from jax's persistent cache counts too, with the seconds that fetching it took: a function that
    is traced twice must not hide behind a warm cache.
    """

    def __init__(self) -> None:
        _TOTALS.register()
        self._start_count, self._start_seconds = _TOTALS.read()

    @property
    def count(self) -> int:
        """Returns how many programs have been compiled so far."""
        return _TOTALS.read()[0] - self._start_count

    @property
    def seconds(self) -> float:
        """Returns the seconds spent in these compilations, without tracing and lowering."""
        return _TOTALS.read()[1] - self._start_seconds
