"""The backward policy: which action led to an observation, learnt from the newest real rows by maximum likelihood.

References: Lai et al. 2020 (BMPO), official code. The paper's adversarial variant is not there, nor is it here.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from mbpo_jax import distributions, health, learner, replay
from mbpo_jax.learner import Learner
from mbpo_jax.networks import InverseActor
from mbpo_jax.options import check, option
from mbpo_jax.replay import Replay
from mbpo_jax.types import Array, Key, Programs, PyTree, Report, Spec, Transition

MIN_LOG_VAR, MAX_LOG_VAR = -10.0, 1.0  # they do not learn: the official optimiser has the network's weights alone
MOST_DEVIATIONS = 2.0  # from the mean


@dataclasses.dataclass(frozen=True)
class BackwardPolicyConfig:
    """Knobs of the backward policy."""

    backward_hidden_units: int = option(
        256, "Units of each hidden layer of the backward policy.", minimum=1, maximum=2**16
    )
    backward_hidden_layers: int = option(2, "Hidden layers of the backward policy.", minimum=1, maximum=100)
    backward_learning_rate: float = option(3e-4, "Adam step size of the backward policy.", minimum=0.0, maximum=1.0)
    backward_batch_size: int = option(256, "Rows of an update of the backward policy.", minimum=1)
    backward_updates_per_step: int = option(1, "Updates of the backward policy per environment step.", minimum=1)
    backward_epochs: int = option(
        10, "Epochs, the newest, whose real rows the backward policy learns from.", minimum=1, maximum=1_000_000
    )
    backward_variance: float | None = option(
        0.01, "Variance of the backward policy's actions in rollouts; auto: what it has learnt.", minimum=0.0
    )

    def __post_init__(self) -> None:
        check(self)


class BackwardPolicy(NamedTuple):
    """What the functions below need."""

    config: BackwardPolicyConfig
    spec: Spec
    num_rows: int  # the newest, which it learns from
    network: InverseActor
    optimizer: optax.GradientTransformation


def build(config: BackwardPolicyConfig, spec: Spec, epoch_steps: int) -> BackwardPolicy:
    """Returns the backward policy of these knobs."""
    network = InverseActor(spec.action_dim, config.backward_hidden_units, config.backward_hidden_layers)
    num_rows = config.backward_epochs * epoch_steps
    return BackwardPolicy(config, spec, num_rows, network, optax.adam(config.backward_learning_rate))


def init(policy: BackwardPolicy, key: Key) -> Learner:
    """Returns it before its first update."""
    return learner.init(policy.optimizer, policy.network.init(key, jnp.zeros(policy.spec.obs_dim))["params"])


def predict(policy: BackwardPolicy, params: PyTree, next_obs: Array) -> tuple[Array, Array]:
    """Returns mean and log-variance [B, A] of the action that led to next_obs [B, O]."""
    mean, raw_log_var = policy.network.apply({"params": params}, next_obs)
    return mean, distributions.bound_log_var(raw_log_var, jnp.asarray(MIN_LOG_VAR), jnp.asarray(MAX_LOG_VAR))


def draw(policy: BackwardPolicy, params: PyTree, key: Key, next_obs: Array) -> Array:
    """Draws actions [B, A] that may have led to next_obs [B, O]: within two deviations, and within bounds."""
    mean, log_var = predict(policy, params, next_obs)
    variance = jnp.exp(log_var) if policy.config.backward_variance is None else policy.config.backward_variance
    noise = jax.random.truncated_normal(key, -MOST_DEVIATIONS, MOST_DEVIATIONS, mean.shape)
    return jnp.clip(mean + jnp.sqrt(variance) * noise, -1.0, 1.0)


# -- learning --------------------------------------------------------------------------------------------------------


def loss(policy: BackwardPolicy, params: PyTree, rows: Transition) -> Array:
    """Returns the negative log-likelihood [] of the actions of rows [B, ...] (see `gaussian_nll`), averaged over B."""
    mean, log_var = predict(policy, params, rows.next_obs)
    return jnp.mean(distributions.gaussian_nll(mean, log_var, rows.action))


def update(policy: BackwardPolicy) -> Programs:
    """Returns the work of an environment step: updates on batches of the newest real rows, in one scan."""
    return Programs((functools.partial(_update, policy),))


def _update(policy: BackwardPolicy, key: Key, state: Learner, real: Replay) -> tuple[Learner, Report]:
    config = policy.config
    shape = config.backward_updates_per_step, config.backward_batch_size
    age = real.size - 1 - jax.random.randint(key, shape, 0, jnp.minimum(real.size, policy.num_rows))

    def update_once(state: Learner, rows: Transition) -> tuple[Learner, tuple[Array, Array]]:
        value, grads = jax.value_and_grad(functools.partial(loss, policy))(state.params, rows)
        return learner.step(policy.optimizer, state, grads), (value, health.bias_magnitude(grads))

    state, (losses, gradients) = jax.lax.scan(update_once, state, replay.take(real, age))
    watched = health.watch({"the backward policy's loss": losses, "its gradient": gradients}, keep=1)
    return state, Report({"loss": jnp.mean(losses)}, (watched,))
