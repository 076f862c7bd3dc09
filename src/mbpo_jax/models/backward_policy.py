"""The backward policy: the action that led to an observation, learnt from the newest real rows by maximum likelihood.

References: Lai et al. 2020 (BMPO), official code. adversarial_policy.py has the paper's other way.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from mbpo_jax import distributions, health, learner, replay
from mbpo_jax.learner import Learner
from mbpo_jax.networks import InverseActor
from mbpo_jax.replay import Replay
from mbpo_jax.types import Array, Key, PyTree, Report, Spec, Transition

MIN_LOG_VAR, MAX_LOG_VAR = -10.0, 1.0  # not trained: the official optimiser only gets the network's weights
MOST_DEVIATIONS = 2.0  # standard deviations from the mean at which draws are truncated


class BackwardPolicy(NamedTuple):
    """The static parts of the policy, passed to the functions below."""

    spec: Spec
    network: InverseActor
    optimizer: optax.GradientTransformation
    batch_size: int
    num_rows: int  # newest real rows that it learns from
    variance: float | None  # of the actions that are drawn; None: the learnt one


def init(policy: BackwardPolicy, key: Key) -> Learner:
    """Returns the policy's initial state."""
    return learner.init(policy.optimizer, policy.network.init(key, jnp.zeros(policy.spec.obs_dim))["params"])


def predict(policy: BackwardPolicy, params: PyTree, next_obs: Array) -> tuple[Array, Array]:
    """Returns mean and log-variance [B, A] of the action that led to next_obs [B, O]."""
    mean, raw_log_var = policy.network.apply({"params": params}, next_obs)
    return mean, distributions.bound_log_var(raw_log_var, jnp.asarray(MIN_LOG_VAR), jnp.asarray(MAX_LOG_VAR))


def draw(policy: BackwardPolicy, params: PyTree, key: Key, next_obs: Array) -> Array:
    """Draws actions [B, A] that may have led to next_obs [B, O], within two standard deviations and within [-1, 1]."""
    mean, log_var = predict(policy, params, next_obs)
    variance = jnp.exp(log_var) if policy.variance is None else policy.variance
    noise = jax.random.truncated_normal(key, -MOST_DEVIATIONS, MOST_DEVIATIONS, mean.shape)
    return jnp.clip(mean + jnp.sqrt(variance) * noise, -1.0, 1.0)


# -- learning --------------------------------------------------------------------------------------------------------


def loss(policy: BackwardPolicy, params: PyTree, rows: Transition) -> Array:
    """Returns the negative log-likelihood [] of the actions of rows [B, ...] (see `gaussian_nll`), averaged over B."""
    mean, log_var = predict(policy, params, rows.next_obs)
    return jnp.mean(distributions.gaussian_nll(mean, log_var, rows.action))


def newest_rows(policy: BackwardPolicy, key: Key, real: Replay) -> Transition:
    """Draws a batch [B, ...] of the newest real rows."""
    age = real.size - 1 - jax.random.randint(key, (policy.batch_size,), 0, jnp.minimum(real.size, policy.num_rows))
    return replay.take(real, age)


def update(policy: BackwardPolicy, key: Key, state: Learner, real: Replay) -> tuple[Learner, Report]:
    """Takes one update on a batch of the newest real rows."""
    rows = newest_rows(policy, key, real)
    value, grads = jax.value_and_grad(functools.partial(loss, policy))(state.params, rows)
    watched = health.watch(
        {"the backward policy's loss": value, "the backward policy's gradient": health.bias_magnitude(grads)}
    )
    return learner.step(policy.optimizer, state, grads), Report({"loss": value}, (watched,))
