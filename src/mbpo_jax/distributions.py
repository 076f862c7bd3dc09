"""Densities, as arithmetic on their parameters. Noise is an argument, so tests and scans can draw it themselves."""

import math

import chex
import jax
import jax.numpy as jnp

from mbpo_jax.types import Array


@jax.custom_jvp
def softplus(x: Array) -> Array:
    """Returns log(1 + exp(x)), with the sigmoid as its derivative.

    `jax.nn.softplus` is slower on CPU, in both value and derivative, and the model's fit evaluates the bounds below for
    every target of every row.
    """
    return jnp.maximum(x, 0.0) + jnp.log(1.0 + jnp.exp(-jnp.abs(x)))


@softplus.defjvp
def _softplus_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (tangent,) = primals, tangents
    return softplus(x), jax.nn.sigmoid(x) * tangent


def bound_log_var(raw: Array, min_log_var: Array, max_log_var: Array) -> Array:
    """Bounds log-variances [..., D] softly between learned limits [D].

    References: Chua et al. 2018 (PETS), Appendix A.1.
    """
    min_log_var = jnp.broadcast_to(min_log_var, raw.shape)
    max_log_var = jnp.broadcast_to(max_log_var, raw.shape)
    log_var = max_log_var - softplus(max_log_var - raw)
    return min_log_var + softplus(log_var - min_log_var)


def gaussian_nll(mean: Array, log_var: Array, target: Array) -> Array:
    """Returns the negative log-likelihood of a diagonal Gaussian, times two and without the constant.

    Args:
      mean, log_var, target: [..., D]; mean in units of target, log_var in log of their square.
    Returns:
      [...], averaged over D: (target - mean)^2 / variance + log_var, the form of the official code (no 1/2).
    References: Chua et al. 2018 (PETS), Eq. 1.
    """
    chex.assert_equal_shape([mean, log_var, target])
    return jnp.mean(jnp.square(target - mean) * jnp.exp(-log_var) + log_var, axis=-1)


def tanh_gaussian(mean: Array, log_std: Array, noise: Array) -> tuple[Array, Array]:
    """Returns a tanh-squashed Gaussian sample and its log-density.

    Args:
      mean, log_std, noise: [..., A]; `noise` is standard normal.
    Returns:
      action [..., A] in [-1, 1]; log_prob [...], nats, of the squashed action.
    References: Haarnoja et al. 2018 (SAC), Appendix C, Eq. 21.
    """
    chex.assert_equal_shape([mean, log_std, noise])
    pre_tanh = mean + jnp.exp(log_std) * noise
    log_prob = -0.5 * jnp.square(noise) - log_std - 0.5 * math.log(2.0 * math.pi)
    # log(1 - tanh(x)^2), which stays exact where 1 - tanh(x)^2 underflows (|x| > 10)
    log_det = 2.0 * (math.log(2.0) - pre_tanh - softplus(-2.0 * pre_tanh))
    return jnp.tanh(pre_tanh), jnp.sum(log_prob - log_det, axis=-1)
