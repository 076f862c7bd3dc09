"""Networks that predict the targets without a variance and learn by squared error: PETS's D and DE.

Reference: Chua et al. 2018 (PETS), section 4.
"""

import functools

import chex
import jax.numpy as jnp

from mbpo_jax.models.encoding import Encoding
from mbpo_jax.models.gaussian import weight_penalty
from mbpo_jax.models.member import SHARES_NOTHING, Member
from mbpo_jax.models.state import GaussianConfig
from mbpo_jax.networks import MeanMlp
from mbpo_jax.types import Array, Key, PyTree


def member(config: GaussianConfig, encoding: Encoding) -> Member:
    """Builds one network of the ensemble; members share nothing."""
    network = MeanMlp(encoding.num_targets, config.model_hidden_units, len(config.model_weight_decays) - 1)

    def init(key: Key) -> PyTree:
        return network.init(key, jnp.zeros(encoding.num_inputs))["params"]

    return Member(
        init=init,
        loss=functools.partial(loss, network, config.model_weight_decays),
        predict=functools.partial(predict, network),
        **SHARES_NOTHING,
    )


def predict(network: MeanMlp, params: PyTree, shared: PyTree, x: Array) -> tuple[Array, Array]:
    """Returns the targets [B, D] at normalised inputs x [B, I], and a log-variance of -inf."""
    mean = network.apply({"params": params}, x)
    assert isinstance(mean, jnp.ndarray)
    return mean, jnp.full_like(mean, -jnp.inf)


def loss(
    network: MeanMlp,
    weight_decays: tuple[float, ...],
    params: PyTree,
    shared: PyTree,
    x: Array,
    y: Array,
    weights: Array,
    key: Key | None = None,
) -> Array:
    """Returns the weighted squared error [] of targets y [B, D] at x [B, I], mean over D, plus the weight penalty."""
    del key
    mean, _ = predict(network, params, shared, x)
    error = jnp.mean(jnp.square(y - mean), axis=-1)
    chex.assert_equal_shape([weights, error])
    return jnp.sum(weights * error) + weight_penalty(params, weight_decays)
