import gzip
import json

import pytest
import tiny_runs

from mbpo_jax.driver.profiler import Profiler
from mbpo_jax.driver.storage import checkpoint


def test_a_trace_that_can_be_opened_and_changes_no_number(mbpo_run, tmp_path):
    traced = tmp_path / "traced"
    argv = tiny_runs.argv(traced, seeds="0,1,2", profile=3, quiet="false")
    done = tiny_runs.command("-m", "mbpo_jax.main", *argv)
    assert done.returncode == 0
    assert f"below {traced / 'profile'} at https://ui.perfetto.dev" in done.stderr
    (trace,) = (traced / "profile").rglob("*.trace.json.gz")
    with gzip.open(trace) as file:
        names = {event.get("name", "") for event in json.load(file)["traceEvents"]}
    assert any("program" in name for name in names)  # the compiled programs of phases were on the way
    assert any((traced / "profile").rglob("*.xplane.pb"))
    tiny_runs.assert_same_run(traced, mbpo_run)


def test_a_run_that_ends_before_all_is_traced_still_writes_its_trace(tmp_path):
    assert tiny_runs.train(tmp_path, seeds=1, profile=10_000).finished
    assert any((tmp_path / "profile").rglob("*.trace.json.gz"))


def test_a_run_that_stops_before_every_phase_has_run_says_that_it_traced_nothing(tmp_path):
    argv = tiny_runs.argv(tmp_path, seeds=1, num_steps=5, profile=3, quiet="false")  # 5 steps: all of them exploration
    done = tiny_runs.command("-m", "mbpo_jax.main", *argv)
    assert done.returncode == 0
    assert done.stderr.count("profile: nothing was traced, as the run stopped before every phase had run") == 1
    assert not (tmp_path / "profile").exists()


def test_a_trace_that_cannot_be_written_loses_nothing_of_the_run(tmp_path, monkeypatch):
    def close(self):
        raise OSError("no room for a trace")

    monkeypatch.setattr(Profiler, "close", close)
    with pytest.raises(OSError, match="no room for a trace"):
        tiny_runs.train(tmp_path, tiny_runs.SAC, num_steps=20, seeds=1, profile=100)
    assert checkpoint.steps(tmp_path) == [20]
