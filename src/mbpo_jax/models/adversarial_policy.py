"""An adversarial backward policy: a discriminator learns to tell its actions from those that were taken.

References: Lai et al. 2020 (BMPO), the second of its two ways; Goodfellow et al. 2014. It is not in the official code.
"""

import functools

import jax
import jax.numpy as jnp
from flax import struct

from mbpo_jax import health, learner
from mbpo_jax.learner import Learner
from mbpo_jax.models import backward_policy
from mbpo_jax.models.backward_policy import BackwardPolicy
from mbpo_jax.networks import Classifier
from mbpo_jax.replay import Replay
from mbpo_jax.types import Array, Key, PyTree, Report, Transition


class Players(struct.PyTreeNode, kw_only=True):
    """Both sides of the game."""

    actor: Learner
    discriminator: Learner

    @property
    def params(self) -> PyTree:
        """Returns the parameters that actions are drawn with."""
        return self.actor.params


def init(policy: BackwardPolicy, key: Key) -> Players:
    """Returns the initial state of both players."""
    key_actor, key_discriminator = jax.random.split(key)
    inputs = jnp.zeros(policy.spec.obs_dim + policy.spec.action_dim)
    params = _network(policy).init(key_discriminator, inputs)["params"]
    return Players(actor=backward_policy.init(policy, key_actor), discriminator=learner.init(policy.optimizer, params))


def _network(policy: BackwardPolicy) -> Classifier:
    """Returns the discriminator's network, of the same size as the policy's."""
    return Classifier(policy.network.hidden_units, policy.network.num_hidden_layers)


def logit(policy: BackwardPolicy, params: PyTree, next_obs: Array, action: Array) -> Array:
    """Returns log D / (1 - D) [B], with D the probability that action [B, A] was taken and led to next_obs [B, O]."""
    return _network(policy).apply({"params": params}, jnp.concatenate([next_obs, action], -1))


def discriminator_loss(
    policy: BackwardPolicy, params: PyTree, actor_params: PyTree, key: Key, rows: Transition
) -> Array:
    """Returns -E log D(a, s') - E log(1 - D(a', s')) [] for the actions a of rows [B, ...] and drawn actions a'."""
    drawn = backward_policy.draw(policy, actor_params, key, rows.next_obs)
    taken = logit(policy, params, rows.next_obs, rows.action)
    made_up = logit(policy, params, rows.next_obs, drawn)
    return jnp.mean(jax.nn.softplus(-taken)) + jnp.mean(jax.nn.softplus(made_up))


def actor_loss(
    policy: BackwardPolicy, params: PyTree, discriminator_params: PyTree, key: Key, next_obs: Array
) -> Array:
    """Returns -E log D(a', s') [] for actions a' drawn for next_obs [B, O].

    The paper has E log(1 - D), whose gradient vanishes where D is confident; the fixed point is the same (Goodfellow et
    al. 2014, section 3).
    """
    drawn = backward_policy.draw(policy, params, key, next_obs)
    return jnp.mean(jax.nn.softplus(-logit(policy, discriminator_params, next_obs, drawn)))


def update(policy: BackwardPolicy, key: Key, state: Players, real: Replay) -> tuple[Players, Report]:
    """Takes one update of the discriminator, then one of the policy, on a batch of the newest real rows."""
    key_rows, key_discriminator, key_actor = jax.random.split(key, 3)
    rows = backward_policy.newest_rows(policy, key_rows, real)
    loss_fn = functools.partial(discriminator_loss, policy)
    classification_loss, discriminator_grads = jax.value_and_grad(loss_fn)(
        state.discriminator.params, state.actor.params, key_discriminator, rows
    )
    discriminator = learner.step(policy.optimizer, state.discriminator, discriminator_grads)
    fooled, grads = jax.value_and_grad(functools.partial(actor_loss, policy))(
        state.actor.params, discriminator.params, key_actor, rows.next_obs
    )
    watched = health.watch(
        {
            "the backward policy's loss": fooled,
            "the backward policy's gradient": health.bias_magnitude(grads),
            "the discriminator's loss": classification_loss,
            "the discriminator's gradient": health.bias_magnitude(discriminator_grads),
        }
    )
    players = Players(actor=learner.step(policy.optimizer, state.actor, grads), discriminator=discriminator)
    return players, Report({"loss": fooled, "discriminator_loss": classification_loss}, (watched,))
