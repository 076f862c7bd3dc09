import dataclasses

import jax
import numpy as np
import pytest
from plain import (
    SPEC,
    assert_close,
    batch_of,
    fault_of,
    fault_text,
    num_steps,
    parts,
    plant,
    policy,
    same,
    some_of,
    written_out,
)

from mbpo_jax.agents import ddpg

CONFIG = ddpg.DdpgConfig(hidden_units=16, num_hidden_layers=1, learning_rate=1e-2, target_update_rate=0.1)
AGENT = ddpg.build(CONFIG, SPEC)
UPDATE = jax.jit(AGENT.update)
KEY = jax.random.key(4)


def first_state():
    return jax.jit(AGENT.init)(jax.random.key(0))


def test_four_updates_equal_the_algorithm_written_out():
    """One critic, no noise on the target, the actor and the targets at every update."""
    batches, state = batch_of(4, 32), first_state()
    after, _ = UPDATE(KEY, state, batches)
    assert_close(parts(after), written_out(state, batches, np.zeros((4, 32, 2)), CONFIG, 1, 0.0, 0.0, 1))
    assert int(num_steps(after.actor)) == int(after.num_updates) == 4
    assert num_steps(after.critics).tolist() == [4]


def test_learning_has_no_noise_and_calls_go_on_where_the_last_ended():
    batches, state = batch_of(4, 32), first_state()
    whole, _ = UPDATE(KEY, state, batches)
    assert same(UPDATE(jax.random.key(5), state, batches)[0], whole)
    for g in (0, 2):
        state, _ = UPDATE(KEY, state, some_of(batches, g, g + 2))
    assert_close(state, whole, 1e-6)


def test_there_is_one_critic_and_it_starts_as_its_target():
    state = first_state()
    assert {leaf.shape[0] for leaf in jax.tree.leaves(state.critics.params)} == {1}
    assert same(state.critics.params, state.target_params)
    assert same(state.actor.params, state.target_actor_params)


def test_acting():
    state, obs = first_state(), np.tile(np.float32([[0.1, -0.2, 0.3]]), (20_000, 1))
    expected = policy(state.actor.params, obs)
    np.testing.assert_allclose(AGENT.act(KEY, AGENT.actor(state), obs, False), expected, atol=1e-6)
    noise = np.asarray(AGENT.act(KEY, AGENT.actor(state), obs, True)) - expected
    np.testing.assert_allclose(noise.std(0), 0.1, rtol=0.02)
    loud = ddpg.build(dataclasses.replace(CONFIG, exploration_noise_std=5.0), SPEC)
    acted = np.asarray(loud.act(KEY, loud.actor(state), obs, True))
    assert (acted.min(), acted.max()) == (-1.0, 1.0)


def test_the_knobs_are_tds_without_its_own():
    assert {field.name for field in dataclasses.fields(ddpg.DdpgConfig)} == {
        "discount", "hidden_units", "num_hidden_layers", "num_critics", "learning_rate", "target_update_rate",
        "exploration_noise_std",
    }  # fmt: skip
    with pytest.raises(ValueError, match="exploration_noise_std must be"):
        ddpg.DdpgConfig(exploration_noise_std=-1.0)


def test_faults_name_the_one_critic():
    state, batches = first_state(), batch_of(4, 32)
    params = plant(state.critics.params, np.nan)
    report = UPDATE(KEY, state.replace(critics=state.critics.replace(params=params)), batches)[1]
    assert fault_text(report) == "the critic's loss is not finite (nan) at update 1"
    batches.reward[1, 3] = -1e17
    report = UPDATE(KEY, state, batches)[1]
    assert fault_text(report) == "the critic's target has exploded (1e+17) at update 2"
    assert fault_of(report).names[-4:] == (
        "a weight of the actor", "a weight of the critic",
        "a moment of Adam of the actor", "a moment of Adam of the critic",
    )  # fmt: skip
