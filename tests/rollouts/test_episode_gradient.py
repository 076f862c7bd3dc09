"""The backward recursion of SVG(inf): by hand, and against automatic differentiation of the same graph."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.rollouts import episode_gradient

DISCOUNT = 0.9


def linear_quadratic(theta, obs, noise):
    """x' = 0.8 x + 0.5 a + xi with a = theta x + eta; reward -(x^2 + 0.1 a^2)."""
    eta, xi = noise
    action = theta * obs[0] + eta
    return -(obs[0] ** 2 + 0.1 * action**2), jnp.array([0.8 * obs[0] + 0.5 * action + xi])


def test_two_steps_of_a_linear_quadratic_system_are_those_worked_by_hand():
    """Without noise, theta = -0.2: x is 2, then 0.7 x; a' = theta x. The return is a polynomial of theta."""
    obs = jnp.array([[2.0], [1.4]])

    def total(theta, x=2.0):
        u = 0.8 + 0.5 * theta
        return -(x**2) * (1 + 0.1 * theta**2) - DISCOUNT * (u * x) ** 2 * (1 + 0.1 * theta**2)

    noise = jnp.zeros(2), jnp.zeros(2)
    v_theta, v_obs = episode_gradient.backward(linear_quadratic, -0.2, obs, noise, jnp.ones(2, bool), DISCOUNT)
    # By the chain rule, with u = 0.7: -4 * 0.2 theta - 0.9 * 4 (2 u * 0.5 (1 + 0.1 theta^2) + u^2 0.2 theta)
    by_hand = 0.16 - 3.6 * (0.7 * 1.004 - 0.49 * 0.04)
    assert v_theta == pytest.approx(by_hand, rel=1e-5)
    assert v_theta == pytest.approx((total(-0.199) - total(-0.201)) / 0.002, rel=1e-4)
    assert v_obs[0] == pytest.approx((total(-0.2, 2.001) - total(-0.2, 1.999)) / 0.002, rel=1e-4)


def wide(theta, obs, noise):
    """Two states and actions, a policy of two parameters' trees, a nonlinear model with multiplied noise."""
    eta, xi = noise
    action = jnp.tanh(theta["kernel"] @ obs + theta["bias"] + eta)
    next_obs = obs + 0.3 * jnp.sin(obs[::-1]) + 0.2 * action * (1.0 + 0.5 * xi)
    return jnp.cos(obs[0]) + obs[1] * action[0] - jnp.sum(action**2), next_obs


def test_the_recursion_equals_automatic_differentiation_of_the_same_graph():
    """The episode of 7 steps lies in a window of 10; what stands after it counts nothing."""
    keys = jax.random.split(jax.random.key(0), 5)
    theta = {"kernel": jax.random.normal(keys[0], (2, 2)), "bias": jax.random.normal(keys[1], (2,))}
    noise = jax.random.normal(keys[2], (10, 2)), jax.random.normal(keys[3], (10, 2))
    start, num_steps = jax.random.normal(keys[4], (2,)), 7

    def play(theta, start):
        obs, total, seen = start, 0.0, []
        for t in range(num_steps):
            seen.append(obs)
            reward, obs = wide(theta, obs, jax.tree.map(lambda leaf: leaf[t], noise))  # noqa: B023
            total += DISCOUNT**t * reward
        return total, jnp.stack(seen)

    (expected_theta, expected_obs), real = jax.grad(play, argnums=(0, 1), has_aux=True)(theta, start)
    obs, inside = jnp.concatenate([real, 5.0 * jnp.ones((3, 2))]), jnp.arange(10) < num_steps
    v_theta, v_obs = episode_gradient.backward(wide, theta, obs, noise, inside, DISCOUNT)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), v_theta, expected_theta)
    np.testing.assert_allclose(v_obs, expected_obs, rtol=1e-4, atol=1e-5)
    assert float(jnp.abs(v_theta["kernel"]).max()) > 0.1


def test_no_episode_gives_no_gradient():
    noise = jnp.ones(3), jnp.ones(3)
    v_theta, v_obs = episode_gradient.backward(
        linear_quadratic, -0.2, jnp.ones((3, 1)), noise, jnp.zeros(3, bool), DISCOUNT
    )
    assert (float(v_theta), v_obs.tolist()) == (0.0, [0.0])
