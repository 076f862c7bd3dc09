"""Shows the progress of a run: a bar on a terminal, plain lines elsewhere, and never a long silence.

The training loop only stores numbers; a daemon thread draws them, so the display stays alive during a long compiled
call. The time left is the run's own estimate; without one, it is computed from the recent rate.
"""

import contextlib
import dataclasses
import functools
import math
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple, Self, TextIO

from rich import progress as rich_progress
from rich.console import Console
from rich.text import Text

from mbpo_jax.driver.rate_window import RateWindow

LINES_PER_RUN = 20  # of plain output: each further 5% of the run gets a line, without waiting for the heartbeat


@dataclasses.dataclass(frozen=True)
class Pace:
    """When to draw, in seconds of `clock`."""

    heartbeat_s: float = 20.0  # longest silence of the plain output
    min_gap_s: float = 5.0  # shortest time between the last line printed and a plain status line
    window_s: float = 600.0  # wall time over which the rate is taken; longer than a fit and the steps until the next
    tick_s: float = 0.25  # between two redraws by the thread
    clock: Callable[[], float] = time.monotonic


DEFAULT_PACE = Pace()


class At(NamedTuple):
    """Where a run was at its latest update, and the clock's time then."""

    step: int
    phase: str
    clock: float
    detail: str = ""  # how far the phase is


class View(NamedTuple):
    """What the display shows at one moment."""

    step: int
    total: int
    phase: str
    rate: float | None  # environment steps per second
    elapsed_s: float
    left_s: float | None = None  # as the run estimates it; inf: it does not know yet
    detail: str = ""

    def work(self) -> str:
        """Returns the phase and, in parentheses, how far it is."""
        return f"{self.phase} ({self.detail})" if self.detail else self.phase

    def eta(self) -> str:
        """Returns the time left, as the run estimates it or at the current rate, as h:mm:ss; '-' while unknown."""
        left_s = 0.0 if self.step >= self.total else self.left_s
        if left_s is None and self.rate is not None:
            left_s = (self.total - self.step) / self.rate
        return "-" if left_s is None or math.isinf(left_s) else _hms(left_s)

    def speed(self) -> str:
        """Returns the rate with its unit: three significant digits below 100, whole numbers above."""
        if self.rate is None:
            return "- steps/s"
        return f"{self.rate:,.0f} steps/s" if self.rate >= 100.0 else f"{self.rate:.3g} steps/s"

    def percent(self) -> int:
        """Returns the percentage, rounded down: 100 means finished."""
        return 100 * self.step // self.total

    def line(self) -> str:
        """Returns the plain status line, without its newline."""
        return (
            f"step {self.step:,}/{self.total:,}  {self.percent()}%  {self.work()}  {self.speed()}"
            f"  elapsed {_hms(self.elapsed_s)}  ETA {self.eta()}"
        )


