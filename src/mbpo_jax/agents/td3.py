"""Twin delayed deep deterministic policy gradients (TD3), and the update that DDPG has in common with it.

References: Fujimoto et al. 2018, "Addressing Function Approximation Error in Actor-Critic Methods", Algorithm 1; the
authors' code, sfujim/TD3@6a9f761. Deviations from it, with their reasons: docs/deviations.md.
"""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import optax
from flax import struct
from flax.training.train_state import TrainState

from mbpo_jax import ensemble, health
from mbpo_jax.agents import critics
from mbpo_jax.agents.critics import ActorCriticConfig
from mbpo_jax.networks import DeterministicActor
from mbpo_jax.options import option
from mbpo_jax.types import Agent, Array, Key, Metrics, PyTree, Spec, Transition


@dataclasses.dataclass(frozen=True)
class DeterministicConfig(ActorCriticConfig):
    """Knobs of agents whose actor has no noise of its own."""

    exploration_noise_std: float = option(
        0.1,
        "Standard deviation of the Gaussian noise on actions that explore, imagined ones too, as a share of half the "
        "action range.",
        minimum=0.0,
    )


@dataclasses.dataclass(frozen=True)
class Td3Config(DeterministicConfig):
    """Knobs of the agent."""

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
    """Everything that learning reads, and the newest loss of the actor."""

    actor: TrainState
    critics: TrainState  # [M, ...]
    target_actor_params: PyTree
    target_params: PyTree  # [M, ...], of the critics
    num_updates: Array  # [], int32, of the critics
    actor_loss: Array  # [], at the newest update of the actor; 0 before the first


def explore(action: Array, noise: Array, std: float) -> Array:
    """The action [..., A] with Gaussian noise of this standard deviation, held within [-1, 1].

    Args:
      noise: [..., A], standard normal.
    """
    return jnp.clip(action + std * noise, -1.0, 1.0)


def smooth(action: Array, noise: Array, std: float, clip: float) -> Array:
    """`explore` with noise that is held within [-clip, clip] itself.

    References: Fujimoto et al. 2018, Eq. 14.
    """
    return jnp.clip(action + jnp.clip(std * noise, -clip, clip), -1.0, 1.0)


def critic_target(reward: Array, terminal: Array, next_q: Array, discount: float) -> Array:
    """r + discount * (1 - terminal) * min_m q_m'.

    Args:
      reward, terminal: [B]; next_q: [M, B].
    Returns:
      [B].
    References: Fujimoto et al. 2018, Eq. 10; with M = 1, Lillicrap et al. 2015, Algorithm 1.
    """
    chex.assert_shape([reward, terminal], next_q.shape[1:])
    return reward + discount * (1.0 - terminal) * jnp.min(next_q, axis=0)


def actor_loss(q: Array) -> Array:
    """Minus the mean of q [B], by which the actor climbs critic 0. References: Silver et al. 2014 (DPG), Eq. 9."""
    return -jnp.mean(q)


def build(config: Td3Config, spec: Spec) -> Agent:
    """The agent of these knobs."""
    return build_learner(config, spec, num_critics=2)


