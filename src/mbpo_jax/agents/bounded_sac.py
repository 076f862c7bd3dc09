"""SAC whose critics know the scale of returns, for learning along imagined trajectories.

There are M smooth critics. Their outputs are scaled by the range of returns that the rewards so far allow. Targets take
the minimum over a few critics, drawn at random, clipped to that range; the actor maximises the mean of all critics.

References: DHMBPO (arXiv 2512.15439). There the range ignores termination, so with positive rewards it excludes 0, the
value after a terminal step; here it contains 0 unless `range_with_zero` is off.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from mbpo_jax import distributions, ensemble, health, learner, normalizer
from mbpo_jax.agents import critics, sac
from mbpo_jax.agents.critics import ActorCriticConfig, Critics
from mbpo_jax.learner import Learner
from mbpo_jax.networks import SmoothActor, SmoothCritic
from mbpo_jax.normalizer import Normalizer, normalize
from mbpo_jax.options import option
from mbpo_jax.types import Acting, Array, Critic, Key, Metrics, PyTree, Regression, Spec, Watched

TAIL = 0.01  # share of rewards at each end that the range of returns leaves out


@dataclasses.dataclass(frozen=True)
class BoundedSacConfig(ActorCriticConfig):
    """Knobs of SAC with bounded critics."""

    discount: float = option(0.995, "Reward discount per environment step.", minimum=0.0, maximum=0.9999)
    num_hidden_layers: int = option(3, "Hidden layers of actor and critics.", minimum=1, maximum=100)
    num_critics: int = option(
        5, "Number of critics; the actor maximises the mean of their values.", minimum=1, maximum=100
    )
    num_target_critics: int = option(
        2, "Critics drawn at random for targets, which use the smallest of their values.", minimum=1, maximum=100
    )
    target_entropy: float | None = option(
        None,
        "Entropy of the policy, in nats, that the temperature aims at; auto: minus the action dimensions.",
    )
    initial_temperature: float = option(0.1, "Entropy temperature before the first update.", minimum=1e-6)
    return_range_rate: float = option(
        3e-4,
        "Share of the way by which an update moves the critics' range of returns to a batch's.",
        minimum=0.0,
        maximum=1.0,
    )
    range_with_zero: bool = option(
        True, "Extend the range of returns to 0, the value after an end; the paper does not.", before=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_target_critics > self.num_critics:
            raise ValueError(
                f"num_target_critics must be at most num_critics ({self.num_critics}), got {self.num_target_critics}"
            )


class Policy(struct.PyTreeNode, kw_only=True):
    """What acting needs: the actor's parameters and the scale of its observations."""

    params: PyTree
    scale: Normalizer  # [O]


class BoundedSacState(struct.PyTreeNode, kw_only=True):
    """Everything that an update reads or changes."""

    actor: Learner
    critics: Learner  # [M, ...]
    target_params: PyTree  # [M, ...], of the critics
    log_temperature: Learner  # []
    scale: Normalizer  # [O], of observations
    return_range: Array  # [2], low and high
    num_updates: Array  # [], int32, of the critics


class BoundedSac(NamedTuple):
    """The static parts of an agent, passed to the functions below."""

    config: BoundedSacConfig
    spec: Spec
    actor: SmoothActor
    critics: Critics
    optimizer: optax.GradientTransformation
    target_entropy: float


def build(config: BoundedSacConfig, spec: Spec) -> BoundedSac:
    """Builds SAC with bounded critics for the observations of a task and its actions, in [-1, 1]."""
    optimizer = optax.adam(config.learning_rate)
    network = SmoothCritic(config.hidden_units, config.num_hidden_layers)
    return BoundedSac(
        config=config,
        spec=spec,
        actor=SmoothActor(spec.action_dim, config.hidden_units, config.num_hidden_layers),
        critics=Critics(network, optimizer, critics.names(config.num_critics)),
        optimizer=optimizer,
        target_entropy=-float(spec.action_dim) if config.target_entropy is None else config.target_entropy,
    )


