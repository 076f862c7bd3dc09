"""Gradients of an actor through a model, in linear systems with quadratic rewards: by hand and by differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.agents import sac
from mbpo_jax.rollouts import pathwise
from mbpo_jax.types import Agent, Critic, Dynamics, Spec, Transition

KEY = jax.random.key(0)
DISCOUNT = 0.9


def linear(limit=jnp.inf):
    """x' = x + a, reward -x'^2."""

    def step(key, group, obs, action):
        next_obs = obs + action
        return next_obs, -jnp.square(next_obs[:, 0]), jnp.abs(next_obs[:, 0]) >= limit

    return Dynamics(step, 1)


def feedback(bonus=0.0):
    """Acts -theta x, with a bonus for it of so many times theta; its critic says -3 x^2 - a^2."""

    def draw(key, state, theta, obs):
        return -theta * obs, jnp.full(len(obs), bonus * theta), jnp.full(len(obs), 7.0)

    def q(state, obs, action):
        return -3.0 * jnp.square(obs[:, 0])[None] - jnp.square(action[:, 0])[None]

    return Agent(*[None] * 4, critic=Critic(q, None, None), draw=draw)


def batch(*starts):
    obs = jnp.asarray(starts, jnp.float32)[:, None]
    return Transition(obs=obs, action=obs, reward=obs[:, 0], next_obs=obs, terminal=obs[:, 0])


@pytest.mark.parametrize("num_steps", [1, 2, 4])
def test_the_gradient_of_a_linear_quadratic_system_is_the_one_worked_by_hand(num_steps):
    """x_t = 2 u^t with u = 1 - theta, so the value is a polynomial of u."""

    def value(theta):
        u = 1.0 - theta
        paid = -sum(DISCOUNT**t * (2 * u ** (t + 1)) ** 2 for t in range(num_steps))
        last = 2 * u**num_steps
        return paid + DISCOUNT**num_steps * (-3 * last**2 - (theta * last) ** 2)

    def loss(theta):
        return pathwise.actor_loss(linear(), feedback(), num_steps, DISCOUNT, KEY, theta, None, batch(2.0))[0]

    found, gradient = jax.value_and_grad(loss)(0.3)
    assert found == pytest.approx(-value(0.3), rel=1e-5)
    assert gradient == pytest.approx(-(value(0.3001) - value(0.2999)) / 0.0002, rel=1e-4)


def test_bonuses_count_from_the_first_action_to_the_last_one():
    how = linear(), feedback(bonus=10.0), 2, DISCOUNT, KEY, 0.3, None, batch(2.0)
    without = linear(), feedback(), 2, DISCOUNT, KEY, 0.3, None, batch(2.0)
    (loss, log_prob), (plain, _) = pathwise.actor_loss(*how), pathwise.actor_loss(*without)
    assert loss - plain == pytest.approx(-3.0 * (1 + 0.9 + 0.81), rel=1e-5)
    assert log_prob.tolist() == [7.0]


def test_nothing_is_earned_or_learnt_after_an_end():
    """From 2, the first action leads to 1.4, which ends; from 0.5 none does."""

    def loss(theta, start):
        dynamics = linear(limit=1.3)
        return pathwise.actor_loss(dynamics, feedback(), 3, DISCOUNT, KEY, theta, None, batch(start))[0]

    found, gradient = jax.value_and_grad(loss)(0.3, 2.0)
    assert found == pytest.approx(1.4**2, rel=1e-5)
    assert gradient == pytest.approx(-2 * 1.4 * 2.0, rel=1e-5)
    assert loss(0.3, 0.5) > 0.35**2 + 1e-3


def test_the_loss_is_a_mean_over_rows():
    def loss(*starts):
        return float(pathwise.actor_loss(linear(), feedback(), 2, DISCOUNT, KEY, 0.3, None, batch(*starts))[0])

    assert loss(1.0, 2.0) == pytest.approx((loss(1.0) + loss(2.0)) / 2, rel=1e-5)


def test_sac_s_gradient_agrees_with_differences_along_a_direction():
    """Two steps of the linear system, SAC's noise held fixed by the key."""
    spec = Spec(obs_dim=1, action_dim=1)
    agent = sac.build(sac.SacConfig(hidden_units=16, num_hidden_layers=1), spec)
    state, rows = agent.init(jax.random.key(1)), batch(*np.linspace(-1.0, 1.0, 32))
    direction = jax.tree.map(lambda leaf: jax.random.normal(jax.random.key(leaf.size), leaf.shape), state.actor.params)

    def loss(step):
        moved = jax.tree.map(lambda leaf, way: leaf + step * way, state.actor.params, direction)
        return pathwise.actor_loss(linear(), agent, 2, DISCOUNT, KEY, moved, state, rows)[0]

    gradient = float(jax.grad(loss)(0.0))
    assert abs(gradient) > 0.1
    assert gradient == pytest.approx(float(loss(3e-3) - loss(-3e-3)) / 6e-3, rel=0.02)
