"""Smooth networks for gradients through the model: a mean for each target, and an input-independent variance.

References: DHMBPO (arXiv 2512.15439).
"""

import functools
import math

import chex
import jax
import jax.numpy as jnp

from mbpo_jax import distributions
from mbpo_jax.models import encoding as encodings
from mbpo_jax.models import world
from mbpo_jax.models.encoding import Encoding
from mbpo_jax.models.member import SHARES_NOTHING, Member
from mbpo_jax.models.state import Belief, GaussianConfig
from mbpo_jax.networks import SmoothMlp
from mbpo_jax.types import Array, Key, PyTree, Spec, WorldModel

NORM_EPSILONS = (1.0, 0.1, 0.01)  # of the normalisations, in order; the last is used for all that follow
LOG_STD_PACE = 10.0  # speed relative to the weights: 1,000 steps of 1e-3 only take a deviation to a third of its start
MIN_LOG_STD = math.log(1e-3)  # of scaled targets; without it, the likelihood of a constant target is unbounded


def build(config: GaussianConfig, spec: Spec) -> WorldModel:
    """Builds an ensemble that predicts the reward and the change of the observation; only the latter is sampled."""
    encoding = encodings.forward(spec)
    network = member(config, encoding)
    return world.build(config, network, encoding)._replace(sample=functools.partial(sample, network, encoding))


def sample(
    member: Member, encoding: Encoding, key: Key, belief: Belief, group: Array, obs: Array, action: Array
) -> tuple[Array, Array]:
    """Draws next_obs [B, O] from elite number `group`, and returns its mean reward [B]."""
    mean, log_var = world.predict_elite(member, encoding, belief, group, obs, action)
    target = mean + jnp.exp(0.5 * log_var) * jax.random.normal(key, mean.shape)
    next_obs, _ = encoding.decode(obs, action, target)
    _, reward = encoding.decode(obs, action, mean)
    return next_obs, reward


def member(config: GaussianConfig, encoding: Encoding) -> Member:
    """Builds one network, with parameters {"network", "log_std" [D] / LOG_STD_PACE}; members share nothing."""
    network = SmoothMlp(
        encoding.num_targets,
        config.model_hidden_units,
        len(config.model_weight_decays) - 1,
        NORM_EPSILONS,
        precision=jax.lax.Precision.HIGHEST,
    )

    def init(key: Key) -> PyTree:
        params = network.init(key, jnp.zeros(encoding.num_inputs))["params"]
        return {"network": params, "log_std": jnp.zeros(encoding.num_targets)}

    return Member(
        init=init,
        loss=functools.partial(loss, network, config.model_weight_decays),
        predict=functools.partial(predict, network),
        **SHARES_NOTHING,
    )


def predict(network: SmoothMlp, params: PyTree, shared: PyTree, x: Array) -> tuple[Array, Array]:
    """Returns mean and log-variance [B, D] of the targets at normalised inputs x [B, I]."""
    del shared
    mean = network.apply({"params": params["network"]}, x)
    log_std = MIN_LOG_STD + distributions.softplus(LOG_STD_PACE * params["log_std"] - MIN_LOG_STD)
    return mean, jnp.broadcast_to(2.0 * log_std, mean.shape)  # type: ignore[union-attr, return-value]


def loss(
    network: SmoothMlp,
    weight_decays: tuple[float, ...],
    params: PyTree,
    shared: PyTree,
    x: Array,
    y: Array,
    weights: Array,
) -> Array:
    """Returns the weighted negative log-likelihood [] of targets y [B, D] at x [B, I], plus the weight penalty."""
    mean, log_var = predict(network, params, shared, x)
    nll = distributions.gaussian_nll(mean, log_var, y)
    chex.assert_equal_shape([weights, nll])
    kernels = [params["network"][f"Dense_{i}"]["kernel"] for i in range(len(weight_decays))]
    penalties = [0.5 * decay * jnp.sum(jnp.square(kernel)) for decay, kernel in zip(weight_decays, kernels)]
    return jnp.sum(weights * nll) + sum(penalties)
