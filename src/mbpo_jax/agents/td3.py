"""Twin delayed deep deterministic policy gradients (TD3); DDPG is the same with different knobs.

References: Fujimoto et al. 2018, "Addressing Function Approximation Error in Actor-Critic Methods", Algorithm 1; the
authors' code, sfujim/TD3@6a9f761. Deviations from it, with their reasons: docs/deviations.md.
"""

import dataclasses
import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax
from flax import struct

from mbpo_jax import batching, health, learner
from mbpo_jax.agents import critics
from mbpo_jax.agents.critics import ActorCriticConfig, Critics
from mbpo_jax.learner import Learner
from mbpo_jax.networks import DeterministicActor
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
class DeterministicConfig(ActorCriticConfig):
    """Knobs of agents whose actor has no noise of its own."""

    exploration_noise_std: float = option(
        0.1,
        "Standard deviation of the Gaussian exploration noise, in imagined steps, too, as a share of half the action "
        "range.",
        minimum=0.0,
    )


@dataclasses.dataclass(frozen=True)
class Td3Config(DeterministicConfig):
    """Knobs of TD3."""

    target_noise_std: float = option(
        0.2,
        "Standard deviation of the target-policy smoothing noise, as a share of half the action range.",
        minimum=0.0,
    )
    target_noise_clip: float = option(
        0.5, "Bound on the target-policy smoothing noise, as a share of half the action range.", minimum=0.0
    )
    actor_every_updates: int = option(
        2, "Critic updates per update of the actor and of all targets.", minimum=1, maximum=1_000_000
    )


class Td3State(struct.PyTreeNode, kw_only=True):
    """Everything that an update reads or changes, and the newest loss of the actor."""

    actor: Learner
    critics: Learner  # [M, ...]
    target_actor_params: PyTree
    target_params: PyTree  # [M, ...], of the critics
    num_updates: Array  # [], int32, of the critics
    actor_loss: Array  # [], at the actor's newest update; 0 before the first


class Moving(NamedTuple):
    """The part of the state that moves with the actor."""

    actor: Learner
    target_actor_params: PyTree
    target_params: PyTree
    actor_loss: Array


class Td3(NamedTuple):
    """The static parts of an agent, passed to the functions below."""

    config: Td3Config
    spec: Spec
    actor: DeterministicActor
    critics: Critics
    optimizer: optax.GradientTransformation


def build(config: Td3Config, spec: Spec) -> Agent:
    """Builds TD3 for the observations of a task and its actions, in [-1, 1]."""
    optimizer = optax.adam(config.learning_rate)
    actor = DeterministicActor(spec.action_dim, config.hidden_units, config.num_hidden_layers)
    td3 = Td3(config, spec, actor, critics.build(config, optimizer), optimizer)
    return Agent(
        init=functools.partial(init, td3),
        actor=lambda state: state.actor.params,
        act=functools.partial(act, td3),
        update=functools.partial(update, td3),
        draw=functools.partial(draw, td3),
        critic=Critic(
            q_values=lambda state, obs, action: critics.apply(td3.critics, state.critics.params, obs, action),
            target_q_values=lambda state, obs, action: critics.apply(td3.critics, state.target_params, obs, action),
            target_action=functools.partial(target_action, td3),
        ),
    )


def init(td3: Td3, key: Key) -> Td3State:
    """Returns the agent's initial state."""
    key_actor, key_critics = jax.random.split(key)
    actor_params = td3.actor.init(key_actor, jnp.zeros(td3.spec.obs_dim))["params"]
    first_critics = critics.init(td3.critics, key_critics, td3.spec)
    return Td3State(
        actor=learner.init(td3.optimizer, actor_params),
        critics=first_critics,
        target_actor_params=jax.tree.map(jnp.copy, actor_params),
        target_params=jax.tree.map(jnp.copy, first_critics.params),
        num_updates=jnp.zeros((), jnp.int32),
        actor_loss=jnp.zeros(()),
    )


