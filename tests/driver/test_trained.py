import json
import shutil

import jax
import numpy as np
import pytest
import tiny_runs

from mbpo_jax.driver.config import StorageFailure
from mbpo_jax.driver.interaction import policy
from mbpo_jax.driver.storage import checkpoint
from mbpo_jax.driver.storage.lock import locked
from mbpo_jax.driver.trained import load_trained


def contents(run_dir):
    return {path.relative_to(run_dir): path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("run", "seed"), [("mbpo_run", 0), ("mbpo_run", 2), ("sac_run", 1)])
def test_what_is_loaded_acts_as_the_policy_that_the_run_saved(run, seed, request):
    run_dir = request.getfixturevalue(run)
    trained = load_trained(run_dir, seed)
    assert (trained.seed, trained.step) == (seed, trained.run.num_steps)
    assert trained.spec.max_episode_steps == trained.run.max_episode_steps == 5
    actor = trained.algorithm.actor(trained.state)
    saved = policy.load_policy(run_dir, seed)
    act = policy.deterministic(trained.algorithm).act
    for obs in np.random.default_rng(0).normal(size=(5, trained.spec.obs_dim)).astype(np.float32):
        action, _ = act(0, 0, actor, (), obs)
        np.testing.assert_array_equal(action, saved.normalized_action(obs))


def test_the_state_and_the_rows_are_those_of_the_checkpoint(mbpo_run):
    trained = load_trained(mbpo_run, 1)
    arrays = tiny_runs.saved(mbpo_run).arrays["1"]
    assert int(trained.replay.size) == 100
    np.testing.assert_array_equal(trained.replay.rows.obs, arrays["replay"]["rows"]["obs"])
    members = jax.tree.leaves(trained.state.model.members.params)
    saved = jax.tree.leaves(arrays["state"]["model"]["members"]["params"])
    assert {leaf.shape for leaf in members} == {leaf.shape for leaf in saved}
    assert all(any(np.array_equal(leaf, other) for other in saved) for leaf in members)
    mean = trained.state.model.members.params["mean"]["kernel"]
    assert not np.array_equal(mean[0], mean[1])  # members differ
    assert trained.state.imagined is None


def test_an_older_step_is_another_state(mbpo_run):
    steps = checkpoint.steps(mbpo_run)
    assert steps == sorted(steps) and steps[-1] == 160 and len(steps) >= 2
    old, new = load_trained(mbpo_run, step=steps[0]), load_trained(mbpo_run)
    assert (old.step, new.step) == (steps[0], 160)
    kernels = [jax.tree.leaves(trained.algorithm.actor(trained.state)) for trained in (old, new)]
    assert not all(np.array_equal(a, b) for a, b in zip(*kernels))


def test_a_relative_run_dir_loads_too(mbpo_run, monkeypatch):
    monkeypatch.chdir(mbpo_run.parent)
    tiny_runs.assert_same_bits(load_trained(mbpo_run.name).state, load_trained(mbpo_run).state)


def test_loading_changes_nothing_and_needs_no_lock(mbpo_run, tmp_path):
    run_dir = shutil.copytree(mbpo_run, tmp_path / "run")
    half = run_dir / "checkpoints" / "170.writing"
    half.mkdir()
    before = contents(run_dir)
    with locked(run_dir):  # as if it were training
        held = contents(run_dir)
        load_trained(run_dir)
        assert contents(run_dir) == held
    assert half.is_dir()
    assert contents(run_dir) == before


def test_what_cannot_be_loaded_is_named(mbpo_run, tmp_path):
    with pytest.raises(ValueError, match=r"^seed must be one of 0, 1, 2 in .*, got 5$"):
        load_trained(mbpo_run, 5)
    with pytest.raises(ValueError, match=r"^step must be that of a checkpoint in .*, one of [\d, ]*160, got 7$"):
        load_trained(mbpo_run, step=7)
    with pytest.raises(StorageFailure, match=r"config\.json"):
        load_trained(tmp_path)
    shutil.copy(mbpo_run / "config.json", tmp_path)
    with pytest.raises(StorageFailure, match="no checkpoint in .*; steps there: none"):
        load_trained(tmp_path)


def test_a_damaged_checkpoint_is_named(mbpo_run, tmp_path):
    run_dir = shutil.copytree(mbpo_run, tmp_path / "run")
    newest = run_dir / "checkpoints" / "160"
    victim = max((path for path in newest.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(bytes(data))
    with pytest.raises(StorageFailure, match="cannot read the checkpoint .*160"):
        load_trained(run_dir)
    assert load_trained(run_dir, step=checkpoint.steps(run_dir)[0]).step < 160


def test_a_checkpoint_that_does_not_fit_its_config_is_named(mbpo_run, tmp_path):
    run_dir = shutil.copytree(mbpo_run, tmp_path / "run")
    config = json.loads((run_dir / "config.json").read_text())
    config["algorithm"]["agent"]["hidden_units"] += 1
    (run_dir / "config.json").write_text(json.dumps(config))
    with pytest.raises(StorageFailure, match=f"the checkpoint of step 160 in {run_dir} does not fit its config"):
        load_trained(run_dir)
