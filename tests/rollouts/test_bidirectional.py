"""Rollouts in both directions, in worlds whose steps are known: next_obs = obs + action * [1, 2]."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs

from mbpo_jax import replay, terminations
from mbpo_jax.rollouts import backward, bidirectional, first_actions, valued_starts
from mbpo_jax.rollouts.bidirectional import Direction
from mbpo_jax.rollouts.particles import FAILED
from mbpo_jax.types import Dynamics, Spec, WorldModel

AHEAD, BACK = 0.5, -0.25  # actions


def moved(action):
    return action * jnp.asarray([1.0, 2.0])


def forward_step(key, group, obs, action):
    return obs + moved(action), obs[:, 0] + 10.0 * action[:, 0], jnp.zeros(len(obs), bool)


def before(key, belief, group, obs, action):
    """The model backwards, exact: the observation before obs, and the reward of the step from there."""
    before = obs - moved(action)
    return before, before[:, 0] + 10.0 * action[:, 0]


EXACT = WorldModel(None, None, None, None, before, None, num_groups=2)


def always(action):
    return lambda key, obs: jnp.full((len(obs), 1), action)


def round_of(start_obs, num_back, num_ahead, ends=terminations.never, capacity=1000, limit=1000):
    """A whole round, and what it reports at its end."""
    back = Direction(always(BACK), backward.dynamics(EXACT, None, ends))
    ahead = Direction(always(AHEAD), Dynamics(forward_step, 2))
    step = jax.jit(lambda *moving: bidirectional.step(jax.random.key(0), back, ahead, *moving, max_block_rows=4))
    buffer = replay.init(Spec(2, 1), capacity)
    rollouts, _ = bidirectional.start(start_obs, jnp.asarray(num_back), jnp.asarray(num_ahead), jnp.asarray(limit))
    report, steps = None, 0
    while bool(bidirectional.is_running(rollouts)):
        buffer, rollouts, report = step(buffer, rollouts)
        steps += 1
    return tiny_runs.rows_of(buffer), report, steps


STARTS = jnp.stack([100.0 * jnp.arange(6), jnp.zeros(6)], -1)


@pytest.mark.parametrize(("num_back", "num_ahead"), [(3, 2), (0, 2), (1, 4)])
def test_one_buffer_holds_the_rows_of_both_directions_in_the_order_of_time(num_back, num_ahead):
    rows, report, steps = round_of(STARTS, num_back, num_ahead)
    assert steps == max(num_back, num_ahead)
    assert len(rows.reward) == 6 * (num_back + num_ahead)
    np.testing.assert_allclose(rows.next_obs, rows.obs + rows.action * [1.0, 2.0], rtol=1e-6)
    np.testing.assert_allclose(rows.reward, rows.obs[:, 0] + 10.0 * rows.action[:, 0], rtol=1e-6)
    assert not rows.terminal.any()
    # Each start is where its last row backwards leads to, and where its first row ahead begins.
    back, ahead = rows.action[:, 0] == BACK, rows.action[:, 0] == AHEAD
    wanted = [(s, s - BACK * (t + 1)) for s in STARTS[:, 0].tolist() for t in range(num_back)]
    assert sorted(rows.obs[back, 0].tolist()) == sorted(place for _, place in wanted)
    wanted = [s + AHEAD * t for s in STARTS[:, 0].tolist() for t in range(num_ahead)]
    assert sorted(rows.obs[ahead, 0].tolist()) == sorted(wanted)
    assert int(report.metrics["transitions"]) == 6 * num_ahead
    assert int(report.metrics["backward_transitions"]) == 6 * num_back
    assert float(report.metrics["backward_impossible_fraction"]) == 0.0


def test_the_limit_is_of_both_directions_together():
    rows, report, _ = round_of(STARTS, 2, 2, limit=12)
    assert len(rows.reward) == 12
    assert int(report.metrics["buffer_rows"]) == 12
    assert sorted(set(rows.action[:, 0].tolist())) == [BACK, AHEAD]  # the newest of either


def beyond_one(obs, action, next_obs):
    return jnp.abs(next_obs[..., 0]) >= 1.0


def test_what_would_have_ended_an_episode_is_no_state_before_another():
    """Backwards the first number grows by 0.25: 0.2 goes to 0.45, 0.7, 0.95 and not to 1.2; 0.9 nowhere."""
    starts = jnp.asarray([[0.2, 0.0], [0.9, 0.0]])
    rows, report, _ = round_of(starts, 6, 1, ends=beyond_one)
    back = rows.action[:, 0] == BACK
    np.testing.assert_allclose(np.sort(rows.obs[back, 0]), [0.45, 0.7, 0.95], rtol=1e-5)
    assert not rows.terminal.any()
    assert float(report.metrics["backward_impossible_fraction"]) == pytest.approx(2 / 5)
    assert int(report.metrics["backward_dropped_nonfinite"]) == 0
    assert max(float(group.values.max()) for group in report.watched) < 10.0  # it is no explosion


def test_a_step_that_would_have_ended_an_episode_is_impossible_too():
    obs, action = jnp.zeros((3, 2)), jnp.zeros((3, 1))
    outside = obs.at[1, 0].set(2.0)
    np.testing.assert_array_equal(backward.is_impossible(beyond_one, outside, action, obs), [False, True, False])
    np.testing.assert_array_equal(backward.is_impossible(beyond_one, obs, action, outside), [False, True, False])
    impossible = backward.is_impossible(terminations.inverted_pendulum, outside, action, obs)
    np.testing.assert_array_equal(impossible, [False, False, False])  # which asks of the second number


# -- where they start ------------------------------------------------------------------------------------------------


def test_probabilities_are_those_of_boltzmann():
    value = jnp.log(jnp.asarray([1.0, 3.0, 4.0]))
    np.testing.assert_allclose(valued_starts.probabilities(value, 1.0), [1 / 8, 3 / 8, 4 / 8], rtol=1e-5)
    np.testing.assert_allclose(valued_starts.probabilities(value, 2.0), [1 / 26, 9 / 26, 16 / 26], rtol=1e-5)
    np.testing.assert_allclose(valued_starts.probabilities(value, 0.0), [1 / 3] * 3, rtol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e30])
def test_the_best_state_is_at_most_e_to_the_10_times_as_likely_as_the_worst(scale):
    value = scale * jnp.asarray([-100.0, 0.0, 100.0])
    found = np.asarray(valued_starts.probabilities(value, 7.0))
    np.testing.assert_allclose(found[2] / found, [np.exp(10.0), np.exp(5.0), 1.0], rtol=1e-4)


def test_equal_values_are_equally_likely():
    for value in (0.0, -5.0, 1e20):
        np.testing.assert_allclose(valued_starts.probabilities(jnp.full(4, value), 3.0), [0.25] * 4, rtol=1e-6)


def test_states_are_drawn_by_their_probabilities():
    value = jnp.log(jnp.asarray([1.0, 3.0, 4.0]))
    drawn = np.bincount(valued_starts.draw(jax.random.key(0), value, 1.0, 8000), minlength=3)
    np.testing.assert_allclose(drawn / 8000, [1 / 8, 3 / 8, 4 / 8], atol=0.02)


# -- what first actions are worth ------------------------------------------------------------------------------------


def returns(obs, actions, num_steps, broken_at=jnp.inf):
    """x moves by the action; the reward is the action; it ends at 5. The policy takes 0.5, the value is 100 + x."""

    def step(key, group, obs, action):
        next_obs = obs + action
        next_obs = jnp.where(next_obs > broken_at, jnp.nan, next_obs)
        return next_obs, action[:, 0], next_obs[:, 0] >= 5.0

    how = Dynamics(step, 2), lambda obs: jnp.full((len(obs), 1), 0.5), lambda obs: 100.0 + obs[:, 0]
    first = jnp.asarray(actions)[:, None]
    return first_actions.returns(*how, num_steps, 0.5, jax.random.key(0), jnp.asarray([obs]), first)


def test_first_actions_are_worth_their_steps_and_the_value_after_them():
    # 1 + 0.5 / 2 + 0.25 (100 + 3.5) from 2 on, and likewise with 0 and -1
    np.testing.assert_allclose(returns(2.0, [1.0, 0.0, -1.0], 2), [27.125, 25.875, 24.625], rtol=1e-6)
    np.testing.assert_allclose(returns(2.0, [1.0, 0.0, -1.0], 1), [1.0 + 51.5, 51.0, -1.0 + 50.5], rtol=1e-6)


def test_nothing_comes_after_an_end_and_an_explosion_is_the_worst():
    # 1 ends at once; 0.75 at the second step; 0 goes on: 0 + 0.25 + 0.25 * 104.5
    np.testing.assert_allclose(returns(4.0, [1.0, 0.75, 0.0], 2), [1.0, 0.75 + 0.25, 26.375], rtol=1e-6)
    np.testing.assert_allclose(returns(2.0, [1.0, -1.0], 2, broken_at=3.2), [FAILED, 24.625], rtol=1e-6)
