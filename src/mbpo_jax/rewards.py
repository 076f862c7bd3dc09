"""Reward functions of tasks where they are known: `--reward_fn=mbpo_jax.rewards:NAME` uses one instead of learning it.

All of them share one signature, with actions in [-1, 1] as everywhere in algorithms:

  (obs [..., O], action [..., A], next_obs [..., O]) -> float [...]

They are here and not next to their environments because those do not import jax.
"""

import jax.numpy as jnp

from mbpo_jax.types import Array, RewardFn

PETS_POLE_LENGTH = 0.6  # m
PETS_MAX_CONTROL = 3.0  # of the motor, at an action of 1
PENDULUM_MAX_TORQUE = 2.0  # N m, at an action of 1


def one_each_step(obs: Array, action: Array, next_obs: Array) -> Array:
    """Returns 1: the reward per step of balancing cart-poles (CartpoleContinuous, InvertedPendulum-v4)."""
    del obs, action
    return jnp.ones(next_obs.shape[:-1])


def pets_cartpole(obs: Array, action: Array, next_obs: Array) -> Array:
    """Returns exp(-d^2 / l^2) - 0.01 a^2 with d the distance of the pole's tip from its highest position above x = 0.

    next_obs = [x, angle from hanging, ...]; l = 0.6 m is the pole's length, a the motor's control.
    """
    del obs
    x, angle = next_obs[..., 0], next_obs[..., 1]
    aside = x - PETS_POLE_LENGTH * jnp.sin(angle)
    below = -PETS_POLE_LENGTH * jnp.cos(angle) - PETS_POLE_LENGTH
    near = jnp.exp(-(jnp.square(aside) + jnp.square(below)) / PETS_POLE_LENGTH**2)
    return near - 0.01 * jnp.sum(jnp.square(PETS_MAX_CONTROL * action), axis=-1)


def pets_half_cheetah(obs: Array, action: Array, next_obs: Array) -> Array:
    """Returns v - 0.1 |a|^2 with next_obs = [v, ...], the forward velocity (m/s) of the step."""
    del obs
    return next_obs[..., 0] - 0.1 * jnp.sum(jnp.square(action), axis=-1)


def pendulum(obs: Array, action: Array, next_obs: Array) -> Array:
    """Returns Gymnasium's Pendulum-v1 reward, -(angle^2 + 0.1 speed^2 + 0.001 torque^2), of the state before the step.

    obs = [cos, sin, speed] of the angle from upright.
    """
    del next_obs
    angle = jnp.arctan2(obs[..., 1], obs[..., 0])
    torque = PENDULUM_MAX_TORQUE * action[..., 0]
    return -(jnp.square(angle) + 0.1 * jnp.square(obs[..., 2]) + 0.001 * jnp.square(torque))


def line_world(obs: Array, action: Array, next_obs: Array) -> Array:
    """Returns -0.001 x^2 with next_obs = [x, ...]."""
    del obs, action
    return -0.001 * jnp.square(next_obs[..., 0])


KNOWN: dict[str, RewardFn] = {
    f"mbpo_jax.rewards:{fn.__name__}": fn
    for fn in (one_each_step, pets_cartpole, pets_half_cheetah, pendulum, line_world)
}
"""Functions that a saved policy may refer to by name: they are looked up here, so that nothing is imported by name."""
