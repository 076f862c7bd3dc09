"""Regression by one Gaussian process: a squared-exponential kernel with a length scale for each input, and noise.

All arrays have a static number M of inducing rows; those marked `used` are rows of the data. The others have a variance
of 1 and no covariance with any row, so they change no result, and the data can grow without changing shapes.

The covariance is k(x, x'), plus a small nugget where x and x' are the same row. This lets covariances be factored in
float32, and if all rows are inducing rows, the sparse posterior equals the exact one, nugget included.

References: Rasmussen and Williams 2006, "Gaussian Processes for Machine Learning", chapters 2, 5 and 8.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from mbpo_jax.factorizations import cholesky, singular_values, solve_lower, solve_upper, upper_factor
from mbpo_jax.types import Array

LIMIT = math.log(
    100.0
)  # bound on the logarithm of every hyperparameter; beyond it, nothing changes for inputs and targets of scale 1
NUGGET = 1e-4  # share of the signal variance; with it, float32 can factor the covariance of 1,000 identical rows
FIRST_NOISE = math.log(0.1)  # log of the noise's standard deviation where a first fit starts; the others start at 1


class Hyperparameters(struct.PyTreeNode, kw_only=True):
    """Unconstrained parameters; `scales` converts them to scales and variances."""

    length: Array  # [I]
    signal: Array  # []
    noise: Array  # []


class Scales(NamedTuple):
    """The scales and variances of a process, in units of scaled inputs and targets."""

    length: Array  # [I]
    signal_variance: Array  # []
    noise_variance: Array  # [], without the nugget
    nugget: Array  # [], variance


class Rows(NamedTuple):
    """Rows that a process is conditioned on."""

    x: Array  # [M, I], scaled
    y: Array  # [M], scaled
    used: Array  # [M], bool


class Sums(NamedTuple):
    """What the rows added so far say about the inducing rows."""

    root: Array  # [M, M], lower: the covariance of the inducing rows is root @ root.T
    factor: Array  # [M + 1, M + 1], upper: the least-squares problem of the posterior, factored


class Posterior(struct.PyTreeNode, kw_only=True):
    """What predicting reads besides hyperparameters and inducing rows."""

    weights: Array  # [M]
    known: Array  # [M, M]: |known @ k|^2 is by how much the rows reduce the variance at a point with covariances k


def initial(num_inputs: int) -> Hyperparameters:
    """Returns the hyperparameters that a first fit starts from."""
    noise = LIMIT * math.atanh(FIRST_NOISE / LIMIT)
    return Hyperparameters(length=jnp.zeros(num_inputs), signal=jnp.zeros(()), noise=jnp.asarray(noise, jnp.float32))


def scales(hyper: Hyperparameters) -> Scales:
    """Converts hyperparameters; length scales and standard deviations lie between 1 / 100 and 100."""
    log = jax.tree.map(lambda free: LIMIT * jnp.tanh(free / LIMIT), hyper)
    signal_variance = jnp.exp(2.0 * log.signal)
    return Scales(jnp.exp(log.length), signal_variance, jnp.exp(2.0 * log.noise), NUGGET * signal_variance)


def total_noise(hyper: Hyperparameters) -> Array:
    """Returns the variance [] of a target around the function, the nugget included."""
    scale = scales(hyper)
    return scale.nugget + scale.noise_variance


def kernel(scale: Scales, a: Array, b: Array) -> Array:
    """Returns covariances [A, B] of the function's values at a [A, I] and b [B, I], without the nugget.

    Distances are sums of squared differences; computed by matrix products, they would be off by more than the nugget.
    """
    columns = zip((a / scale.length[None]).T, (b / scale.length[None]).T)
    distance = sum(jnp.square(one[:, None] - other[None, :]) for one, other in columns)
    return scale.signal_variance * jnp.exp(-0.5 * distance)


def evidence(hyper: Hyperparameters, rows: Rows) -> Array:
    """Returns the log marginal likelihood [] of the targets, in nats."""
    covariance = _covariance(scales(hyper), rows.x, rows.used, total_noise(hyper))
    constant = 0.5 * math.log(2.0 * math.pi) * jnp.sum(rows.used)
    return _log_density(covariance, rows.y * rows.used) - constant


@jax.custom_vjp
def _log_density(covariance: Array, y: Array) -> Array:
    """Returns the log-density [] of y [M] under a Gaussian, without its constant.

    Its derivative is in closed form: on a CPU, differentiating through the Cholesky factor takes ten times as long.
    """
    return _log_density_forward(covariance, y)[0]


def _log_density_forward(covariance: Array, y: Array) -> tuple[Array, tuple[Array, Array]]:
    root = cholesky(covariance)
    whitened = solve_lower(root, y)
    value = -0.5 * jnp.sum(jnp.square(whitened)) - jnp.sum(jnp.log(jnp.diagonal(root)))
    return value, (root, whitened)


def _log_density_backward(kept: tuple[Array, Array], above: Array) -> tuple[Array, Array]:
    """Returns `above` times (w w' - inverse) / 2 and -w, with w = inverse y.

    References: Rasmussen and Williams 2006, section 5.4.1.
    """
    root, whitened = kept
    inverse_root = solve_lower(root, jnp.eye(len(whitened)))
    weights = _times(inverse_root.T, whitened)
    slope = 0.5 * (weights[:, None] * weights[None, :] - _times(inverse_root.T, inverse_root))
    return above * slope, -above * weights


_log_density.defvjp(_log_density_forward, _log_density_backward)


def left_out_errors(hyper: Hyperparameters, rows: Rows) -> Array:
    """Returns the error [M] of each target's leave-one-out prediction by the other rows; 0 for unused rows.

    References: Rasmussen and Williams 2006, section 5.4.2.
    """
    covariance = _covariance(scales(hyper), rows.x, rows.used, total_noise(hyper))
    root = cholesky(covariance)
    inverse_root = solve_lower(root, jnp.eye(len(rows.y)))
    weights = _times(inverse_root.T, _times(inverse_root, rows.y * rows.used))
    return weights / jnp.sum(jnp.square(inverse_root), axis=0)


def _covariance(scale: Scales, x: Array, used: Array, extra: Array) -> Array:
    """Returns the covariance [M, M] of rows, with `extra` added to each variance; the identity for unused rows."""
    covariance = jnp.where(used[:, None] & used[None, :], kernel(scale, x, x), 0.0)
    return covariance + jnp.diag(jnp.where(used, extra, 1.0))


# -- the posterior -----------------------------------------------------------------------------------------------


def no_rows(hyper: Hyperparameters, x: Array, used: Array) -> Sums:
    """Returns the sums before any row is added: those of the prior covariance of the inducing rows x [M, I]."""
    scale, size = scales(hyper), len(used)
    root = cholesky(_covariance(scale, x, used, scale.nugget))
    return Sums(root, jnp.diag(jnp.ones(size + 1).at[size].set(0.0)))


def add_rows(hyper: Hyperparameters, x: Array, used: Array, sums: Sums, rows: Rows, same: Array) -> Sums:
    """Adds rows [B] to what is known about the inducing rows [M].

    With w the whitened values of the process at the inducing rows, the posterior mean minimises |w|^2 + |A w - y|^2 /
    noise. The normal equations would square the condition number of A, too much for float32; a QR factor does not.

    Args:
      same: [M, B], bool, which inducing row is the same as which row.
    """
    scale = scales(hyper)
    covariance = kernel(scale, x, rows.x) + scale.nugget * same
    covariance = jnp.where(used[:, None] & rows.used[None, :], covariance, 0.0)
    whitened = solve_lower(sums.root, covariance)  # [M, B]
    equations = jnp.concatenate([whitened, (rows.y * rows.used)[None]]).T / jnp.sqrt(scale.noise_variance)
    return sums._replace(factor=upper_factor(jnp.concatenate([sums.factor, equations])))


def posterior(sums: Sums, used: Array) -> Posterior:
    """Returns the posterior given all rows that were added: a projected process, exact if all were inducing rows.

    References: Rasmussen and Williams 2006, section 8.3.4.
    """
    size = len(used)
    factor, target = sums.factor[:size, :size], sums.factor[:size, size]
    inverse_root = solve_lower(sums.root, jnp.eye(size))
    weights = _times(inverse_root.T, solve_upper(factor, target))
    # Along each singular vector of the factor, a share 1 / value^2 of the prior variance is left.
    values, vectors = singular_values(factor)
    share = jnp.maximum(1.0 - 1.0 / jnp.square(jnp.maximum(values, 1.0)), 0.0)
    known = _times(jnp.sqrt(share)[:, None] * vectors, inverse_root)
    return Posterior(weights=weights * used, known=known * used[None, :])


def predict(hyper: Hyperparameters, x: Array, posterior: Posterior, at: Array) -> tuple[Array, Array]:
    """Returns mean and variance [B] of targets, noise included, at [B, I], for inducing inputs x [M, I]."""
    scale = scales(hyper)
    covariance = kernel(scale, at, x)  # [B, M]
    left = scale.signal_variance - jnp.sum(jnp.square(_times(covariance, posterior.known.T)), axis=-1)
    return _times(covariance, posterior.weights), jnp.maximum(left, 0.0) + scale.nugget + scale.noise_variance


def _times(a: Array, b: Array) -> Array:
    """Returns a @ b in full float32; by default, a GPU would round the factors to 10 bits."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
