"""Soft actor-critic with twin critics and an automatic temperature, as MBPO uses it.

References: Haarnoja et al. 2018b (SAC: Algorithms and Applications); softlearning, the code that MBPO was built on.
"""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import optax
from flax import struct
from flax.training.train_state import TrainState

from mbpo_jax import distributions, ensemble, health
from mbpo_jax.agents import critics
from mbpo_jax.agents.critics import ActorCriticConfig
from mbpo_jax.networks import Actor
from mbpo_jax.options import option
from mbpo_jax.types import Agent, Array, Key, Metrics, PyTree, Spec, Transition

CRITICS = critics.names(2)
NAMES_OF_UPDATE = (
    "the temperature",
    "the log-probability of the policy's actions",
    "the critics' target",
    *critics.names_of_updates(CRITICS),
    "the actor's loss",
    "the actor's gradient",
    "the temperature's gradient",
)
"""What is looked at in every update, in causal order; of gradients, the biases' (`health.bias_magnitude`)."""
NAMES_OF_STATE = critics.names_of_state(CRITICS)


@dataclasses.dataclass(frozen=True)
class SacConfig(ActorCriticConfig):
    """Knobs of the agent."""

    target_entropy: float | None = option(
        None,
        "Entropy, in nats, that the temperature holds the policy to; auto is minus the action dimensions.",
    )
    initial_temperature: float = option(1.0, "Entropy temperature before the first update.", minimum=1e-6)


class SacState(struct.PyTreeNode, kw_only=True):
    """Everything that learning reads."""

    actor: TrainState
    critics: TrainState  # [2, ...]
    target_params: PyTree  # [2, ...], of the critics
    log_temperature: TrainState  # {"log_temperature": []}


class _Noise(struct.PyTreeNode, kw_only=True):
    """Standard normal noise [B, A] of the actions of one update."""

    action: Array
    next_action: Array


def soft_target(
    reward: Array, terminal: Array, next_q: Array, next_log_prob: Array, temperature: Array, discount: float
) -> Array:
    """r + discount * (1 - terminal) * (min_m q_m' - temperature * log_prob').

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
    """Mean of temperature * log_prob [B] - min_m q [M, B]. References: Haarnoja et al. 2018b, Eq. 7."""
    chex.assert_shape(log_prob, q.shape[1:])
    return jnp.mean(temperature * log_prob - jnp.min(q, axis=0))


def temperature_loss(log_temperature: Array, log_prob: Array, target_entropy: float) -> Array:
    """-log_temperature * (mean log_prob + target_entropy), softlearning's form of Haarnoja et al. 2018b, Eq. 18."""
    return -log_temperature * jnp.mean(log_prob + target_entropy)