class Progress:
    """Shows the progress of one run on a stream, from entering the `with` block until leaving it.

    A stream that breaks (a terminal that went away) ends the display, never the run.
    """

    def __init__(
        self,
        total_steps: int,
        initial_step: int = 0,
        stream: TextIO | None = None,
        quiet: bool = False,
        pace: Pace = DEFAULT_PACE,
        seconds_left: Callable[[int], float | None] | None = None,
    ) -> None:
        """Prepares the display; draws nothing before the `with` block.

        Args:
          total_steps: real environment steps at the end of the run.
          initial_step: where a resumed run starts; earlier steps do not count towards the rate.
          stream: where to draw, standard error by default.
          quiet: draw nothing at all, notes included.
          pace: how often to draw.
          seconds_left: (step) -> seconds that the run expects to take from that step on; None: not known yet. If
            omitted, the recent rate is used instead.
        Raises:
          ValueError: `total_steps` is not positive or `initial_step` lies outside [0, total_steps].
        """
        if total_steps < 1 or not 0 <= initial_step <= total_steps:
            raise ValueError(f"progress needs 0 <= step <= total > 0, got {initial_step} of {total_steps}")
        self._total, self._pace, self._seconds_left = total_steps, pace, seconds_left
        self._at = At(initial_step, "start", 0.0)  # replaced whole: a reader never sees half an update
        self._phases: set[str] = set()
        self._num_phases = 0
        self._window = RateWindow(pace.window_s)
        self._started = pace.clock()
        self._stream = stream or sys.stderr
        shown = not quiet and self._stream is not None  # None: standard error was closed before this process began
        self._surface = _make_surface(self._stream, total_steps, pace) if shown else None
        self._broken = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Draws the first state and starts the drawing thread."""
        self._started = self._pace.clock()
        if self._surface is not None:
            self._guard(self._surface.open)
            self.poll()
            self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops the thread, draws the last state and restores the terminal; lets exceptions propagate."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5.0)
        self.poll(last=True)
        if self._surface is not None:
            self._guard(self._surface.close)
            self._surface = None

    def update(self, step: int, phase: str) -> None:
        """Stores where the run is; draws nothing, so calls are nearly free."""
        self._at = At(step, phase, self._pace.clock())
        self._phases.add(phase)

    def add_detail(self, text: str) -> None:
        """Stores how far the phase is, to be shown until the next update; an empty text changes nothing."""
        if text:
            self._at = self._at._replace(detail=text)

    def note(self, text: str) -> None:
        """Prints a separate line, above the bar where there is one."""
        if self._surface is not None and not self._broken:
            self._guard(self._surface.note, text)

    def warn(self, text: str) -> None:
        """Prints a separate line, even if the display is quiet."""
        if self._surface is not None:
            self.note(text)
        elif self._stream is not None:
            self._guard(functools.partial(print, file=self._stream, flush=True), f"mbpo_jax: {text}")

    def poll(self, last: bool = False) -> None:
        """Samples the rate and draws what is due; the thread calls this every `tick_s`."""
        view = self._view()
        if self._surface is not None and not self._broken:
            self._guard(self._surface.show, view, last)

    def _view(self) -> View:
        step, phase, since, detail = self._at
        now, num_phases = self._pace.clock(), len(self._phases)
        if num_phases != self._num_phases:  # a phase ran for the first time: the cost of a step has changed
            self._num_phases = num_phases
            self._window.restart()
        self._window.add(now, step)
        left_s = None if self._seconds_left is None else self._seconds_left(step)
        left_now = None if left_s is None else max(left_s - (now - since), 0.0)
        if self._seconds_left is not None and left_s is None:
            left_now = math.inf  # a rate from before the main work began would promise too much
        return View(step, self._total, phase, self._window.rate(), now - self._started, left_now, detail)

    def _watch(self) -> None:
        while not self._stop.wait(self._pace.tick_s):
            self.poll()

    def _guard(self, draw: Callable[..., None], *arguments: Any) -> None:
        try:
            draw(*arguments)
        except (OSError, ValueError):  # the stream hung up, is full or is closed; the run goes on
            self._broken = True


class _Lines:
    """Prints plain lines, for logs and pipes."""

    def __init__(self, stream: TextIO, pace: Pace) -> None:
        self._stream, self._pace = stream, pace
        self._lock = threading.Lock()
        self._printed_at: float | None = None
        self._shown = (-1, -1)  # step and twentieth of the run on the last status line

    def open(self) -> None:
        pass

    def show(self, view: View, last: bool) -> None:
        with self._lock:
            shown = (view.step, LINES_PER_RUN * view.step // view.total)
            if self._due(shown, last):
                self._shown = shown
                self._print(view.line())

    def note(self, text: str) -> None:
        with self._lock:
            self._print(text)

    def close(self) -> None:
        pass

    def _due(self, shown: tuple[int, int], last: bool) -> bool:
        if self._printed_at is None:
            return True
        silence = self._pace.clock() - self._printed_at
        moved = shown[1] > self._shown[1] or (last and shown != self._shown)
        return silence >= self._pace.heartbeat_s or (moved and silence >= self._pace.min_gap_s)

    def _print(self, text: str) -> None:
        self._printed_at = self._pace.clock()
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        self._stream.flush()


class _Bar:
    """Redraws a bar in place, for terminals."""

    def __init__(self, console: Console, total: int) -> None:
        self._bar = rich_progress.Progress(
            rich_progress.TextColumn("{task.fields[phase]:<12}", markup=False),
            rich_progress.BarColumn(bar_width=None),
            rich_progress.TextColumn("{task.fields[text]}", markup=False),
            console=console,
            auto_refresh=False,
            expand=True,
            redirect_stdout=sys.stdout is not None
            and sys.stdout.isatty(),  # output that goes to a file must stay in that file
            redirect_stderr=sys.stderr is not None and sys.stderr.isatty(),
        )
        self._task = self._bar.add_task("", total=total, phase="start", text="")

    def open(self) -> None:
        self._bar.start()

    def show(self, view: View, last: bool) -> None:
        del last
        text = f"{view.step:,}/{view.total:,} {view.percent()}%  {view.speed()}"
        text += f"  {_hms(view.elapsed_s)}  ETA {view.eta()}"
        self._bar.update(self._task, completed=view.step, phase=view.work(), text=text)
        self._bar.refresh()

    def note(self, text: str) -> None:
        self._bar.console.print(Text(text), soft_wrap=True)

    def close(self) -> None:
        self._bar.stop()


def _make_surface(stream: TextIO, total: int, pace: Pace) -> _Lines | _Bar:
    with contextlib.suppress(ValueError):  # a closed stream raises here; its first line ends the display
        if stream.isatty():  # checked first: FORCE_COLOR makes rich take a pipe for a terminal
            console = Console(file=stream)
            if console.is_interactive:  # false where TERM=dumb
                return _Bar(console, total)
    return _Lines(stream, pace)


def _hms(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