def build_learner(config: Td3Config, spec: Spec, num_critics: int) -> Agent:
    """An agent with a deterministic actor and so many critics."""
    actor_network = DeterministicActor(spec.action_dim, config.hidden_units, config.num_hidden_layers)
    optimizer = optax.adam(config.learning_rate)
    all_critics = critics.build(config, spec, optimizer, num_critics)
    names = critics.names(num_critics)
    names_of_update = (
        "the critics' target" if num_critics > 1 else "the critic's target",
        *critics.names_of_updates(names),
        "the actor's loss",
        "the actor's gradient",
    )

    def apply_actor(params: PyTree, obs: Array) -> Array:
        return actor_network.apply({"params": params}, obs)  # type: ignore[return-value]

    def init(key: Key) -> Td3State:
        key_actor, key_critics = jax.random.split(key)
        actor_params = actor_network.init(key_actor, jnp.zeros(spec.obs_dim))["params"]
        first_critics = all_critics.init(key_critics)
        return Td3State(
            actor=TrainState.create(apply_fn=actor_network.apply, params=actor_params, tx=optimizer),
            critics=first_critics,
            target_actor_params=jax.tree.map(jnp.copy, actor_params),
            target_params=jax.tree.map(jnp.copy, first_critics.params),
            num_updates=jnp.zeros((), jnp.int32),
            actor_loss=jnp.zeros(()),
        )

    def act(key: Key, actor_params: PyTree, obs: Array, explores: bool) -> Array:
        action = apply_actor(actor_params, obs)
        if not explores:
            return action
        return explore(action, jax.random.normal(key, action.shape), config.exploration_noise_std)

    def update_critics(state: Td3State, batch: Transition, noise: Array) -> tuple[Td3State, Metrics, list[Array]]:
        """One update of the critics; noise is standard normal [B, A]. Returns their magnitudes too."""
        next_action = apply_actor(state.target_actor_params, batch.next_obs)
        next_action = smooth(next_action, noise, config.target_noise_std, config.target_noise_clip)
        next_q = all_critics.apply(state.target_params, batch.next_obs, next_action)
        target = critic_target(batch.reward, batch.terminal, next_q, config.discount)
        (loss, q), grads = all_critics.loss_and_grads(state.critics.params, batch.obs, batch.action, target)
        magnitudes = [
            health.magnitude(target)[None],
            critics.critic_losses(q, target),
            ensemble.lift(health.bias_magnitude)(grads),
        ]
        state = state.replace(critics=critics.apply_gradients(state.critics, grads), num_updates=state.num_updates + 1)
        return state, {"critic_loss": loss, "q_mean": jnp.mean(q)}, magnitudes

    def update_actor(state: Td3State, batch: Transition) -> tuple[Td3State, Array]:
        """One update of the actor by critic 0 as it is now, and of all targets. Returns its two magnitudes too."""

        def loss_of_actor(params: PyTree) -> Array:
            return actor_loss(all_critics.apply_first(state.critics.params, batch.obs, apply_actor(params, batch.obs)))

        loss, grads = jax.value_and_grad(loss_of_actor)(state.actor.params)
        actor, rate = state.actor.apply_gradients(grads=grads), config.target_update_rate
        state = state.replace(
            actor=actor,
            target_actor_params=optax.incremental_update(actor.params, state.target_actor_params, rate),
            target_params=optax.incremental_update(state.critics.params, state.target_params, rate),
            actor_loss=loss,
        )
        return state, jnp.stack([jnp.abs(loss), health.bias_magnitude(grads)])

    def update_once(state: Td3State, batch: Transition, noise: Array) -> tuple[Td3State, tuple[Metrics, Array]]:
        """One update of the critics, and of the rest if it is due. Returns magnitudes of `names_of_update`."""
        state, metrics, of_critics = update_critics(state, batch, noise)
        state, of_actor = jax.lax.cond(
            state.num_updates % config.actor_every_updates == 0,
            update_actor,
            lambda state, batch: (state, jnp.zeros(2)),
            state,
            batch,
        )
        return state, (metrics | {"actor_loss": state.actor_loss}, jnp.concatenate([*of_critics, of_actor]))

    def look(state: Td3State) -> Array:
        return critics.look_at_state(
            ((state.actor.params, state.target_actor_params), state.actor.opt_state),
            ((state.critics.params, state.target_params), state.critics.opt_state),
        )

    def update(key: Key, state: Td3State, batches: Transition) -> tuple[Td3State, Metrics]:
        """G updates on batches [G, B, ...], in one scan; metrics are means over them, and the health of all of them."""
        noise = jax.random.normal(key, batches.action.shape)
        before = state.num_updates
        state, (metrics, magnitudes) = jax.lax.scan(lambda s, xs: update_once(s, *xs), state, (batches, noise))
        told: Metrics = jax.tree.map(jnp.mean, metrics)
        due = critics.look_is_due(before, state.num_updates)
        told["health"] = critics.health_of(
            names_of_update, magnitudes, critics.names_of_state(names), lambda: look(state), due
        )
        return state, told

    def q_values(state: Td3State, obs: Array, action: Array) -> Array:
        return all_critics.apply(state.critics.params, obs, action)

    return Agent(init, lambda state: state.actor.params, act, update, q_values)
