"""Standardisation of a model's inputs and targets."""

import jax.numpy as jnp
from flax import struct

from mbpo_jax.types import Array

MIN_STD = 1e-12  # below this, a dimension counts as constant and is left unscaled, as in the official code


class Normalizer(struct.PyTreeNode, kw_only=True):
    """Mean and standard deviation per dimension."""

    mean: Array  # [I]
    std: Array  # [I]


def identity(num_dims: int) -> Normalizer:
    """Returns a normalizer that changes nothing."""
    return Normalizer(mean=jnp.zeros(num_dims), std=jnp.ones(num_dims))


def from_moments(mean: Array, variance: Array) -> Normalizer:
    """Returns a normalizer from means and variances [I]; constant dimensions keep a scale of one."""
    std = jnp.sqrt(jnp.maximum(variance, 0.0))
    return Normalizer(mean=mean, std=jnp.where(std < MIN_STD, 1.0, std))


def normalize(normalizer: Normalizer | None, x: Array) -> Array:
    """Standardises x [..., I]; None leaves it unchanged."""
    if normalizer is None:
        return x
    mean, std = jnp.broadcast_to(normalizer.mean, x.shape), jnp.broadcast_to(normalizer.std, x.shape)
    return (x - mean) / std


def denormalize(normalizer: Normalizer | None, x: Array) -> Array:
    """Inverts `normalize`."""
    return x if normalizer is None else normalizer.mean + normalizer.std * x
