"""Soft actor-critic with twin critics and an automatic temperature, as MBPO uses it.

References: Haarnoja et al. 2018b (SAC: Algorithms and Applications); softlearning, the code that MBPO was built on.
"""

import dataclasses
import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax
from flax import struct

from mbpo_jax import distributions, health, learner
from mbpo_jax.agents import critics
from mbpo_jax.agents.critics import ActorCriticConfig, Critics
from mbpo_jax.learner import Learner
from mbpo_jax.networks import Actor
from mbpo_jax.options import option
from mbpo_jax.types import (
    OWN,
    Agent,
    Array,
    Critic,
    Key,
    Learning,
    Metrics,
    PyTree,
    Regression,
    Report,
    Spec,
    Transition,
    Watched,
)

HOOKS = 1  # stream of the keys of `Learning`; the agent's own noise comes from the key itself


@dataclasses.dataclass(frozen=True)
class SacConfig(ActorCriticConfig):
    """Knobs of SAC."""

    target_entropy: float | None = option(
        None,
        "Entropy of the policy, in nats, that the temperature aims at; auto: minus the action dimensions.",
    )
    initial_temperature: float = option(1.0, "Entropy temperature before the first update.", minimum=1e-6)


class SacState(struct.PyTreeNode, kw_only=True):
    """Everything that an update reads or changes."""

    actor: Learner
    critics: Learner  # [M, ...]
    target_params: PyTree  # [M, ...], of the critics
    log_temperature: Learner  # []
    num_updates: Array  # [], int32


class Noise(struct.PyTreeNode, kw_only=True):
    """Standard normal noise [B, A] for the actions of one update."""

    action: Array
    next_action: Array


class Sac(NamedTuple):
    """The static parts of an agent, passed to the functions below."""

    config: SacConfig
    spec: Spec
    actor: Actor
    critics: Critics
    optimizer: optax.GradientTransformation
    target_entropy: float


def build(config: SacConfig, spec: Spec) -> Agent:
    """Builds SAC for the observations of a task and its actions, in [-1, 1]."""
    optimizer = optax.adam(config.learning_rate)
    sac = Sac(
        config=config,
        spec=spec,
        actor=Actor(spec.action_dim, config.hidden_units, config.num_hidden_layers),
        critics=critics.build(config, optimizer),
        optimizer=optimizer,
        target_entropy=-float(spec.action_dim) if config.target_entropy is None else config.target_entropy,
    )
    return Agent(
        init=functools.partial(init, sac),
        actor=lambda state: state.actor.params,
        act=functools.partial(act, sac),
        update=functools.partial(update, sac),
        draw=functools.partial(draw, sac),
        critic=Critic(
            q_values=lambda state, obs, action: critics.apply(sac.critics, state.critics.params, obs, action),
            target_q_values=lambda state, obs, action: critics.apply(sac.critics, state.target_params, obs, action),
            target_action=functools.partial(target_action, sac),
            has_entropy=True,
        ),
    )


def init(sac: Sac, key: Key) -> SacState:
    """Returns the agent's initial state."""
    key_actor, key_critics = jax.random.split(key)
    actor_params = sac.actor.init(key_actor, jnp.zeros(sac.spec.obs_dim))["params"]
    first_critics = critics.init(sac.critics, key_critics, sac.spec)
    log_temperature = jnp.log(jnp.asarray(sac.config.initial_temperature, jnp.float32))
    return SacState(
        actor=learner.init(sac.optimizer, actor_params),
        critics=first_critics,
        target_params=jax.tree.map(jnp.copy, first_critics.params),
        log_temperature=learner.init(sac.optimizer, log_temperature),
        num_updates=jnp.zeros((), jnp.int32),
    )


# -- acting ----------------------------------------------------------------------------------------------------------


def act(sac: Sac, key: Key, actor_params: PyTree, obs: Array, explore: bool) -> Array:
    """Returns actions [B, A]: samples from the policy if `explore`, else its squashed mean."""
    mean, log_std = sac.actor.apply({"params": actor_params}, obs)
    noise = jax.random.normal(key, mean.shape) if explore else jnp.zeros_like(mean)
    return jnp.tanh(mean + jnp.exp(log_std) * noise)


def sample_action(sac: Sac, actor_params: PyTree, obs: Array, noise: Array) -> tuple[Array, Array]:
    """Returns actions [B, A] and their log-probabilities [B] for standard normal noise [B, A]."""
    mean, log_std = sac.actor.apply({"params": actor_params}, obs)
    return distributions.tanh_gaussian(mean, log_std, noise)


# -- losses ----------------------------------------------------------------------------------------------------------


def soft_target(
    reward: Array, terminal: Array, next_q: Array, next_log_prob: Array, temperature: Array, discount: float
) -> Array:
    """Returns r + discount * (1 - terminal) * (min_m q_m' - temperature * log_prob').

    Args:
      reward, terminal, next_log_prob: [B]; next_q: [M, B]; temperature: [].
    Returns:
      [B].
    References: Haarnoja et al. 2018b, Eq. 3 and 5.
    """
    chex.assert_shape([reward, terminal, next_log_prob], next_q.shape[1:])
    next_value = jnp.min(next_q, axis=0) - temperature * next_log_prob
    return reward + discount * (1.0 - terminal) * next_value


def actor_loss(q: Array, log_prob: Array, temperature: Array) -> Array:
    """Returns the mean of temperature * log_prob [B] - min_m q [M, B]. References: Haarnoja et al. 2018b, Eq. 7."""
    chex.assert_shape(log_prob, q.shape[1:])
    return jnp.mean(temperature * log_prob - jnp.min(q, axis=0))