def init(agent: BoundedSac, key: Key) -> BoundedSacState:
    """Returns the agent's initial state."""
    key_actor, key_critics = jax.random.split(key)
    actor_params = agent.actor.init(key_actor, jnp.zeros(agent.spec.obs_dim))["params"]
    first_critics = critics.init(agent.critics, key_critics, agent.spec)
    log_temperature = jnp.log(jnp.asarray(agent.config.initial_temperature, jnp.float32))
    return BoundedSacState(
        actor=learner.init(agent.optimizer, actor_params),
        critics=first_critics,
        target_params=jax.tree.map(jnp.copy, first_critics.params),
        log_temperature=learner.init(agent.optimizer, log_temperature),
        scale=normalizer.identity(agent.spec.obs_dim),
        return_range=jnp.asarray([-1.0, 1.0]),
        num_updates=jnp.zeros((), jnp.int32),
    )


def begin_burst(agent: BoundedSac, state: BoundedSacState, scale: Normalizer) -> BoundedSacState:
    """Returns the agent with a new observation scale and freshly initialised optimisers."""
    fresh = ensemble.lift(lambda params: learner.init(agent.optimizer, params))
    return state.replace(
        scale=scale,
        actor=learner.init(agent.optimizer, state.actor.params),
        critics=fresh(state.critics.params),
        log_temperature=learner.init(agent.optimizer, state.log_temperature.params),
    )


# -- acting and evaluating actions -----------------------------------------------------------------------------------


def policy(state: BoundedSacState) -> Policy:
    """Returns the part of the state that acting needs."""
    return Policy(params=state.actor.params, scale=state.scale)


def act(agent: BoundedSac, key: Key, actor: Policy, obs: Array, explore: bool) -> Array:
    """Returns actions [B, A]: samples from the policy if `explore`, else its squashed mean."""
    mean, log_std = agent.actor.apply({"params": actor.params}, normalize(actor.scale, obs))
    noise = jax.random.normal(key, mean.shape) if explore else jnp.zeros_like(mean)
    return jnp.tanh(mean + jnp.exp(log_std) * noise)


def draw(agent: BoundedSac, key: Key, state: BoundedSacState, actor: Policy, obs: Array) -> tuple[Array, Array, Array]:
    """Returns actions [B, A] at obs [B, O], -temperature * log-probability [B], and the log-probability [B]."""
    mean, log_std = agent.actor.apply({"params": actor.params}, normalize(actor.scale, obs))
    action, log_prob = distributions.tanh_gaussian(mean, log_std, jax.random.normal(key, mean.shape))
    return action, -jnp.exp(state.log_temperature.params) * log_prob, log_prob


def q_values(agent: BoundedSac, state: BoundedSacState, params: PyTree, obs: Array, action: Array) -> Array:
    """Returns q [M, B], in units of reward, from critics with these parameters [M, ...]."""
    center, half_width = _center(state)
    return center + half_width * critics.apply(agent.critics, params, normalize(state.scale, obs), action)


def target_value(agent: BoundedSac, key: Key, state: BoundedSacState, obs: Array, action: Array) -> Array:
    """Returns the minimum [B] over a few target critics, drawn at random, clipped to the range of returns."""
    config = agent.config
    chosen = jax.random.permutation(key, config.num_critics)[: config.num_target_critics]
    q = q_values(agent, state, ensemble.member(state.target_params, chosen), obs, action)
    return jnp.clip(jnp.min(q, axis=0), state.return_range[0], state.return_range[1])


def mean_value(agent: BoundedSac, state: BoundedSacState, obs: Array, action: Array) -> Array:
    """Returns the mean value [B] over all critics."""
    return jnp.mean(q_values(agent, state, state.critics.params, obs, action), axis=0)


def _center(state: BoundedSacState) -> tuple[Array, Array]:
    low, high = state.return_range
    return 0.5 * (low + high), 0.5 * (high - low)