# -- acting ----------------------------------------------------------------------------------------------------------


def act(td3: Td3, key: Key, actor_params: PyTree, obs: Array, explores: bool) -> Array:
    """Returns actions [B, A], with exploration noise if `explores`."""
    action = td3.actor.apply({"params": actor_params}, obs)
    if not explores:
        return action  # type: ignore[return-value]
    return explore(action, jax.random.normal(key, action.shape), td3.config.exploration_noise_std)


def explore(action: Array, noise: Array, std: float) -> Array:
    """Returns the action [..., A] with Gaussian noise of this standard deviation, clipped to [-1, 1].

    Args:
      noise: [..., A], standard normal.
    """
    return jnp.clip(action + std * noise, -1.0, 1.0)


def smooth(action: Array, noise: Array, std: float, clip: float) -> Array:
    """Returns the same as `explore`, but with the noise itself clipped to [-clip, clip].

    References: Fujimoto et al. 2018, Eq. 14.
    """
    return jnp.clip(action + jnp.clip(std * noise, -clip, clip), -1.0, 1.0)


# -- losses ----------------------------------------------------------------------------------------------------------


def critic_target(reward: Array, terminal: Array, next_q: Array, discount: float) -> Array:
    """Returns r + discount * (1 - terminal) * min_m q_m'.

    Args:
      reward, terminal: [B]; next_q: [M, B].
    Returns:
      [B].
    References: Fujimoto et al. 2018, Eq. 10; with M = 1, Lillicrap et al. 2015, Algorithm 1.
    """
    chex.assert_shape([reward, terminal], next_q.shape[1:])
    return reward + discount * (1.0 - terminal) * jnp.min(next_q, axis=0)


def actor_loss(q: Array) -> Array:
    """Returns minus the mean of q [B]: the actor maximises critic 0. References: Silver et al. 2014 (DPG), Eq. 9."""
    return -jnp.mean(q)


# -- learning --------------------------------------------------------------------------------------------------------


def update(
    td3: Td3, key: Key, state: Td3State, batches: Transition, learning: Learning = OWN
) -> tuple[Td3State, Report]:
    """Takes G updates on batches [G, B, ...] in one scan; metrics are means over them."""
    noise = jax.random.normal(key, batches.action.shape)
    keys = jax.random.split(jax.random.fold_in(key, HOOKS), noise.shape[0])
    before = state.num_updates
    once = functools.partial(update_once, td3, learning)
    state, metrics, watched = critics.scan_updates(once, state, (batches, noise, keys))
    due = critics.check_is_due(before, state.num_updates)
    targets = state.target_actor_params, state.target_params
    state_watched = critics.watch_state(td3.critics, state.actor, state.critics, targets, due)
    return state, Report(metrics, (watched, state_watched.replace(first=jnp.asarray(noise.shape[0] - 1))))


def update_once(
    td3: Td3, learning: Learning, state: Td3State, batch: Transition, noise: Array, key: Key
) -> tuple[Td3State, tuple[Metrics, Watched]]:
    """Updates the critics on a batch [B, ...], and actor and targets if due; noise [B, A] is standard normal."""
    if learning.regression is None:
        rows = Regression(batch.obs, batch.action, own_target(td3, state, batch, noise))
    else:
        rows = learning.regression(jax.random.fold_in(key, 0), state, batch)
    stepped, loss, q, watched = critics.regress(td3.critics, state.critics, rows)
    state = state.replace(critics=stepped, num_updates=state.num_updates + 1)
    state, actor_watched = _actor_step_if_due(td3, learning, state, batch, key)
    metrics = {"critic_loss": loss, "q_mean": jnp.mean(q), "actor_loss": state.actor_loss}
    target_name = "the critics' target" if len(td3.critics.names) > 1 else "the critic's target"
    return state, (metrics, health.watch({target_name: rows.target, **watched, **actor_watched}))


