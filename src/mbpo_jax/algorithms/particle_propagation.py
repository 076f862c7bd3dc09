"""How PETS moves particles through an ensemble: trajectory sampling, expectation, and moment matching.

Reference: Chua et al. 2018 (PETS), section 5; official code kchua/handful-of-trials, `dmbrl/controllers/MPC.py`.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from mbpo_jax.algorithms import phases
from mbpo_jax.models.encoding import Encoding
from mbpo_jax.types import Array, Dynamics, Key, PyTree, Spec, WorldModel

TS1, TSINF, EXPECTATION, DS, MM = KINDS = ("ts1", "tsinf", "expectation", "ds", "mm")
SAMPLED = (TS1, TSINF)  # each particle is moved by one member
JOINT = (EXPECTATION, DS, MM)  # each particle is moved by all members

StepFn = Callable[[Key, Array, Array], tuple[Array, Array]]  # (key, obs, action) [B, ...] -> (next_obs, reward)


def dynamics(
    kind: str, world: WorldModel, encoding: Encoding, spec: Spec, num_particles: int, belief: PyTree
) -> Dynamics:
    """Returns the dynamics of particles: a version for each member, or one for all of them.

    Args:
      encoding: the world model's.
      num_particles: of each candidate. MM expects rows [B] in order of particles, each with all candidates.
    """
    if kind in SAMPLED:
        return phases.learned_dynamics(world, belief, spec)
    parts = world, encoding, belief
    steps: dict[str, StepFn] = {
        EXPECTATION: functools.partial(_expect, *parts),
        DS: functools.partial(_sample, *parts),
        MM: functools.partial(_match, *parts, num_particles),
    }
    move, ends = steps[kind], phases.rule_of(world, belief, spec)

    def step(key: Key, group: Array, obs: Array, action: Array) -> tuple[Array, Array, Array]:
        next_obs, reward = move(key, obs, action)
        if spec.reward_fn is not None:
            reward = spec.reward_fn(obs, action, next_obs)
        return next_obs, reward, ends(obs, action, next_obs)

    return Dynamics(step)


def moments(world: WorldModel, belief: PyTree, obs: Array, action: Array) -> tuple[Array, Array]:
    """Returns mean and variance [B, D] of the targets over all members together, their disagreement included."""
    mean, log_var = world.predict(belief, obs, action)
    return jnp.mean(mean, axis=0), jnp.var(mean, axis=0) + jnp.mean(jnp.exp(log_var), axis=0)


def _expect(
    world: WorldModel, encoding: Encoding, belief: PyTree, key: Key, obs: Array, action: Array
) -> tuple[Array, Array]:
    """Moves rows by the mean of all members."""
    mean, _ = moments(world, belief, obs, action)
    return encoding.decode(obs, action, mean)


def _sample(
    world: WorldModel, encoding: Encoding, belief: PyTree, key: Key, obs: Array, action: Array
) -> tuple[Array, Array]:
    """Moves each row by a draw from the Gaussian with the moments of all members."""
    mean, variance = moments(world, belief, obs, action)
    return encoding.decode(obs, action, mean + jnp.sqrt(variance) * jax.random.normal(key, mean.shape))


def _match(
    world: WorldModel,
    encoding: Encoding,
    belief: PyTree,
    num_particles: int,
    key: Key,
    obs: Array,
    action: Array,
) -> tuple[Array, Array]:
    """Moves rows as `_sample` does, then redraws each candidate's particles from the Gaussian with their moments."""
    key_sample, key_match = jax.random.split(key)
    next_obs, reward = _sample(world, encoding, belief, key_sample, obs, action)
    particles = next_obs.reshape(num_particles, -1, next_obs.shape[-1])
    noise = jax.random.normal(key_match, particles.shape)
    matched = jnp.mean(particles, 0, keepdims=True) + jnp.std(particles, 0, keepdims=True) * noise
    return matched.reshape(next_obs.shape), reward