def acting(agent: BoundedSac) -> Acting:
    """Returns the agent's policy and critics as an `Acting`."""

    def target_q_values(state: BoundedSacState, obs: Array, action: Array) -> Array:
        return q_values(agent, state, state.target_params, obs, action)

    def target_action(key: Key, state: BoundedSacState, obs: Array) -> tuple[Array, Array]:
        action, bonus, _ = draw(agent, key, state, policy(state), obs)
        return action, bonus

    return Acting(
        actor=policy,
        act=functools.partial(act, agent),
        critic=Critic(
            q_values=lambda state, obs, action: q_values(agent, state, state.critics.params, obs, action),
            target_q_values=target_q_values,
            target_action=target_action,
            has_entropy=True,
        ),
    )


# -- learning --------------------------------------------------------------------------------------------------------


def track_return_range(agent: BoundedSac, state: BoundedSacState, rewards: Array) -> BoundedSacState:
    """Moves the range of returns towards that of receiving rewards [...], with bonuses, forever.

    A reward is nan where an episode had ended before: 0 if the range shall contain 0, else left out.
    """
    if agent.config.range_with_zero:
        rewards = jnp.where(jnp.isnan(rewards), 0.0, rewards)
    observed = jnp.nanquantile(rewards, jnp.asarray([TAIL, 1.0 - TAIL])) / (1.0 - agent.config.discount)
    observed = jnp.where(jnp.isnan(observed), state.return_range, observed)  # all had ended
    if agent.config.range_with_zero:
        observed = jnp.stack([jnp.minimum(observed[0], 0.0), jnp.maximum(observed[1], 0.0)])
    rate = jnp.where(state.num_updates == 0, 1.0, agent.config.return_range_rate)
    return state.replace(return_range=state.return_range + rate * (observed - state.return_range))


def step_critics(
    agent: BoundedSac, state: BoundedSacState, rows: Regression
) -> tuple[BoundedSacState, Metrics, dict[str, Array]]:
    """Takes one step of every critic towards targets in units of reward; also returns metrics and what to watch."""
    center, half_width = _center(state)
    half_width = jnp.maximum(half_width, 1e-6)  # all rewards may be 0
    scaled = rows._replace(obs=normalize(state.scale, rows.obs), target=(rows.target - center) / half_width)
    stepped, loss, q, watched = critics.regress(agent.critics, state.critics, scaled)
    rate = agent.config.target_update_rate
    state = state.replace(
        critics=stepped,
        target_params=optax.incremental_update(stepped.params, state.target_params, rate),
        num_updates=state.num_updates + 1,
    )
    metrics = {
        "critic_loss": loss,
        "q_mean": center + half_width * jnp.mean(q),
        "return_range_low": state.return_range[0],
        "return_range_high": state.return_range[1],
    }
    return state, metrics, {"the critics' target": rows.target, **watched}


def step_actor(
    agent: BoundedSac, state: BoundedSacState, grads: PyTree, log_prob: Array
) -> tuple[BoundedSacState, Metrics, dict[str, Array]]:
    """Takes a step of the actor with `grads`, and of the temperature with the log-probabilities [B] of its actions."""
    temperature = state.log_temperature
    temperature_grad = jax.grad(sac.temperature_loss)(temperature.params, log_prob, agent.target_entropy)
    watched = {
        "the actor's gradient": health.bias_magnitude(grads),
        "the temperature's gradient": temperature_grad,
    }
    state = state.replace(
        actor=learner.step(agent.optimizer, state.actor, grads),
        log_temperature=learner.step(agent.optimizer, temperature, temperature_grad),
    )
    return state, {"entropy": -jnp.mean(log_prob), "temperature": jnp.exp(temperature.params)}, watched


def watch_state(agent: BoundedSac, state: BoundedSacState) -> Watched:
    """Measures the magnitudes of all weights and moments."""
    return critics.watch_state(agent.critics, state.actor, state.critics, ((), state.target_params), jnp.ones((), bool))
