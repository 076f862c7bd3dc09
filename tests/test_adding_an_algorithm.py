"""The worked example of docs/adding_an_algorithm.md, as it stands there."""

import json
import re
import signal
from pathlib import Path

import numpy as np
import pytest
import tiny_runs

DOCUMENT = Path(__file__).parents[1] / "docs" / "adding_an_algorithm.md"
FLAGS = tiny_runs.RUN | {
    "algorithm": "value_expansion", "num_steps": 120, "eval_every_steps": 60, "checkpoint_every_steps": 30,
    "log_every_steps": 30, "exploration_steps": 60, "fit_every_steps": 30, "updates_per_step": 2, "batch_size": 16,
    "horizon": 2, "hidden_units": 8, "num_hidden_layers": 1, "num_members": 3, "num_elites": 2, "model_hidden_units": 8,
    "model_weight_decays": "5e-5,1e-4", "model_batch_size": 16, "fit_slice_minibatches": 2, "fit_patience_epochs": 0,
}  # fmt: skip
TRAIN = "import sys, value_expansion; from mbpo_jax import main; sys.exit(main.main(sys.argv[1:]))"
HIT = "import sys, value_expansion, tiny_runs; sys.exit(tiny_runs.main(sys.argv[1:]))"
SHOWN_AND_REFUSED = """
import sys, value_expansion
from mbpo_jax import main
assert main.main(["--algorithm=value_expansion", "--help"]) == 0
assert main.main(["--algorithm=value_expansion", "--env=MountainCarContinuous-v0", "--run_dir=" + sys.argv[1]]) == 2
sys.exit(main.main(["--algorithm=mbpo", "--horizon=3"]))
"""
LOAD = """
import json, sys, jax, numpy as np, value_expansion, mbpo_jax
policy, trained = mbpo_jax.load_policy(sys.argv[1]), mbpo_jax.load_trained(sys.argv[1])
obs, dynamics = np.full(4, 0.01, np.float32), trained.algorithm.dynamics(trained.state)
next_obs, _, _ = dynamics.step_fn(jax.random.key(0), 0, obs[None], np.zeros((1, 1), np.float32))
print(json.dumps({"action": policy(obs).tolist(), "step": trained.step, "next_obs": np.asarray(next_obs).tolist()}))
"""


def example():
    (text,) = re.findall(r"<!-- worked example -->\n```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    return text


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """Runs a script in a process that can import the example."""
    folder = tmp_path_factory.mktemp("example")
    (folder / "value_expansion.py").write_text(example())
    path = f"{folder}:{tiny_runs.process_environment()['PYTHONPATH']}"
    return lambda script, *arguments: tiny_runs.command("-c", script, *arguments, PYTHONPATH=path)


def test_a_member_is_one_short_file():
    assert len([line for line in example().splitlines() if line.strip()]) < 60


def test_the_worked_example_trains_is_killed_resumes_and_is_loaded(python, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = python(TRAIN, *tiny_runs.argv(whole, FLAGS))
    assert done.returncode == 0, done.stderr
    hit = python(HIT, "fit:90", "SIGKILL", *tiny_runs.argv(killed, FLAGS))
    assert hit.returncode == -signal.SIGKILL, hit.stderr
    resumed = python(TRAIN, *tiny_runs.argv(killed, FLAGS))
    assert resumed.returncode == 0, resumed.stderr
    tiny_runs.assert_same_run(killed, whole)

    names = set().union(*tiny_runs.lines(killed))
    assert {"fit_model/holdout_mse_elite_mean", "update_agent/critic_loss"} <= names
    loaded = python(LOAD, killed)
    assert loaded.returncode == 0, loaded.stderr
    value = json.loads(loaded.stdout)
    assert value["step"] == 120
    assert np.shape(value["action"]) == (1,)
    assert np.isfinite(value["next_obs"]).all()


def test_the_worked_example_is_a_row_with_flags_of_its_own(python, tmp_path):
    done = python(SHOWN_AND_REFUSED, tmp_path / "run")
    assert done.returncode == 2
    assert "value_expansion" in done.stdout
    assert "--horizon" in done.stdout
    assert "termination_fn" in done.stderr  # no rule is known for the mountain car, and it says so before it starts
    assert "horizon=3 is not read by --algorithm=mbpo" in done.stderr
