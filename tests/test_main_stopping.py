"""Signals stop a run where nothing is lost, and the same command continues it."""

import signal
import threading
import time

import pytest

from main_calls import arguments, python
from mbpo_jax.driver import setup
from mbpo_jax.driver.storage import metrics
from mbpo_jax.launch import flags
from mbpo_jax.main import main


def test_an_interrupt_saves_and_the_same_command_continues(tmp_path, capsys):
    process = python("-m", "mbpo_jax.main", *arguments(tmp_path, num_steps=10**6, checkpoint_every_steps=10**6))
    try:
        path, deadline = tmp_path / "metrics.jsonl", time.monotonic() + 240.0
        while not (path.exists() and '"step": 60' in path.read_text()):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 3
    assert err.endswith("mbpo_jax: stopped and saved; run the same command again to continue\n")
    assert "Traceback" not in err
    (step,) = [int(saved.name) for saved in (tmp_path / "checkpoints").iterdir()]
    assert f"sac on Hopper-v5: {step:,} of 1,000,000 steps per seed\n" in out
    assert main(arguments(tmp_path, num_steps=step + 20, checkpoint_every_steps=10**6)) == 0
    places = [(line["step"], line["seed"]) for line in metrics.read(path) if "replay/rows" in line]
    wanted = sorted({*range(20, step + 20, 20), step + 20})
    assert places == [(at, seed) for at in wanted for seed in (1, 2)]  # none twice, none missing


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("delay", [0.0, 0.5])
def test_a_signal_before_training_begins_is_one_line_too(tmp_path, number, delay):
    process = python("-m", "mbpo_jax.main", *arguments(tmp_path / "run"))
    try:
        assert process.stderr.readline() == "mbpo_jax: starting\n"
        time.sleep(delay)  # imports take longer
        process.send_signal(number)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert (process.returncode, out) == (3, "")
    assert err == "mbpo_jax: stopped before training began; the same command starts or continues it\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("where", ["parse", "train"])
def test_a_signal_stops_where_nothing_can_crash(tmp_path, capsys, monkeypatch, number, where):
    """It interrupts nothing: exceptions in the middle of compilers and imports crash them."""
    parse, build, passed = flags.parse_with_notes, setup.SeedEnvironments, []

    def interrupted(function):
        def hit(*given):
            signal.raise_signal(number)
            passed.append(True)
            return function(*given)

        return hit

    monkeypatch.setattr(flags, "parse_with_notes", interrupted(parse) if where == "parse" else parse)
    monkeypatch.setattr(setup, "SeedEnvironments", interrupted(build) if where == "train" else build)
    assert main([*arguments(tmp_path), "--quiet"]) == 3
    assert passed == [True]
    line = "mbpo_jax: stopped before training began; the same command starts or continues it\n"
    assert capsys.readouterr() == ("", line)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_signals_do_afterwards_what_they_did_before(tmp_path, capsys, monkeypatch):
    mine = [0]
    before = signal.signal(signal.SIGTERM, lambda number, frame: mine.append(number))
    try:
        parse = flags.parse_with_notes
        monkeypatch.setattr(flags, "parse_with_notes", lambda argv: signal.raise_signal(signal.SIGTERM) or parse(argv))
        assert main([*arguments(tmp_path), "--quiet"]) == 3
        assert mine == [0]
        signal.raise_signal(signal.SIGTERM)
        assert mine == [0, signal.SIGTERM]
        assert main(["--help"]) == 0
        signal.raise_signal(signal.SIGTERM)
        assert mine == [0, signal.SIGTERM, signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)
    stopped = "mbpo_jax: stopped before training began; the same command starts or continues it\n"
    assert capsys.readouterr().err == stopped


def test_the_second_signal_ends_a_process_that_ignores_the_first():
    process = python("-c", STUBBORN)
    try:
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=120) == -signal.SIGTERM
    finally:
        process.kill()
        process.communicate()


STUBBORN = """
import time
from mbpo_jax.launch import flags
from mbpo_jax.main import main, summary_text

def wait(argv):
    print("waiting", flush=True)
    time.sleep(100)

flags.parse_with_notes = wait
main(["--quiet"])
"""


def test_a_thread_may_call_it_although_only_the_main_one_handles_signals(capsys):
    statuses = []
    thread = threading.Thread(target=lambda: statuses.append(main(["--nonsense=1", "--quiet"])))
    thread.start()
    thread.join(60)
    assert statuses == [2]
    assert "'nonsense'" in capsys.readouterr().err
