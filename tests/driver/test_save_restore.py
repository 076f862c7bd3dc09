import jax
import jax.numpy as jnp
import numpy as np
import tiny_runs
from written_in_format_1 import in_format_1

from mbpo_jax.algorithms import REGISTRY
from mbpo_jax.driver.save_restore import Position
from mbpo_jax.driver.storage import manifest
from mbpo_jax.driver.storage.checkpoint import Checkpoints


def test_a_position_goes_through_the_phases_of_a_step_and_on_to_the_next():
    position = Position.start(2)
    assert position == Position(0, None, (False, False))
    position = position.after_step()
    assert position == Position(1, 0, (False, False))
    assert Position(1, 0, (True, True)).after_phase() == Position(1, 1, (False, False))
    assert Position(1, 1, (False, False)).between_steps() == Position(1, None, (False, False))


def test_a_run_that_stops_before_the_first_action_of_an_episode_goes_on_as_if_it_had_not(tmp_path, monkeypatch):
    """With a policy that draws noise for a whole episode where it begins, and reads its actor then."""
    entry = REGISTRY["sac"]

    def build(config, spec):
        algorithm = entry.build(config, spec)

        def begin(key, actor):
            return {"noise": jax.random.uniform(key, (spec.action_dim,)) + sum(map(jnp.sum, jax.tree.leaves(actor)))}

        def act(key, actor, carry, obs, explore):
            action, _ = algorithm.act(key, actor, (), obs, explore)
            return jnp.tanh(action + carry["noise"]), carry

        return algorithm._replace(begin_episode=begin, act=act)

    monkeypatch.setitem(REGISTRY, "sac", entry._replace(build=build))
    knobs = {"knobs": tiny_runs.SAC, "env": "odd_worlds:odd/Ends-v0", "max_episode_steps": 0, "num_steps": 68}
    knobs |= {"seeds": "1,2", "eval_every_steps": 70}
    assert tiny_runs.train(tmp_path / "whole", **knobs).finished
    assert tiny_runs.train(tmp_path / "run", **knobs | {"num_steps": 66}).finished
    ended = tiny_runs.saved(tmp_path / "run").arrays
    assert ended["1"]["episode_actions"].shape == (1, 2)  # of an episode that has had no step
    assert tiny_runs.train(tmp_path / "run", **knobs).finished
    whole, resumed = (tiny_runs.saved(tmp_path / name).arrays for name in ("whole", "run"))
    tiny_runs.assert_same_bits(resumed, whole)
    noises = [arrays[seed]["carry"]["noise"].tolist() for seed in "12" for arrays in (ended, whole)]
    assert len(set(map(tuple, noises))) == 4


def test_a_run_goes_on_from_a_checkpoint_that_does_not_know_where_episodes_began(tmp_path, monkeypatch, sac_run):
    assert tiny_runs.train(tmp_path, tiny_runs.SAC, seeds=1, num_steps=70).finished
    saved = tiny_runs.saved(tmp_path)
    identity = manifest.read(tmp_path / "checkpoints" / "70")["identity"]
    with monkeypatch.context() as patched:
        patched.setattr(manifest, "FORMAT", 1)
        Checkpoints(tmp_path, 9, identity).save(70, {"1": in_format_1(saved.arrays["1"])}, saved.record)
    assert tiny_runs.train(tmp_path, tiny_runs.SAC, seeds=1).finished
    whole, resumed = (tiny_runs.saved(run_dir).arrays for run_dir in (sac_run, tmp_path))
    began, known = (arrays["1"]["replay"].pop("first") for arrays in (whole, resumed))
    tiny_runs.assert_same_bits(resumed, whole)
    assert began[:70].any() and began[70:].any()
    np.testing.assert_array_equal(known, np.concatenate([np.zeros(70, bool), began[70:]]))