def own_target(td3: Td3, state: Td3State, batch: Transition, noise: Array) -> Array:
    """Returns TD3's own target [B] for a batch, with smoothing noise."""
    next_action = smoothed_action(td3, state, batch.next_obs, noise)
    next_q = critics.apply(td3.critics, state.target_params, batch.next_obs, next_action)
    return critic_target(batch.reward, batch.terminal, next_q, td3.config.discount)


def smoothed_action(td3: Td3, state: Td3State, obs: Array, noise: Array) -> Array:
    """Returns the target actor's actions [B, A] with smoothing noise, from standard normal noise [B, A]."""
    action = td3.actor.apply({"params": state.target_actor_params}, obs)
    return smooth(action, noise, td3.config.target_noise_std, td3.config.target_noise_clip)


def target_action(td3: Td3, key: Key, state: Td3State, obs: Array) -> tuple[Array, Array]:
    """Returns the target actor's actions [B, A] at obs [B, O], with smoothing noise, and bonuses [B] of 0."""
    noise = jax.random.normal(key, (len(obs), td3.spec.action_dim))
    return smoothed_action(td3, state, obs, noise), jnp.zeros(len(obs))


def draw(td3: Td3, key: Key, state: Td3State, actor_params: PyTree, obs: Array) -> tuple[Array, Array, Array]:
    """Returns an actor's actions [B, A] at obs [B, O], without noise, and zeros [B] for bonus and log-probability."""
    del key, state
    zeros = jnp.zeros(len(obs))
    return td3.actor.apply({"params": actor_params}, obs), zeros, zeros  # type: ignore[return-value]


def own_actor_loss(td3: Td3, params: PyTree, state: Td3State, batch: Transition) -> Array:
    """Returns TD3's own loss [] of an actor, by the current critic 0."""
    action = td3.actor.apply({"params": params}, batch.obs)
    return actor_loss(critics.apply_first(td3.critics, state.critics.params, batch.obs, action))


def _actor_step_if_due(
    td3: Td3, learning: Learning, state: Td3State, batch: Transition, key: Key
) -> tuple[Td3State, dict[str, Array]]:
    """Moves the actor and all targets at every `actor_every_updates`-th update of the critics."""
    is_due = state.num_updates % td3.config.actor_every_updates == 0
    before = Moving(state.actor, state.target_actor_params, state.target_params, state.actor_loss)
    no_magnitudes = jnp.zeros(()), jnp.zeros(())

    def step() -> tuple[Moving, tuple[Array, Array]]:
        moved = _actor_step(td3, learning, state, batch, key)
        return batching.only_where(is_due, moved, (before, no_magnitudes))

    moved, (loss, gradient) = jax.lax.cond(batching.anywhere(is_due), step, lambda: (before, no_magnitudes))
    watched = {"the actor's loss": loss, "the actor's gradient": gradient}
    return state.replace(**moved._asdict()), watched


def _actor_step(
    td3: Td3, learning: Learning, state: Td3State, batch: Transition, key: Key
) -> tuple[Moving, tuple[Array, Array]]:
    """Takes a step of the actor and of all targets; also returns magnitudes of the actor's loss and gradient."""

    def loss_of(params: PyTree) -> Array:
        if learning.actor_loss is None:
            return own_actor_loss(td3, params, state, batch)
        return learning.actor_loss(jax.random.fold_in(key, 1), params, state, batch)[0]

    loss, grads = jax.value_and_grad(loss_of)(state.actor.params)
    actor, rate = learner.step(td3.optimizer, state.actor, grads), td3.config.target_update_rate
    moved = Moving(
        actor=actor,
        target_actor_params=optax.incremental_update(actor.params, state.target_actor_params, rate),
        target_params=optax.incremental_update(state.critics.params, state.target_params, rate),
        actor_loss=loss,
    )
    return moved, (jnp.abs(loss), health.bias_magnitude(grads))