def build(config: SacConfig, spec: Spec) -> Agent:
    """The agent of these knobs."""
    actor_network = Actor(spec.action_dim, config.hidden_units, config.num_hidden_layers)
    optimizer = optax.adam(config.learning_rate)
    twins = critics.build(config, spec, optimizer, len(CRITICS))
    target_entropy = -float(spec.action_dim) if config.target_entropy is None else config.target_entropy

    def init(key: Key) -> SacState:
        key_actor, key_critics = jax.random.split(key)
        actor_params = actor_network.init(key_actor, jnp.zeros(spec.obs_dim))["params"]
        twin_critics = twins.init(key_critics)
        log_temperature = jnp.log(jnp.asarray(config.initial_temperature, jnp.float32))
        return SacState(
            actor=TrainState.create(apply_fn=actor_network.apply, params=actor_params, tx=optimizer),
            critics=twin_critics,
            target_params=jax.tree.map(jnp.copy, twin_critics.params),
            log_temperature=TrainState.create(
                apply_fn=actor_network.apply, params={"log_temperature": log_temperature}, tx=optimizer
            ),
        )

    def act(key: Key, actor_params: PyTree, obs: Array, explore: bool) -> Array:
        mean, log_std = actor_network.apply({"params": actor_params}, obs)
        noise = jax.random.normal(key, mean.shape) if explore else jnp.zeros_like(mean)
        return jnp.tanh(mean + jnp.exp(log_std) * noise)

    def sample_action(actor_params: PyTree, obs: Array, noise: Array) -> tuple[Array, Array]:
        mean, log_std = actor_network.apply({"params": actor_params}, obs)
        return distributions.tanh_gaussian(mean, log_std, noise)

    def update_once(state: SacState, batch: Transition, noise: _Noise) -> tuple[SacState, tuple[Metrics, Array]]:
        """One update; all gradients are taken at the parameters before it. Returns magnitudes of `NAMES_OF_UPDATE`."""
        log_temperature = state.log_temperature.params["log_temperature"]
        temperature = jnp.exp(log_temperature)
        next_action, next_log_prob = sample_action(state.actor.params, batch.next_obs, noise.next_action)
        next_q = twins.apply(state.target_params, batch.next_obs, next_action)
        target = soft_target(batch.reward, batch.terminal, next_q, next_log_prob, temperature, config.discount)

        def loss_of_actor(params: PyTree) -> tuple[Array, Array]:
            action, log_prob = sample_action(params, batch.obs, noise.action)
            return actor_loss(twins.apply(state.critics.params, batch.obs, action), log_prob, temperature), log_prob

        (loss_q, q), critic_grads = twins.loss_and_grads(state.critics.params, batch.obs, batch.action, target)
        (loss_pi, log_prob), actor_grads = jax.value_and_grad(loss_of_actor, has_aux=True)(state.actor.params)
        temperature_grad = jax.grad(temperature_loss)(log_temperature, log_prob, target_entropy)
        stepped = critics.apply_gradients(state.critics, critic_grads)
        new_state = SacState(
            actor=state.actor.apply_gradients(grads=actor_grads),
            critics=stepped,
            target_params=optax.incremental_update(stepped.params, state.target_params, config.target_update_rate),
            log_temperature=state.log_temperature.apply_gradients(grads={"log_temperature": temperature_grad}),
        )
        metrics = {
            "critic_loss": loss_q,
            "actor_loss": loss_pi,
            "q_mean": jnp.mean(q),
            "entropy": -jnp.mean(log_prob),
            "temperature": temperature,
        }
        magnitudes = (
            temperature,
            health.magnitude(next_log_prob),
            health.magnitude(target),
            critics.critic_losses(q, target),
            ensemble.lift(health.bias_magnitude)(critic_grads),
            jnp.abs(loss_pi),
            health.bias_magnitude(actor_grads),
            jnp.abs(temperature_grad),
        )
        return new_state, (metrics, jnp.concatenate([jnp.atleast_1d(value) for value in magnitudes]))

    def look(state: SacState) -> Array:
        return critics.look_at_state(
            (state.actor.params, state.actor.opt_state),
            ((state.critics.params, state.target_params), state.critics.opt_state),
        )

    def update(key: Key, state: SacState, batches: Transition) -> tuple[SacState, Metrics]:
        """G updates on batches [G, B, ...], in one scan; metrics are means over them, and the health of all of them."""
        key_action, key_next = jax.random.split(key)
        shape = batches.action.shape
        noise = _Noise(action=jax.random.normal(key_action, shape), next_action=jax.random.normal(key_next, shape))
        before = state.actor.step
        state, (metrics, magnitudes) = jax.lax.scan(lambda s, xs: update_once(s, *xs), state, (batches, noise))
        told: Metrics = jax.tree.map(jnp.mean, metrics)
        due = critics.look_is_due(before, state.actor.step)
        told["health"] = critics.health_of(NAMES_OF_UPDATE, magnitudes, NAMES_OF_STATE, lambda: look(state), due)
        return state, told

    def q_values(state: SacState, obs: Array, action: Array) -> Array:
        return twins.apply(state.critics.params, obs, action)

    def entropy_bonus(key: Key, state: SacState, obs: Array) -> Array:
        noise = jax.random.normal(key, (len(obs), spec.action_dim))
        _, log_prob = sample_action(state.actor.params, obs, noise)
        return -jnp.exp(state.log_temperature.params["log_temperature"]) * log_prob

    return Agent(init, lambda state: state.actor.params, act, update, q_values, entropy_bonus)
