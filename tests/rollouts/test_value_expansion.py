"""Targets worked by hand, in a world of one number that grows by one a step and is its own reward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.rollouts import value_expansion
from mbpo_jax.types import Agent, Critic, Dynamics, Transition

DISCOUNT = 0.5
BONUS = 8.0  # of every action of a target
KEY = jax.random.key(0)


def counting(limit=jnp.inf, broken_at=jnp.inf):
    """The reward of a step is the number before it, plus a thousand times the action."""

    def step(key, group, obs, action):
        next_obs = jnp.where(obs + 1.0 > broken_at, jnp.nan, obs + 1.0)
        return next_obs, obs[:, 0] + 1000.0 * action[:, 0], next_obs[:, 0] >= limit

    return Dynamics(step, 1)


def critic():
    """Two critics, which say 100 and 10 more than the number, plus the action; every action of a target is 0.25."""

    def q(state, obs, action):
        return jnp.stack([100.0 + obs[:, 0], 10.0 + obs[:, 0]]) + action[:, 0]

    def act(key, state, obs):
        return jnp.full((len(obs), 1), 0.25), jnp.full(len(obs), BONUS)

    return Critic(q_values=lambda *_: 1 / 0, target_q_values=q, target_action=act, has_entropy=True)


def batch(next_obs, terminal=0.0):
    """One row: it was at 40, did 0.5, got 7."""
    one = jnp.ones((1, 1))
    return Transition(
        obs=40.0 * one, action=0.5 * one, reward=7.0 * one[0], next_obs=next_obs * one, terminal=terminal * one[0]
    )


def expand(rows, dynamics, num_steps, regress_on_imagined=True, act=None):
    agent = Agent(*[None] * 4, critic=critic() if act is None else critic()._replace(target_action=act))
    how = dynamics, agent, num_steps, DISCOUNT, regress_on_imagined
    found = jax.jit(lambda rows: value_expansion.expand(*how, KEY, None, rows))(rows)
    return jax.tree.map(lambda leaf: np.asarray(leaf).tolist(), found)


def test_two_imagined_steps_by_hand():
    """From 3: rewards 3 + 250 and 4 + 250, then the smaller critic at 5, which says 15.25."""
    last = 253 + 1  # reward at 4
    q_of_second = last + 0.5 * (15.25 + BONUS)
    q_of_first = 253 + 0.5 * (q_of_second + BONUS)
    found = expand(batch(3.0), counting(), 2)
    assert found.obs == [[40.0], [3.0], [4.0]]
    assert found.action == [[0.5], [0.25], [0.25]]
    assert found.target == [7 + 0.5 * (q_of_first + BONUS), q_of_first, q_of_second]
    assert found.weight == [1.0, 1.0, 1.0]


def test_the_tail_is_discounted_by_the_steps_that_are_left():
    """The number counts for nothing here: targets of H imagined steps differ by the critic's part alone."""
    zeros = Dynamics(lambda key, group, obs, action: (obs, 0.0 * obs[:, 0], jnp.zeros(len(obs), bool)), 1)
    act = lambda key, state, obs: (jnp.zeros((len(obs), 1)), jnp.zeros(len(obs)))  # noqa: E731
    rows = batch(0.0).replace(reward=jnp.zeros(1))
    assert expand(rows, zeros, 3, act=act).target == [10.0 / 16, 10.0 / 8, 10.0 / 4, 10.0 / 2]


def test_nothing_follows_an_imagined_end_and_what_is_after_it_weighs_nothing():
    """From 3 the second step reaches 5, which ends the episode."""
    q_of_second = 254.0
    q_of_first = 253 + 0.5 * (q_of_second + BONUS)
    found = expand(batch(3.0), counting(limit=5.0), 4)
    assert found.target[:3] == [7 + 0.5 * (q_of_first + BONUS), q_of_first, q_of_second]
    assert found.weight == [1.0, 1.0, 1.0, 0.0, 0.0]


def test_nothing_follows_a_real_end():
    found = expand(batch(3.0, terminal=1.0), counting(), 2)
    assert found.target[0] == 7.0
    assert found.weight == [1.0, 0.0, 0.0]


def test_a_row_whose_prediction_explodes_is_not_learnt_from():
    rows = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), batch(3.0), batch(0.0))
    found = expand(rows, counting(broken_at=4.5), 2)
    assert found.weight == [0.0, 1.0, 0.0, 1.0, 0.0, 1.0]
    assert np.isfinite(found.target).all()


def test_a_row_that_ended_is_learnt_from_whatever_would_have_followed():
    found = expand(batch(3.0, terminal=1.0), counting(broken_at=3.5), 2)
    assert found.target[0] == 7.0
    assert found.weight == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("num_steps", [1, 3])
def test_the_real_rows_alone_have_the_same_targets(num_steps):
    every = expand(batch(3.0), counting(), num_steps)
    real = expand(batch(3.0), counting(), num_steps, regress_on_imagined=False)
    assert real == type(real)(*(leaf[:1] for leaf in every))
