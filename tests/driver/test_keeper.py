import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs

from mbpo_jax.algorithms import REGISTRY
from mbpo_jax.driver.keeper import Position
from mbpo_jax.driver.storage import manifest
from mbpo_jax.driver.storage.checkpoint import Checkpoints


def test_a_position_goes_through_the_phases_of_a_step_and_on_to_the_next():
    position = Position.start(2)
    assert position == Position(0, None, (False, False))
    position = position.after_step()
    assert position == Position(1, 0, (False, False))
    assert Position(1, 0, (True, True)).after_phase() == Position(1, 1, (False, False))
    assert Position(1, 1, (False, False)).between_steps() == Position(1, None, (False, False))


@pytest.mark.parametrize("lifting", ["each", "vmap"])
@pytest.mark.parametrize("stop_at", [62, 65, 66])
def test_a_run_that_stops_before_the_first_action_of_an_episode_goes_on_as_if_it_had_not(
    tmp_path, monkeypatch, lifting, stop_at
):
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
    knobs = {"knobs": tiny_runs.SAC, "env": "odd_worlds:odd/Ends-v0", "max_episode_steps": 0, "num_steps": 70}
    knobs |= {"seeds": "1,2", "seed_lifting": lifting, "eval_every_steps": 70}
    assert tiny_runs.train(tmp_path / "whole", **knobs).finished
    assert tiny_runs.train(tmp_path / "run", **knobs | {"num_steps": stop_at}).finished
    assert int(tiny_runs.saved(tmp_path / "run").arrays["1"]["episode_actions"].shape[0]) == stop_at % 3 + 1
    assert tiny_runs.train(tmp_path / "run", **knobs).finished
    whole, resumed = (tiny_runs.saved(tmp_path / name).arrays for name in ("whole", "run"))
    tiny_runs.assert_same_bits(resumed, whole)
    noise = [whole[seed]["carry"]["noise"].tolist() for seed in "12"]
    assert noise[0] != noise[1]


def test_a_run_goes_on_from_a_checkpoint_that_does_not_know_where_episodes_began(tmp_path, monkeypatch):
    assert tiny_runs.train(tmp_path / "whole", tiny_runs.SAC, seeds=1).finished
    assert tiny_runs.train(tmp_path / "run", tiny_runs.SAC, seeds=1, num_steps=70).finished
    saved = tiny_runs.saved(tmp_path / "run")
    del saved.arrays["1"]["replay"]["first"]
    identity = next(iter((tmp_path / "run" / "checkpoints").glob("70*/manifest.json")))
    with monkeypatch.context() as patched:
        patched.setattr(manifest, "FORMAT", 1)
        content = manifest.read(identity.parent)
        Checkpoints(tmp_path / "run", 9, content["identity"]).save(70, saved.arrays, saved.record)
    assert tiny_runs.train(tmp_path / "run", tiny_runs.SAC, seeds=1).finished
    whole, resumed = (tiny_runs.saved(tmp_path / name).arrays for name in ("whole", "run"))
    began, known = (arrays["1"]["replay"].pop("first") for arrays in (whole, resumed))
    tiny_runs.assert_same_bits(resumed, whole)
    assert began[:70].any() and began[70:].any()
    np.testing.assert_array_equal(known, np.concatenate([np.zeros(70, bool), began[70:]]))