def temperature_loss(log_temperature: Array, log_prob: Array, target_entropy: Array | float) -> Array:
    """Returns -log_temperature * (mean log_prob + target_entropy), softlearning's form of Haarnoja 2018b, Eq. 18."""
    return -log_temperature * jnp.mean(log_prob + target_entropy)


# -- learning --------------------------------------------------------------------------------------------------------


def update(
    sac: Sac, key: Key, state: SacState, batches: Transition, learning: Learning = OWN
) -> tuple[SacState, Report]:
    """Takes G updates on batches [G, B, ...] in one scan; metrics are means over them."""
    key_action, key_next = jax.random.split(key)
    shape = batches.action.shape
    noise = Noise(action=jax.random.normal(key_action, shape), next_action=jax.random.normal(key_next, shape))
    keys = jax.random.split(jax.random.fold_in(key, HOOKS), shape[0])
    before = state.num_updates
    once = functools.partial(update_once, sac, learning)
    state, metrics, watched = critics.scan_updates(once, state, (batches, noise, keys))
    due = critics.check_is_due(before, state.num_updates)
    state_watched = critics.watch_state(sac.critics, state.actor, state.critics, ((), state.target_params), due)
    return state, Report(metrics, (watched, state_watched.replace(first=jnp.asarray(shape[0] - 1))))


def update_once(
    sac: Sac, learning: Learning, state: SacState, batch: Transition, noise: Noise, key: Key
) -> tuple[SacState, tuple[Metrics, Watched]]:
    """Takes one update on a batch [B, ...]; all gradients are computed at the parameters before it."""
    temperature = jnp.exp(state.log_temperature.params)
    if learning.regression is None:
        target, next_log_prob = own_target(sac, state, batch, noise.next_action)
        rows = Regression(batch.obs, batch.action, target)
        watched: dict[str, Array] = {"the log-probability of the policy's actions": next_log_prob}
    else:
        rows = learning.regression(jax.random.fold_in(key, 0), state, batch)
        watched = {}
    actor, loss_pi, log_prob, actor_watched = _actor_step(sac, learning, state, batch, noise.action, key)
    stepped, loss_q, q, critics_watched = critics.regress(sac.critics, state.critics, rows)
    target_entropy = sac.target_entropy if learning.target_entropy is None else learning.target_entropy
    temperature_grad = jax.grad(temperature_loss)(state.log_temperature.params, log_prob, target_entropy)
    state = SacState(
        actor=actor,
        critics=stepped,
        target_params=optax.incremental_update(stepped.params, state.target_params, sac.config.target_update_rate),
        log_temperature=learner.step(sac.optimizer, state.log_temperature, temperature_grad),
        num_updates=state.num_updates + 1,
    )
    metrics = {
        "critic_loss": loss_q,
        "actor_loss": loss_pi,
        "q_mean": jnp.mean(q),
        "entropy": -jnp.mean(log_prob),
        "temperature": temperature,
    }
    causal_order = {
        "the temperature": temperature,
        **watched,
        "the critics' target": rows.target,
        **critics_watched,
        **actor_watched,
        "the temperature's gradient": temperature_grad,
    }
    return state, (metrics, health.watch(causal_order))


def own_target(sac: Sac, state: SacState, batch: Transition, noise: Array) -> tuple[Array, Array]:
    """Returns SAC's own target [B] for a batch, and the log-probability [B] of the next actions in it."""
    next_action, next_log_prob = sample_action(sac, state.actor.params, batch.next_obs, noise)
    next_q = critics.apply(sac.critics, state.target_params, batch.next_obs, next_action)
    temperature = jnp.exp(state.log_temperature.params)
    target = soft_target(batch.reward, batch.terminal, next_q, next_log_prob, temperature, sac.config.discount)
    return target, next_log_prob


def own_actor_loss(sac: Sac, params: PyTree, state: SacState, batch: Transition, noise: Array) -> tuple[Array, Array]:
    """Returns SAC's own loss [] of an actor, and the log-probability [B] of its actions."""
    action, log_prob = sample_action(sac, params, batch.obs, noise)
    q = critics.apply(sac.critics, state.critics.params, batch.obs, action)
    return actor_loss(q, log_prob, jnp.exp(state.log_temperature.params)), log_prob


def _actor_step(
    sac: Sac, learning: Learning, state: SacState, batch: Transition, noise: Array, key: Key
) -> tuple[Learner, Array, Array, dict[str, Array]]:
    """Takes a step of the actor; returns it, its loss [], its log-probabilities [B], and what to watch."""

    def loss_of(params: PyTree) -> tuple[Array, Array]:
        if learning.actor_loss is None:
            return own_actor_loss(sac, params, state, batch, noise)
        return learning.actor_loss(jax.random.fold_in(key, 1), params, state, batch)

    (loss, log_prob), grads = jax.value_and_grad(loss_of, has_aux=True)(state.actor.params)
    watched = {"the actor's loss": loss, "the actor's gradient": health.bias_magnitude(grads)}
    return learner.step(sac.optimizer, state.actor, grads), loss, log_prob, watched


def target_action(sac: Sac, key: Key, state: SacState, obs: Array) -> tuple[Array, Array]:
    """Returns the policy's actions [B, A] at obs [B, O], and -temperature * log-probability [B] of each."""
    action, bonus, _ = draw(sac, key, state, state.actor.params, obs)
    return action, bonus


def draw(sac: Sac, key: Key, state: SacState, actor_params: PyTree, obs: Array) -> tuple[Array, Array, Array]:
    """Returns an actor's actions [B, A] at obs [B, O], -temperature * log-probability [B], and log-probability [B]."""
    noise = jax.random.normal(key, (len(obs), sac.spec.action_dim))
    action, log_prob = sample_action(sac, actor_params, obs, noise)
    return action, -jnp.exp(state.log_temperature.params) * log_prob, log_prob
