"""Soft actor-critic with twin critics and an automatic temperature, as MBPO uses it.

References: Haarnoja et al. 2018b (SAC: Algorithms and Applications); softlearning, the code that MBPO was built on.
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax
from flax import struct
from flax.training.train_state import TrainState

from mbpo_jax import distributions, ensemble, health
from mbpo_jax.networks import Actor, Critic
from mbpo_jax.options import check, option
from mbpo_jax.types import Agent, Array, Key, Metrics, PyTree, Spec, Transition

NUM_CRITICS = 2
CRITICS = tuple(f"critic {i}" for i in range(NUM_CRITICS))
NAMES_OF_UPDATE = (
    "the temperature",
    "the log-probability of the policy's actions",
    "the critics' target",
    *(f"{critic}'s loss" for critic in CRITICS),
    *(f"{critic}'s gradient" for critic in CRITICS),
    "the actor's loss",
    "the actor's gradient",
    "the temperature's gradient",
)
"""What is looked at in every update, in causal order; of gradients, the biases' (`health.bias_magnitude`)."""
NAMES_OF_STATE = tuple(
    f"a {part} of {network}" for part in ("weight", "moment of Adam") for network in ("the actor", *CRITICS)
)
"""What is looked at once in CHECK_STATE_UPDATES: all of it, which costs as much as a few hundredths of an update."""
CHECK_STATE_UPDATES = 100


@dataclasses.dataclass(frozen=True)
class SacConfig:
    """Knobs of the agent."""

    discount: float = option(0.99, "Reward discount per environment step.", minimum=0.0, maximum=1.0)
    hidden_units: int = option(256, "Units of each hidden layer of actor and critics.", minimum=1, maximum=2**16)
    num_hidden_layers: int = option(2, "Hidden layers of actor and critics.", minimum=1, maximum=100)
    learning_rate: float = option(
        3e-4, "Adam step size of actor, critics and log-temperature.", minimum=0.0, maximum=1.0
    )
    target_update_rate: float = option(
        0.005, "Share of the critics that moves into their targets at each update.", minimum=0.0, maximum=1.0
    )
    target_entropy: float | None = option(
        None,
        "Entropy, in nats, that the temperature holds the policy to; auto is minus the action dimensions.",
    )
    initial_temperature: float = option(1.0, "Entropy temperature before the first update.", minimum=1e-6)

    def __post_init__(self) -> None:
        check(self)


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
    next_value = jnp.min(next_q, axis=0) - temperature * next_log_prob
    return reward + discount * (1.0 - terminal) * next_value


def critic_losses(q: Array, target: Array) -> Array:
    """Half the squared error of every critic q [M, B] to the one target [B], averaged over B; [M]."""
    return 0.5 * jnp.mean(jnp.square(q - target[None]), axis=-1)


def critic_loss(q: Array, target: Array) -> Array:
    """`critic_losses`, summed over M."""
    return jnp.sum(critic_losses(q, target))


def actor_loss(q: Array, log_prob: Array, temperature: Array) -> Array:
    """Mean of temperature * log_prob [B] - min_m q [M, B]. References: Haarnoja et al. 2018b, Eq. 7."""
    return jnp.mean(temperature * log_prob - jnp.min(q, axis=0))


def temperature_loss(log_temperature: Array, log_prob: Array, target_entropy: float) -> Array:
    """-log_temperature * (mean log_prob + target_entropy), softlearning's form of Haarnoja et al. 2018b, Eq. 18."""
    return -log_temperature * jnp.mean(log_prob + target_entropy)


