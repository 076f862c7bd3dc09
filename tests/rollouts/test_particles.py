import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax import health
from mbpo_jax.rollouts.particles import FAILED, score
from mbpo_jax.types import Dynamics

NUM_GROUPS, NUM_PARTICLES, NUM_CANDIDATES = 3, 6, 4


def by_group(key, group, obs, action):
    """Group g adds g to the observation, whose square is the reward; the action is added to that."""
    next_obs = obs + group
    return next_obs, jnp.square(next_obs[:, 0]) + action[:, 0], jnp.zeros(len(obs), bool)


def actions(horizon):
    return jnp.zeros((NUM_CANDIDATES, horizon, 1)).at[:, 0, 0].set(jnp.arange(NUM_CANDIDATES))


def test_no_version_moves_more_rows_than_its_share():
    seen = []

    def step(key, group, obs, action):
        jax.debug.callback(lambda g, rows: seen.append((int(g), len(rows))), group, obs)
        return by_group(key, group, obs, action)

    score(Dynamics(step, NUM_GROUPS), jnp.zeros(1), NUM_PARTICLES, True, jax.random.key(0), actions(2))
    jax.effects_barrier()
    share = NUM_PARTICLES * NUM_CANDIDATES // NUM_GROUPS
    assert sorted(seen) == sorted((group, share) for group in range(NUM_GROUPS) for _ in range(2))


def test_particles_that_keep_their_version_go_its_way():
    """After three steps of g: g^2 + (2 g)^2 + (3 g)^2 = 14 g^2, whose mean over 0, 1 and 2 is 70 / 3."""
    got = score(Dynamics(by_group, NUM_GROUPS), jnp.zeros(1), NUM_PARTICLES, False, jax.random.key(0), actions(3))
    np.testing.assert_allclose(got, 70 / 3 + np.arange(NUM_CANDIDATES), rtol=1e-6)


def test_particles_that_are_dealt_anew_mix_and_every_candidate_has_equal_shares():
    run = functools.partial(score, Dynamics(by_group, NUM_GROUPS), jnp.zeros(1), NUM_PARTICLES, True)
    one_step = run(jax.random.key(0), actions(1))
    np.testing.assert_allclose(one_step, 5 / 3 + np.arange(NUM_CANDIDATES), rtol=1e-6)
    got = np.stack([run(jax.random.key(k), actions(3)) for k in range(20)]) - np.arange(NUM_CANDIDATES)
    # The same for all candidates of a call; less spread than 70 / 3, for nobody goes on by 2 for good.
    np.testing.assert_allclose(got, np.broadcast_to(got[:, :1], got.shape), rtol=1e-5)
    assert len(np.unique(got[:, 0])) > 3
    # E of the sum of squares of partial sums: 1 * 5/3 + (2/3 * 2 + 4) + (2/3 * 3 + 9) with variance 2/3 and mean 1.
    np.testing.assert_allclose(got.mean(), 5 / 3 + 16 / 3 + 11, rtol=0.05)


def test_a_particle_that_ended_earns_nothing_more():
    def step(key, group, obs, action):
        return obs + 1.0, jnp.ones(len(obs)), obs[:, 0] + 1.0 >= action[:, 0]

    ends_after = jnp.array([1.0, 2.0, 9.0])[:, None, None] * jnp.ones((3, 4, 1))
    got = score(Dynamics(step), jnp.zeros(1), 2, False, jax.random.key(0), ends_after)
    np.testing.assert_array_equal(got, [1.0, 2.0, 4.0])


@pytest.mark.parametrize("broken", [np.nan, np.inf, 10 * health.LIMIT])
def test_a_prediction_that_exploded_is_worse_than_any_reward(broken):
    def step(key, group, obs, action):
        return obs, jnp.where((action[:, 0] > 0) & (group == 1), broken, 5.0), jnp.zeros(len(obs), bool)

    candidates = jnp.array([0.0, 1.0])[:, None, None]
    got = score(Dynamics(step, 2), jnp.zeros(1), 4, True, jax.random.key(0), candidates)
    np.testing.assert_allclose(got, [5.0, (FAILED + 5.0) / 2])


def test_noise_differs_between_particles_candidates_and_steps():
    drawn = []

    def step(key, group, obs, action):
        noise = jax.random.normal(key, (len(obs),))
        jax.debug.callback(lambda x: drawn.append(np.asarray(x)), noise)
        return obs, noise, jnp.zeros(len(obs), bool)

    score(Dynamics(step, 2), jnp.zeros(1), 4, True, jax.random.key(0), actions(3))
    jax.effects_barrier()
    assert len(np.unique(np.concatenate(drawn))) == 4 * NUM_CANDIDATES * 3
