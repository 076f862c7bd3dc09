"""The agent that knows the range of returns: ranges, targets and steps by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax import normalizer
from mbpo_jax.agents import bounded_sac
from mbpo_jax.agents.bounded_sac import BoundedSacConfig
from mbpo_jax.types import Regression, Spec

CONFIG = BoundedSacConfig(hidden_units=8, num_hidden_layers=1, num_critics=3, discount=0.9, learning_rate=0.01)
AGENT = bounded_sac.build(CONFIG, Spec(obs_dim=2, action_dim=1))
OBS, ACTION = jnp.asarray([[1.0, -2.0], [0.5, 0.0], [3.0, 1.0]]), jnp.asarray([[0.1], [-0.5], [0.9]])


@pytest.fixture(scope="module")
def state():
    return jax.jit(lambda key: bounded_sac.init(AGENT, key))(jax.random.key(0))


def biased(params, values):
    """The parameters of critics [3, ...] whose last layer has zero weights and these biases."""
    last = params["SmoothMlp_0"]["Dense_1"]
    biases = jnp.asarray(values)[:, None]
    return {"SmoothMlp_0": params["SmoothMlp_0"] | {"Dense_1": {"kernel": 0 * last["kernel"], "bias": biases}}}


def test_the_range_of_returns_is_at_first_that_of_the_first_rewards_and_moves_slowly_then(state):
    rewards = jnp.linspace(1.0, 3.0, 201)  # the quantiles are 1.02 and 2.98
    first = bounded_sac.track_return_range(AGENT, state, rewards)
    assert first.return_range == pytest.approx([0.0, 29.8], rel=1e-4)  # 0 is what an end is worth
    later = first.replace(num_updates=jnp.asarray(7))
    moved = bounded_sac.track_return_range(AGENT, later, -rewards)
    assert moved.return_range == pytest.approx([-29.8 * 3e-4, 29.8 * (1 - 3e-4)], rel=1e-4)


def test_without_zero_the_range_is_that_of_the_rewards_alone(state):
    """Values before an end are then bounded from below by what the worst rewards are worth."""
    agent = bounded_sac.build(dataclasses.replace(CONFIG, range_with_zero=False), AGENT.spec)
    first = bounded_sac.track_return_range(agent, state, jnp.linspace(1.0, 3.0, 201))
    assert first.return_range == pytest.approx([10.2, 29.8], rel=1e-4)
    low = first.replace(target_params=biased(state.target_params, [-9.0, -9.0, -9.0]))
    assert bounded_sac.target_value(agent, jax.random.key(0), low, OBS, ACTION) == pytest.approx(np.full(3, 10.2))


def test_steps_after_an_end_earn_nothing_in_a_range_with_zero_and_do_not_count_in_one_without(state):
    """2 % of the steps come after an end: as zeros they would be the lower quantile."""
    rewards = jnp.where(jnp.arange(100) < 2, jnp.nan, 1.0)
    without = bounded_sac.build(dataclasses.replace(CONFIG, range_with_zero=False), AGENT.spec)
    assert bounded_sac.track_return_range(without, state, rewards).return_range == pytest.approx([10.0, 10.0])
    assert bounded_sac.track_return_range(AGENT, state, rewards).return_range == pytest.approx([0.0, 10.0])
    everything = jnp.full(100, jnp.nan)
    np.testing.assert_array_equal(
        bounded_sac.track_return_range(without, state, everything).return_range, state.return_range
    )


def test_values_begin_in_the_middle_of_the_range_and_are_scaled_by_half_of_it(state):
    state = state.replace(return_range=jnp.asarray([-10.0, 30.0]))
    assert bounded_sac.q_values(AGENT, state, state.critics.params, OBS, ACTION) == pytest.approx(np.full((3, 3), 10.0))
    params = biased(state.critics.params, [1.0, -0.5, 0.0])
    found = bounded_sac.q_values(AGENT, state, params, OBS, ACTION)
    assert found[:, 0] == pytest.approx([30.0, 0.0, 10.0])
    mean = bounded_sac.mean_value(AGENT, state.replace(critics=state.critics.replace(params=params)), OBS, ACTION)
    assert mean == pytest.approx(np.full(3, 40.0 / 3), rel=1e-5)


def test_targets_are_the_smaller_of_two_critics_drawn_at_random_within_the_range(state):
    state = state.replace(
        return_range=jnp.asarray([-10.0, 30.0]), target_params=biased(state.target_params, [4.0, 0.5, -3.0])
    )  # 90, 20 and -50
    draw = jax.jit(lambda key: bounded_sac.target_value(AGENT, key, state, OBS, ACTION))
    found = {round(float(draw(jax.random.key(i))[0]), 3) for i in range(20)}
    assert found == {20.0, -10.0}  # of the pairs, two have the last critic, and none gives 30


def test_critics_step_towards_targets_in_units_of_reward_and_rows_of_no_weight_do_not_matter(state):
    state = state.replace(return_range=jnp.asarray([-10.0, 30.0]))
    rows = Regression(OBS, ACTION, jnp.asarray([30.0, 30.0, -9e9]), jnp.asarray([1.0, 1.0, 0.0]))
    stepped, metrics, _ = bounded_sac.step_critics(AGENT, state, rows)
    assert metrics["critic_loss"] == pytest.approx(3 * 0.5 * 1.0)  # one half width off, for three critics
    assert metrics["q_mean"] == pytest.approx(10.0)
    before = bounded_sac.q_values(AGENT, state, state.critics.params, OBS, ACTION)
    after = bounded_sac.q_values(AGENT, stepped, stepped.critics.params, OBS, ACTION)
    assert np.all(np.asarray(after[:, :2]) > np.asarray(before[:, :2]))
    assert stepped.num_updates == 1
    jax.tree.map(np.testing.assert_array_equal, stepped.actor, state.actor)


def test_a_burst_begins_with_the_weights_there_are_new_scales_and_optimisers_that_remember_nothing(state):
    rows = Regression(OBS, ACTION, jnp.full(3, 30.0), None)
    trained, _, _ = bounded_sac.step_critics(AGENT, state, rows)
    scale = normalizer.from_moments(jnp.asarray([1.0, 2.0]), jnp.asarray([4.0, 9.0]))
    fresh = bounded_sac.begin_burst(AGENT, trained, scale)
    jax.tree.map(np.testing.assert_array_equal, fresh.critics.params, trained.critics.params)
    assert int(trained.critics.opt_state[0].count[0]) == 1
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(fresh.critics.opt_state))
    same = bounded_sac.act(AGENT, jax.random.key(0), bounded_sac.policy(trained), (OBS - scale.mean) / scale.std, False)
    scaled = bounded_sac.act(AGENT, jax.random.key(0), bounded_sac.policy(fresh), OBS, False)
    assert scaled == pytest.approx(np.asarray(same), abs=1e-6)


def test_the_temperature_rises_where_the_policy_is_more_certain_than_it_should_be(state):
    grads = jax.tree.map(jnp.zeros_like, state.actor.params)
    certain, _, _ = bounded_sac.step_actor(AGENT, state, grads, jnp.full(3, 5.0))
    random, _, _ = bounded_sac.step_actor(AGENT, state, grads, jnp.full(3, -5.0))
    assert random.log_temperature.params < state.log_temperature.params < certain.log_temperature.params
    jax.tree.map(np.testing.assert_array_equal, certain.critics, state.critics)


def test_more_critics_for_targets_than_there_are_is_refused():
    with pytest.raises(ValueError, match=r"num_target_critics must be at most num_critics \(3\), got 4"):
        BoundedSacConfig(num_critics=3, num_target_critics=4)
