"""A world model of Gaussian processes, one for each target: PETS's GP.

References: Chua et al. 2018 (PETS), section 6; official code kchua/handful-of-trials, `dmbrl/modeling/models/TFGP.py`.
"""

import functools

import jax
import jax.numpy as jnp
import optax

from mbpo_jax import ensemble, normalizer
from mbpo_jax.models import gp_fit
from mbpo_jax.models import gp_regression as regression
from mbpo_jax.models.encoding import Encoding
from mbpo_jax.models.gp_regression import Posterior
from mbpo_jax.models.gp_state import GpBelief, GpConfig, GpFit, GpState, Parts
from mbpo_jax.types import Array, Key, WorldModel

LINE_SEARCH_STEPS = 10  # at most; near a maximum, twice as many find no better point in float32


def build(config: GpConfig, encoding: Encoding) -> WorldModel:
    """Builds a world model with one process for each target."""
    search = optax.scale_by_zoom_linesearch(max_linesearch_steps=LINE_SEARCH_STEPS, initial_guess_strategy="one")
    parts = Parts(config, encoding, optax.lbfgs(linesearch=search))
    return WorldModel(
        init=functools.partial(init, parts),
        fit=gp_fit.build(parts),
        belief=lambda model: model.belief,
        predict=functools.partial(predict, parts),
        sample=functools.partial(sample, parts),
        expect=functools.partial(expect, parts),
        num_groups=1,
    )


def init(parts: Parts, key: Key) -> GpState:
    """Returns processes that have not been fitted: initial hyperparameters and empty posteriors."""
    del key
    num_inputs, num_targets = parts.encoding.num_inputs, parts.encoding.num_targets
    size = parts.config.inducing_rows
    hyper = gp_fit.first_hyperparameters(parts)
    belief = GpBelief(
        hyper=hyper,
        posterior=Posterior(weights=jnp.zeros((num_targets, size)), known=jnp.zeros((num_targets, size, size))),
        x=jnp.zeros((size, num_inputs)),
        inputs=normalizer.identity(num_inputs),
        targets=normalizer.identity(num_targets),
    )
    fit = GpFit(
        running=jnp.zeros((), bool),
        num_rows=jnp.zeros((), jnp.int32),
        iteration=jnp.zeros((), jnp.int32),
        rising=jnp.zeros((), bool),
        evidence=jnp.zeros(num_targets),
        optimizer=gp_fit.new_optimizer(parts, hyper),
    )
    return GpState(belief=belief, fit=fit)


def predict(parts: Parts, belief: GpBelief, obs: Array, action: Array) -> tuple[Array, Array]:
    """Returns mean and log-variance of the targets, noise included; [1, B, D] each, because there is one model."""
    at = normalizer.normalize(belief.inputs, parts.encoding.inputs(obs, action))
    lifted = ensemble.lift(regression.predict, (0, None, 0, None))
    mean, variance = lifted(belief.hyper, belief.x, belief.posterior, at)
    log_var = jnp.log(variance.T) + 2.0 * jnp.log(belief.targets.std)
    return normalizer.denormalize(belief.targets, mean.T)[None], log_var[None]


def sample(parts: Parts, key: Key, belief: GpBelief, group: Array, obs: Array, action: Array) -> tuple[Array, Array]:
    """Draws (next_obs [B, O], reward [B]), independently for each row."""
    del group
    (mean,), (log_var,) = predict(parts, belief, obs, action)
    target = mean + jnp.exp(0.5 * log_var) * jax.random.normal(key, mean.shape)
    return parts.encoding.decode(obs, action, target)


def expect(parts: Parts, belief: GpBelief, group: Array, obs: Array, action: Array) -> tuple[Array, Array]:
    """Returns the processes' mean prediction (next_obs [B, O], reward [B])."""
    del group
    (mean,), _ = predict(parts, belief, obs, action)
    return parts.encoding.decode(obs, action, mean)
