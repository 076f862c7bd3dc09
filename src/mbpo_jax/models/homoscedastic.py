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
MIN_LOG_STD = math.log(1e-3)  # of scaled targets; without it, the likelihood of a constant target is unbounded


def build(
    config: GaussianConfig,
    spec: Spec,
    dropout: float = 0.0,
    log_std_pace: float = 1.0,
    few_rows: tuple[int, int] = (0, 1),
) -> WorldModel:
    """Builds an ensemble that predicts the reward and the change of the observation; only the latter is sampled.

    Args:
      dropout: share of units that a fit drops, falling linearly from the inputs, which are kept, to 0 at the outputs.
      log_std_pace: speed of the standard deviations relative to the weights; at 1, 1,000 steps of 1e-3 only take one to
        a third of its start.
      few_rows: see `world.build`.
    """
    encoding = encodings.forward(spec)
    network = member(config, encoding, dropout, log_std_pace)
    return world.build(config, network, encoding, few_rows)._replace(
        sample=functools.partial(sample, network, encoding)
    )


def sample(
    member: Member, encoding: Encoding, key: Key, belief: Belief, group: Array, obs: Array, action: Array
) -> tuple[Array, Array]:
    """Draws next_obs [B, O] from elite number `group`, and returns its mean reward [B]."""
    mean, log_var = world.predict_elite(member, encoding, belief, group, obs, action)
    target = mean + jnp.exp(0.5 * log_var) * jax.random.normal(key, mean.shape)
    next_obs, _ = encoding.decode(obs, action, target)
    _, reward = encoding.decode(obs, action, mean)
    return next_obs, reward


def member(config: GaussianConfig, encoding: Encoding, dropout: float = 0.0, log_std_pace: float = 1.0) -> Member:
    """Builds one network, with parameters {"network", "log_std" [D] / log_std_pace}; members share nothing."""
    num_layers = len(config.model_weight_decays)
    network = SmoothMlp(
        encoding.num_targets,
        config.model_hidden_units,
        num_layers - 1,
        NORM_EPSILONS,
        tuple(dropout * (1.0 - i / num_layers) for i in range(1, num_layers)),
        precision=jax.lax.Precision.HIGHEST,
    )

    def init(key: Key) -> PyTree:
        params = network.init(key, jnp.zeros(encoding.num_inputs))["params"]
        return {"network": params, "log_std": jnp.zeros(encoding.num_targets)}

    return Member(
        init=init,
        loss=functools.partial(loss, network, log_std_pace, config.model_weight_decays),
        predict=functools.partial(predict, network, log_std_pace),
        random_loss=dropout > 0.0,
        **SHARES_NOTHING,
    )


def predict(
    network: SmoothMlp, log_std_pace: float, params: PyTree, shared: PyTree, x: Array, key: Key | None = None
) -> tuple[Array, Array]:
    """Returns mean and log-variance [B, D] of the targets at normalised inputs x [B, I]."""
    del shared
    mean = network.apply({"params": params["network"]}, x, key)
    log_std = MIN_LOG_STD + distributions.softplus(log_std_pace * params["log_std"] - MIN_LOG_STD)
    return mean, jnp.broadcast_to(2.0 * log_std, mean.shape)  # type: ignore[union-attr, return-value]


def loss(
    network: SmoothMlp,
    log_std_pace: float,
    weight_decays: tuple[float, ...],
    params: PyTree,
    shared: PyTree,
    x: Array,
    y: Array,
    weights: Array,
    key: Key | None = None,
) -> Array:
    """Returns the weighted negative log-likelihood [] of targets y [B, D] at x [B, I], plus the weight penalty.

    Args:
      key: which units are dropped; None: none are.
    """
    mean, log_var = predict(network, log_std_pace, params, shared, x, key)
    nll = distributions.gaussian_nll(mean, log_var, y)
    chex.assert_equal_shape([weights, nll])
    kernels = [params["network"][f"Dense_{i}"]["kernel"] for i in range(len(weight_decays))]
    penalties = [0.5 * decay * jnp.sum(jnp.square(kernel)) for decay, kernel in zip(weight_decays, kernels)]
    return jnp.sum(weights * nll) + sum(penalties)
