import json
import platform

import jax.numpy as jnp
import pytest
import tiny_runs

from mbpo_jax import replay
from mbpo_jax.driver import memory
from mbpo_jax.types import Spec

SPEC = Spec(obs_dim=3, action_dim=2)  # 40 bytes a row


def test_the_parts_of_a_prediction():
    states = tuple({"weights": jnp.zeros((5, 2)), "imagined": replay.init(SPEC, 100)} for _ in range(2))
    real = tuple(replay.init(SPEC, 1000) for _ in range(2))
    predicted = memory.predict(states, real, num_saved=250, program=7)
    counters = 12  # bytes of head, size and num_added
    assert predicted.buffers == 2 * (100 * 40 + counters + 1000 * 40 + counters)
    assert predicted.networks == 2 * 5 * 2 * 4
    # a checkpoint copies all imagined rows, and the real ones that the run will see
    assert abs(predicted.checkpoint - 3 * 2 * (100 * 40 + 250 * 40)) < 200
    assert predicted.total == 7 + predicted.compilation + predicted.buffers + predicted.networks + predicted.checkpoint
    assert predicted.text().startswith("memory: ")


def test_what_is_measured():
    before = memory.resident()
    block = bytearray(200_000_000)
    block[::4096] = b"x" * len(block[::4096])
    assert memory.resident() - before > 150_000_000
    # the kernel counts the peak with a little delay
    assert memory.peak() > 0.99 * memory.resident() > 50_000_000


COPIES_COME_AND_GO = """
import numpy as np
from mbpo_jax.driver import memory

first = np.ones(30 * 2**20, np.uint8)
del first  # from now on glibc keeps blocks of up to this size
before = memory.resident()
copies, small = [], []
for _ in range(20):
    copies.append(np.ones(10 * 2**20, np.uint8))
    small.append(np.ones(60_000, np.uint8))  # what lies between the copies, and stays
del copies
print(memory.resident() - before)
memory.give_back()
print(memory.resident() - before)
"""


def test_the_memory_of_copies_goes_back_to_the_system():
    kept, left = map(int, tiny_runs.command("-c", COPIES_COME_AND_GO).stdout.split())
    assert kept > 150e6 or platform.libc_ver()[0] != "glibc"
    assert left < 10e6


def test_every_checkpoint_is_followed_by_giving_back(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(memory, "give_back", lambda: given.append(len(list(tmp_path.glob("checkpoints/*/manifest*")))))
    tiny_runs.train(tmp_path, tiny_runs.SAC, num_steps=80, checkpoints_kept=5)
    assert given == [1, 2]


def test_a_run_says_it_first_and_the_summary_holds_both(tmp_path):
    done = tiny_runs.command("-m", "mbpo_jax.main", *tiny_runs.argv(tmp_path, tiny_runs.SAC, quiet="false"))
    assert done.returncode == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert f"memory: {summary['predicted_memory_bytes'] / 1e6:.0f} MB expected at peak" in done.stderr
    # this run is tiny beside what the prediction allows for compilation; benchmarks/epoch.py compares a real one
    assert 0.9 < summary["predicted_memory_bytes"] / summary["peak_memory_bytes"] < 3.0


def test_what_cannot_fit_this_machine_is_refused_before_it_is_allocated(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_available_bytes", lambda: 10**9)
    with pytest.raises(ValueError, match=r"replay_capacity, .* must fit the memory: they need 96\.\d GB, got 1\.0 GB"):
        tiny_runs.train(tmp_path / "run", replay_capacity=2**31 - 1)
    assert not (tmp_path / "run").exists()


def test_a_prediction_says_where_it_is_more_than_there_is(monkeypatch):
    predicted = memory.Prediction(500 * 10**6, 0, 0, 0, 0)
    monkeypatch.setattr(memory, "_available_bytes", lambda: 500 * 10**6)
    assert "more than" not in predicted.text()
    monkeypatch.setattr(memory, "_available_bytes", lambda: 400 * 10**6)
    assert predicted.text().endswith(", more than the 400 MB that this process may have: it may be killed")
    monkeypatch.setattr(memory, "_available_bytes", lambda: None)
    assert "more than" not in predicted.text()
