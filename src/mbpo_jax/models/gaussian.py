"""The probabilistic networks that MBPO and PETS learn: a mean and a bounded log-variance for each target.

References: Chua et al. 2018 (PETS), section 4; Janner et al. 2019 (MBPO), section 5 and Appendix C.
"""

import functools

import chex
import jax.numpy as jnp

from mbpo_jax import distributions
from mbpo_jax.models import encoding as encodings
from mbpo_jax.models import world
from mbpo_jax.models.encoding import Encoding
from mbpo_jax.models.member import Member
from mbpo_jax.models.state import GaussianConfig
from mbpo_jax.networks import GaussianMlp
from mbpo_jax.types import Array, Key, Metrics, PyTree, Spec, WorldModel

INITIAL_MAX_LOG_VAR, INITIAL_MIN_LOG_VAR = 0.5, -10.0
LOG_VAR_BOUND_WEIGHT = 0.01  # of sum(max_log_var) - sum(min_log_var) in the loss


def build(config: GaussianConfig, spec: Spec) -> WorldModel:
    """Builds MBPO's world model: an ensemble of these networks that predicts reward and change of the observation."""
    encoding = encodings.forward(spec)
    return world.build(config, member(config, encoding), encoding)


def member(config: GaussianConfig, encoding: Encoding) -> Member:
    """Builds one network of the ensemble; members share the bounds {"max": [D], "min": [D]} of the log-variances."""
    network = GaussianMlp(encoding.num_targets, config.model_hidden_units, len(config.model_weight_decays) - 1)

    def init(key: Key) -> PyTree:
        return network.init(key, jnp.zeros(encoding.num_inputs))["params"]

    def init_shared() -> PyTree:
        return {
            "max": jnp.full(encoding.num_targets, INITIAL_MAX_LOG_VAR, jnp.float32),
            "min": jnp.full(encoding.num_targets, INITIAL_MIN_LOG_VAR, jnp.float32),
        }

    return Member(
        init=init,
        init_shared=init_shared,
        loss=functools.partial(loss, network, config.model_weight_decays),
        shared_loss=bounds_loss,
        predict=functools.partial(predict, network),
        metrics=bounds_metrics,
    )


def predict(network: GaussianMlp, params: PyTree, bounds: PyTree, x: Array) -> tuple[Array, Array]:
    """Returns mean and log-variance [B, D] of the targets at normalised inputs x [B, I]."""
    mean, raw_log_var = network.apply({"params": params}, x)
    return mean, distributions.bound_log_var(raw_log_var, bounds["min"], bounds["max"])


def loss(
    network: GaussianMlp,
    weight_decays: tuple[float, ...],
    params: PyTree,
    bounds: PyTree,
    x: Array,
    y: Array,
    weights: Array,
    key: Key | None = None,
) -> Array:
    """Returns the weighted negative log-likelihood [] of targets y [B, D] at x [B, I], plus the weight penalty."""
    del key
    mean, log_var = predict(network, params, bounds, x)
    nll = distributions.gaussian_nll(mean, log_var, y)
    chex.assert_equal_shape([weights, nll])
    return jnp.sum(weights * nll) + weight_penalty(params, weight_decays)


def weight_penalty(params: PyTree, weight_decays: tuple[float, ...]) -> Array:
    """Returns the sum over layers of decay * |W|^2 / 2; biases are not penalised. The heads share the last value."""
    *hidden, last = weight_decays
    decays = {f"layer_{i}": decay for i, decay in enumerate(hidden)} | {"mean": last, "log_var": last}
    present = {name: decay for name, decay in decays.items() if name in params}
    return sum(0.5 * decay * jnp.sum(jnp.square(params[name]["kernel"])) for name, decay in present.items())  # type: ignore[return-value]


def bounds_loss(bounds: PyTree) -> Array:
    """Returns the penalty that keeps the bounds close: 0.01 (sum max - sum min), as in the official code."""
    return LOG_VAR_BOUND_WEIGHT * jnp.sum(bounds["max"]) - LOG_VAR_BOUND_WEIGHT * jnp.sum(bounds["min"])


def bounds_metrics(bounds: PyTree) -> Metrics:
    """Returns the means of the bounds over targets."""
    return {"max_log_var_mean": jnp.mean(bounds["max"]), "min_log_var_mean": jnp.mean(bounds["min"])}