def build(config: SacConfig, spec: Spec) -> Agent:
    """The agent of these knobs."""
    actor_network = Actor(spec.action_dim, config.hidden_units, config.num_hidden_layers)
    critic_network = Critic(config.hidden_units, config.num_hidden_layers)
    optimizer = optax.adam(config.learning_rate)
    target_entropy = -float(spec.action_dim) if config.target_entropy is None else config.target_entropy
    apply_critics = ensemble.lift(
        lambda params, obs, action: critic_network.apply({"params": params}, obs, action), (0, None, None)
    )

    def init_critic(key: Key) -> TrainState:
        params = critic_network.init(key, jnp.zeros(spec.obs_dim), jnp.zeros(spec.action_dim))["params"]
        return TrainState.create(apply_fn=critic_network.apply, params=params, tx=optimizer)

    def init(key: Key) -> SacState:
        key_actor, key_critics = jax.random.split(key)
        actor_params = actor_network.init(key_actor, jnp.zeros(spec.obs_dim))["params"]
        critics = ensemble.init_members(init_critic, key_critics, NUM_CRITICS)
        log_temperature = jnp.log(jnp.asarray(config.initial_temperature, jnp.float32))
        return SacState(
            actor=TrainState.create(apply_fn=actor_network.apply, params=actor_params, tx=optimizer),
            critics=critics,
            target_params=jax.tree.map(jnp.copy, critics.params),
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
        next_q = apply_critics(state.target_params, batch.next_obs, next_action)
        target = soft_target(batch.reward, batch.terminal, next_q, next_log_prob, temperature, config.discount)

        def loss_of_critics(params: PyTree) -> tuple[Array, Array]:
            q = apply_critics(params, batch.obs, batch.action)
            return critic_loss(q, target), q

        def loss_of_actor(params: PyTree) -> tuple[Array, Array]:
            action, log_prob = sample_action(params, batch.obs, noise.action)
            return actor_loss(apply_critics(state.critics.params, batch.obs, action), log_prob, temperature), log_prob

        (loss_q, q), critic_grads = jax.value_and_grad(loss_of_critics, has_aux=True)(state.critics.params)
        (loss_pi, log_prob), actor_grads = jax.value_and_grad(loss_of_actor, has_aux=True)(state.actor.params)
        temperature_grad = jax.grad(temperature_loss)(log_temperature, log_prob, target_entropy)
        critics = ensemble.lift(lambda critic, grads: critic.apply_gradients(grads=grads))(state.critics, critic_grads)
        new_state = SacState(
            actor=state.actor.apply_gradients(grads=actor_grads),
            critics=critics,
            target_params=optax.incremental_update(critics.params, state.target_params, config.target_update_rate),
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
            critic_losses(q, target),
            ensemble.lift(health.bias_magnitude)(critic_grads),
            jnp.abs(loss_pi),
            health.bias_magnitude(actor_grads),
            jnp.abs(temperature_grad),
        )
        return new_state, (metrics, jnp.concatenate([jnp.atleast_1d(value) for value in magnitudes]))

    def look_at_state(state: SacState) -> Array:
        """Magnitudes of `NAMES_OF_STATE`; a root of the moments, for one of them is of squared gradients."""
        of_critics = ensemble.lift(health.magnitude)
        weights = [health.magnitude(state.actor.params)[None], of_critics((state.critics.params, state.target_params))]
        moments = [health.magnitude(state.actor.opt_state)[None], of_critics(state.critics.opt_state)]
        return jnp.concatenate([*weights, *map(jnp.sqrt, moments)])

    def update(key: Key, state: SacState, batches: Transition) -> tuple[SacState, Metrics]:
        """G updates on batches [G, B, ...], in one scan; metrics are means over them, and the health of all of them."""
        key_action, key_next = jax.random.split(key)
        shape = batches.action.shape
        noise = _Noise(action=jax.random.normal(key_action, shape), next_action=jax.random.normal(key_next, shape))
        before, num_updates = state.actor.step // CHECK_STATE_UPDATES, shape[0]
        state, (metrics, magnitudes) = jax.lax.scan(lambda s, xs: update_once(s, *xs), state, (batches, noise))
        told: Metrics = jax.tree.map(jnp.mean, metrics)
        of_state = jax.lax.cond(
            state.actor.step // CHECK_STATE_UPDATES > before,
            look_at_state,
            lambda state: jnp.zeros(len(NAMES_OF_STATE)),
            state,
        )
        told["health"] = health.merge(
            health.first_trouble(NAMES_OF_UPDATE, magnitudes),
            health.first_trouble(NAMES_OF_STATE, of_state[None], num_updates - 1),
        )
        return state, told

    return Agent(init, lambda state: state.actor.params, act, update)
