"""Targets worked by hand, in two worlds of one number: one adds 1 a step and pays 10, the other adds 2 and pays 20."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.rollouts import ensemble_expansion
from mbpo_jax.types import Agent, Critic, Dynamics, Transition

DISCOUNT = 0.5
KEY = jax.random.key(0)


def worlds(limit=jnp.inf):
    def step(key, version, obs, action):
        next_obs = obs + 1.0 + version
        return next_obs, jnp.full(len(obs), 10.0) * (1 + version), next_obs[:, 0] >= limit

    return Dynamics(step, 2)


def agent(bonus=0.0):
    """Two critics: the number, and 100 more."""

    def q(state, obs, action):
        return jnp.stack([obs[:, 0], obs[:, 0] + 100.0])

    def act(key, state, obs):
        return jnp.zeros((len(obs), 1)), jnp.full(len(obs), bonus)

    return Agent(*[None] * 4, critic=Critic(None, q, act))


def batch(*next_obs, terminal=0.0):
    column = jnp.asarray(next_obs, jnp.float32)[:, None]
    ones = jnp.ones(len(column))
    return Transition(obs=column, action=column, reward=7.0 * ones, next_obs=column, terminal=terminal * ones)


def candidates(rows, dynamics, num_steps=1, bonus=0.0, reward_fn=None):
    found = ensemble_expansion.candidates(dynamics, agent(bonus), num_steps, DISCOUNT, reward_fn, KEY, None, rows)
    return np.asarray(found)


def test_every_path_every_reward_and_every_critic_make_a_candidate():
    """From 4: after no step 7 + (4 or 104) / 2; after one 7 + (10 or 20) / 2 + (5, 6, 105 or 106) / 4."""
    found = candidates(batch(4.0), worlds())
    assert found.shape == (2, 8, 1)
    assert sorted(found[0, :, 0].tolist()) == [9.0] * 4 + [59.0] * 4
    by_hand = [7 + reward / 2 + last / 4 for reward in (10, 20) for last in (5, 6, 105, 106)]
    assert sorted(found[1, :, 0].tolist()) == sorted(by_hand)


def test_a_known_reward_is_that_of_the_path_whichever_version_is_asked():
    """From 4 to 5 it is 405, from 4 to 6 406; after each, the critics say 5 or 105, or 6 or 106."""
    found = candidates(batch(4.0), worlds(), reward_fn=lambda obs, action, next_obs: 100.0 * obs[:, 0] + next_obs[:, 0])
    by_hand = [7 + (400 + last) / 2 + (last + more) / 4 for last in (5, 6) for more in (0, 100) for _ in range(2)]
    assert sorted(found[1, :, 0].tolist()) == sorted(by_hand)


def test_bonuses_count_at_each_imagined_action_and_at_the_last_state():
    with_bonus, without = candidates(batch(4.0), worlds(), 2, bonus=8.0), candidates(batch(4.0), worlds(), 2)
    np.testing.assert_allclose((with_bonus - without)[:, 0, 0], [4.0, 4.0 + 2.0, 4.0 + 2.0 + 1.0])


def test_nothing_follows_an_end_on_the_path_that_reaches_it():
    """The second world reaches 6, which ends there: its paths keep only the reward of that step."""
    found = candidates(batch(4.0), worlds(limit=6.0), 2)[2, :, 0]
    ended = [7 + reward / 2 for reward in (10, 20) for _ in range(2)]
    assert sorted(found[4:].tolist()) == sorted(ended)
    assert (found[:4] > np.asarray(ended).min()).all()
    assert candidates(batch(4.0, terminal=1.0), worlds(), 2).tolist() == np.full((3, 8, 1), 7.0).tolist()


def test_lengths_that_agree_weigh_more():
    variance = jnp.asarray([[4.0, 0.0], [1.0, 3.0]])
    weights = ensemble_expansion.length_weights(variance, "inverse_variance", 0.0)
    np.testing.assert_allclose(weights, [[0.2, 1.0], [0.8, 0.0]], atol=1e-6)


@pytest.mark.parametrize(
    ("weighting", "expected"),
    [("last", [0, 0, 1]), ("uniform", [1 / 3] * 3), ("td_lambda", [0.75, 0.75 * 0.25, 0.25**2])],
)
def test_the_ablations_weigh_without_looking(weighting, expected):
    weights = ensemble_expansion.length_weights(jnp.ones((3, 2)), weighting, 0.25)
    np.testing.assert_allclose(weights, np.asarray(expected)[:, None] * np.ones(2), rtol=1e-6)


def test_the_target_is_the_weighted_mean_of_means_and_a_row_that_explodes_weighs_nothing():
    how = worlds(), agent(), 1, DISCOUNT
    rows = batch(4.0, jnp.inf)
    found = ensemble_expansion.expand(*how, "inverse_variance", 0.0, None, KEY, None, rows)
    values = candidates(batch(4.0), worlds())[:, :, 0].astype(np.float64)
    shares = 1 / values.var(1) / (1 / values.var(1)).sum()
    assert found.target[0] == pytest.approx((shares * values.mean(1)).sum(), rel=1e-5)
    assert found.weight.tolist() == [1.0, 0.0]
    assert np.isfinite(found.target).all()
    last = ensemble_expansion.expand(*how, "last", 0.0, None, KEY, None, rows)
    assert last.target[0] == pytest.approx(values[1].mean(), rel=1e-5)
