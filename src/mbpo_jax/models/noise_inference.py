"""Real steps as a model explains them: by the noise with which it would have predicted them.

Reference: Heess et al. 2015 (SVG), which infers a model's noise from real steps, and differentiates the steps with it.
"""

from typing import NamedTuple

import jax.numpy as jnp

from mbpo_jax import ensemble
from mbpo_jax.models.encoding import Encoding
from mbpo_jax.types import Array, PyTree, RewardFn, Transition, WorldModel


class NoiseInference(NamedTuple):
    """What the functions below need: a model, whose best elite is asked, and its encoding."""

    world: WorldModel
    encoding: Encoding
    reward_fn: RewardFn | None = None  # None: the reward is the model's, too


def noise_of(inference: NoiseInference, belief: PyTree, rows: Transition) -> Array:
    """Returns the standard normal noise [B, D] for which the model says what happened in rows [B, ...]."""
    mean, log_var = _predict(inference, belief, rows.obs, rows.action)
    return (inference.encoding.examples(rows)[1] - mean) * jnp.exp(-0.5 * log_var)


def move(inference: NoiseInference, belief: PyTree, obs: Array, action: Array, noise: Array) -> tuple[Array, Array]:
    """Returns the (next_obs [B, O], reward [B]) of the model for noise [B, D]; a known reward is taken."""
    mean, log_var = _predict(inference, belief, obs, action)
    next_obs, reward = inference.encoding.decode(obs, action, mean + jnp.exp(0.5 * log_var) * noise)
    return next_obs, reward if inference.reward_fn is None else inference.reward_fn(obs, action, next_obs)


def repeat(inference: NoiseInference, belief: PyTree, rows: Transition, action: Array) -> tuple[Array, Array]:
    """Returns the (next_obs [B, O], reward [B]) of rows [B, ...] with other actions [B, A] and the noise that was."""
    return move(inference, belief, rows.obs, action, noise_of(inference, belief, rows))


def _predict(inference: NoiseInference, belief: PyTree, obs: Array, action: Array) -> tuple[Array, Array]:
    mean, log_var = inference.world.predict(belief, obs, action)
    return ensemble.member(mean, belief.elites[0]), ensemble.member(log_var, belief.elites[0])
