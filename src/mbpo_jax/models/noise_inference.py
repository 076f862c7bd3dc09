"""Inferring a model's noise: that with which it would have predicted the real steps.

Reference: Heess et al. 2015 (SVG), which infers a model's noise from real steps, and differentiates the steps with it.
"""

from typing import NamedTuple

import jax.numpy as jnp

from mbpo_jax import ensemble
from mbpo_jax.models.encoding import Encoding
from mbpo_jax.types import Array, PyTree, RewardFn, Transition, WorldModel


class NoiseInference(NamedTuple):
    """The static parts, passed to the functions below: a model, of which the best elite is used, and its encoding."""

    world: WorldModel
    encoding: Encoding
    reward_fn: RewardFn | None = None  # None: the model also predicts the reward


def noise_of(inference: NoiseInference, belief: PyTree, rows: Transition) -> Array:
    """Returns the standard normal noise [B, D] with which the model predicts exactly what happened in rows [B, ...]."""
    mean, log_var = _predict(inference, belief, rows.obs, rows.action)
    return (inference.encoding.examples(rows)[1] - mean) * jnp.exp(-0.5 * log_var)


def move(inference: NoiseInference, belief: PyTree, obs: Array, action: Array, noise: Array) -> tuple[Array, Array]:
    """Returns the model's (next_obs [B, O], reward [B]) for noise [B, D]; a known reward function takes precedence."""
    mean, log_var = _predict(inference, belief, obs, action)
    next_obs, reward = inference.encoding.decode(obs, action, mean + jnp.exp(0.5 * log_var) * noise)
    return next_obs, reward if inference.reward_fn is None else inference.reward_fn(obs, action, next_obs)


def repeat(inference: NoiseInference, belief: PyTree, rows: Transition, action: Array) -> tuple[Array, Array]:
    """Returns the (next_obs [B, O], reward [B]) of rows [B, ...] with other actions [B, A] but the inferred noise."""
    return move(inference, belief, rows.obs, action, noise_of(inference, belief, rows))


def _predict(inference: NoiseInference, belief: PyTree, obs: Array, action: Array) -> tuple[Array, Array]:
    mean, log_var = inference.world.predict(belief, obs, action)
    return ensemble.member(mean, belief.elites[0]), ensemble.member(log_var, belief.elites[0])
