import io
import re
import sys
import threading
import time
import timeit

import pytest

from mbpo_jax.driver.progress import Pace, Progress, View
from mbpo_jax.driver.rate_window import RateWindow


class Clock:
    """A clock that the test moves; with `tick_s` long, no thread interferes."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.fixture
def clock():
    return Clock()


def on(clock, **kwargs):
    return Pace(clock=clock, tick_s=3600.0, **kwargs)


def advance(progress, clock, seconds, step, phase):
    """The run reaches `step` evenly over `seconds`, polled every second."""
    start = progress._at.step
    for second in range(1, seconds + 1):
        clock.now += 1.0
        progress.update(start + (step - start) * second // seconds, phase)
        progress.poll()


def test_a_status_line_reads_as_documented():
    view = View(step=5250, total=20000, phase="fit_model", rate=12.3, elapsed_s=80.9)
    expected = "step 5,250/20,000  26%  fit_model  12.3 steps/s  elapsed 0:01:20  ETA 0:19:59"
    assert view.line() == expected  # 14750 / 12.3 = 1199.2 s
    assert "  fit_model (epoch 3)  12.3 steps/s" in view._replace(detail="epoch 3").line()
    assert view._replace(rate=None).line().endswith("- steps/s  elapsed 0:01:20  ETA -")
    assert view._replace(step=20000, rate=None).line().endswith("ETA 0:00:00")
    assert view._replace(step=19999).percent() == 99
    assert view._replace(rate=1234.5).speed() == "1,234 steps/s"


def test_the_time_left_is_what_the_run_says_and_falls_while_nothing_new_is_said(clock):
    stream = io.StringIO()
    with Progress(1000, stream=stream, pace=on(clock), seconds_left={0: None, 500: 120.0}.get) as progress:
        progress.update(500, "fit_model")
        clock.now += 20.0
        progress.poll()
        assert stream.getvalue().splitlines()[-1].endswith("ETA 0:01:40")
        progress.add_detail("epoch 1")
        progress.add_detail("")
        clock.now += 20.0
        progress.poll()
        assert re.search(r"fit_model \(epoch 1\) .* ETA 0:01:20$", stream.getvalue().splitlines()[-1])
        progress.update(500, "act")
        clock.now += 20.0
        progress.poll()
        assert "  act  " in stream.getvalue().splitlines()[-1]
        clock.now += 1000.0
        progress.poll()
        assert stream.getvalue().splitlines()[-1].endswith("ETA 0:00:00")


def test_a_run_that_does_not_know_yet_promises_nothing(clock):
    stream = io.StringIO()
    with Progress(1000, stream=stream, pace=on(clock), seconds_left=lambda step: None) as progress:
        advance(progress, clock, 20, 500, "explore")
    assert stream.getvalue().splitlines()[-1].endswith("25 steps/s  elapsed 0:00:20  ETA -")


def test_the_rate_forgets_what_left_the_window():
    window = RateWindow(10.0)
    for second in range(5):
        window.add(float(second), 1000 * second)
    assert window.rate() == 1000.0
    for second in range(5, 30):
        window.add(float(second), 4000 + 2 * second)
    assert window.rate() == pytest.approx(2.0)


def test_a_long_fit_slows_the_rate_but_does_not_stop_it():
    window = RateWindow(10.0)
    window.add(0.0, 0)
    window.add(1.0, 100)
    for second in range(2, 51):
        window.add(float(second), 100)
    assert window.rate() == pytest.approx(2.0)  # 100 steps in 50 s
    window.restart()
    assert window.rate() is None


def test_eta_comes_from_training_steps_not_from_exploration(clock):
    stream = io.StringIO()
    with Progress(20_000, stream=stream, pace=on(clock)) as progress:
        advance(progress, clock, 5, 5000, "explore")
        advance(progress, clock, 20, 5200, "update_agent")
    last = stream.getvalue().splitlines()[-1]
    assert "update_agent  10 steps/s" in last
    assert last.endswith("elapsed 0:00:25  ETA 0:24:40")  # 14800 steps at 10 a second, not at 208


def test_eta_is_unknown_before_the_first_step_and_a_resumed_step_is_no_speed(clock):
    stream = io.StringIO()
    with Progress(1000, initial_step=900, stream=stream, pace=on(clock)) as progress:
        advance(progress, clock, 20, 900, "compile")
    first, second = stream.getvalue().splitlines()
    assert first == "step 900/1,000  90%  start  - steps/s  elapsed 0:00:00  ETA -"
    assert second == "step 900/1,000  90%  compile  - steps/s  elapsed 0:00:20  ETA -"


def times_of(lines):
    stamps = [re.search(r"elapsed (\d+):(\d+):(\d+)", line) for line in lines]
    return [3600 * int(s[1]) + 60 * int(s[2]) + int(s[3]) for s in stamps if s]


def test_plain_lines_come_every_heartbeat_while_nothing_moves(clock):
    stream = io.StringIO()
    with Progress(10, stream=stream, pace=on(clock)) as progress:
        advance(progress, clock, 65, 0, "compile")
    assert times_of(stream.getvalue().splitlines()) == [0, 20, 40, 60]


def test_plain_lines_keep_their_distance_however_fast_the_run(clock):
    stream = io.StringIO()
    with Progress(1000, stream=stream, pace=on(clock)) as progress:
        advance(progress, clock, 23, 1000, "explore")
    assert times_of(stream.getvalue().splitlines()) == [0, 5, 10, 15, 20]


def test_the_last_line_says_where_the_run_ended(clock):
    stream = io.StringIO()
    with Progress(100_000, stream=stream, pace=on(clock)) as progress:
        advance(progress, clock, 9, 1234, "explore")
    assert stream.getvalue().splitlines()[-1].startswith("step 1,234/100,000  1%")


def test_a_note_is_printed_at_once_and_counts_as_sound(clock):
    stream = io.StringIO()
    with Progress(10, stream=stream, pace=on(clock)) as progress:
        advance(progress, clock, 15, 0, "fit_model")
        progress.note("step 0: return 12.5 [ok] ±1")
        advance(progress, clock, 19, 0, "fit_model")
        assert stream.getvalue().splitlines()[1:] == ["step 0: return 12.5 [ok] ±1"]
        advance(progress, clock, 1, 0, "fit_model")
        assert len(stream.getvalue().splitlines()) == 3


def test_the_heartbeat_beats_while_the_main_thread_is_blocked():
    stream = io.StringIO()
    pace = Pace(heartbeat_s=0.1, min_gap_s=0.02, tick_s=0.01)
    with Progress(100, stream=stream, pace=pace) as progress:
        progress.update(40, "compile")
        time.sleep(0.6)  # one long compiled call
        lines = stream.getvalue().splitlines()
    assert 3 <= len([line for line in lines if "40/100  40%  compile" in line]) <= 10


def test_leaving_stops_the_thread_also_after_an_exception():
    before = set(threading.enumerate())
    progress = Progress(100, stream=io.StringIO())
    progress.__enter__()
    (thread,) = set(threading.enumerate()) - before
    assert thread.daemon
    progress.__exit__(KeyError, KeyError(), None)
    assert not thread.is_alive()


def test_quiet_prints_nothing_and_starts_no_thread(capsys):
    before = threading.active_count()
    with Progress(100, quiet=True) as progress:
        assert threading.active_count() == before
        progress.update(50, "explore")
        progress.note("hello")
        progress.poll(last=True)
    assert capsys.readouterr() == ("", "")


def test_the_default_stream_is_standard_error(capsys):
    with Progress(100) as progress:
        progress.note("hello")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == ["step 0/100  0%  start  - steps/s  elapsed 0:00:00  ETA -", "hello"]


def test_an_update_is_cheap():
    with Progress(100, quiet=True) as progress:
        best = min(timeit.repeat(lambda: progress.update(5, "explore"), number=2000, repeat=20)) / 2000
    assert best < 3e-6


@pytest.mark.parametrize(("total", "initial"), [(0, 0), (10, 11), (10, -1)])
def test_steps_that_make_no_sense_are_refused(total, initial):
    with pytest.raises(ValueError, match=f"got {initial} of {total}"):
        Progress(total, initial)


def test_a_stream_that_breaks_does_not_break_the_run(clock):
    stream = io.StringIO()
    with Progress(100, stream=stream, pace=on(clock, heartbeat_s=1.0)) as progress:
        stream.close()
        advance(progress, clock, 3, 50, "explore")
        progress.note("unheard")
    assert progress._at[:2] == (50, "explore")


def test_a_note_survives_an_encoding_that_lacks_its_letters():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    with Progress(100, stream=stream) as progress:
        progress.note("1 ± 2")
    assert raw.getvalue().splitlines()[-1] == b"1 \\xb1 2"


@pytest.fixture
def terminal(monkeypatch):
    for name in ("TTY_COMPATIBLE", "TTY_INTERACTIVE", "FORCE_COLOR", "NO_COLOR", "JUPYTER_COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    return Terminal()


def text_of(terminal):
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue())


def test_a_terminal_gets_a_bar_with_all_numbers_and_notes_above_it(terminal, clock):
    with Progress(20_000, 5000, stream=terminal, pace=on(clock)) as progress:
        advance(progress, clock, 20, 5200, "update_agent")
        progress.note("return 12 [bold]")
    rows = [row.split() for row in re.split(r"[\r\n]+", text_of(terminal)) if "update_agent" in row]
    assert [rows[-1][0], *rows[-1][2:]] == [
        "update_agent",
        "5,200/20,000",
        "26%",
        "10",
        "steps/s",
        "0:00:20",
        "ETA",
        "0:24:40",
    ]
    assert text_of(terminal).count("return 12 [bold]\n") == 1


def test_the_terminal_is_clean_after_an_exception(terminal):
    stdout, stderr = sys.stdout, sys.stderr
    with pytest.raises(KeyError), Progress(100, stream=terminal):
        raise KeyError
    assert terminal.getvalue().rindex("\x1b[?25h") > terminal.getvalue().rindex("\x1b[?25l")  # the cursor is back
    assert terminal.getvalue().replace("\x1b[?25h", "").endswith("\n")
    assert (sys.stdout, sys.stderr) == (stdout, stderr)


def test_the_bar_moves_while_the_main_thread_is_blocked(terminal):
    with Progress(100, stream=terminal, pace=Pace(tick_s=0.02)) as progress:
        progress.update(7, "compile")
        time.sleep(0.3)
        assert "7/100 7%" in text_of(terminal)


def test_a_dumb_terminal_gets_plain_lines(terminal, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    with Progress(100, stream=terminal):
        pass
    assert terminal.getvalue() == "step 0/100  0%  start  - steps/s  elapsed 0:00:00  ETA -\n"


def test_a_pipe_gets_plain_lines_even_where_colour_is_forced(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    stream = io.StringIO()
    with Progress(100, stream=stream):
        pass
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize("quiet", [True, False])
def test_without_standard_error_nothing_is_shown(monkeypatch, capsys, quiet):
    """`2>&-` ended a run in a traceback."""
    monkeypatch.setattr(sys, "stderr", None)
    with Progress(10, quiet=quiet) as progress:
        progress.update(5, "act")
        progress.note("a note")
        progress.warn("a warning")
    assert capsys.readouterr().out == ""
