"""The agent of stochastic value gradients: a policy whose noise can be inferred from its actions, and one critic.

SVG(0) has a critic of states and actions, Q; SVG(1) has one of states, V, and takes one step of a model as a function.
Neither has an entropy bonus.

Reference: Heess et al. 2015, "Learning Continuous Control Policies by Stochastic Value Gradients".
"""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from mbpo_jax import distributions, health, learner
from mbpo_jax.learner import Learner
from mbpo_jax.networks import Actor, Scalar
from mbpo_jax.options import check, option
from mbpo_jax.types import Array, Key, Metrics, PyTree, Spec, Transition, Watched

RepeatFn = Callable[[Array], tuple[Array, Array]]
"""(action [B, A]) -> (next_obs [B, O], reward [B]): real steps repeated with other actions."""

LARGEST_ACTION = 1.0 - 1e-6  # beyond it, arctanh is coarse in float32, and infinite at 1


@dataclasses.dataclass(frozen=True)
class SvgAgentConfig:
    """Knobs of SVG's agents."""

    discount: float = option(0.99, "Reward discount per environment step.", minimum=0.0, maximum=1.0)
    hidden_units: int = option(256, "Units of each hidden layer of actor and critic.", minimum=1, maximum=2**16)
    num_hidden_layers: int = option(2, "Hidden layers of actor and critic.", minimum=1, maximum=100)
    learning_rate: float = option(3e-4, "Adam step size of actor and critic.", minimum=0.0, maximum=1.0)
    actor_gradient_norm: float = option(
        10.0, "Largest norm of the actor's gradient; larger gradients are scaled down to it.", minimum=1e-6
    )
    least_std: float = option(
        0.2, "Smallest standard deviation of the policy's noise, before the tanh.", minimum=1e-3, maximum=10.0
    )
    target_update_rate: float = option(
        0.005, "Share of the critic that moves into its target at every update.", minimum=0.0, maximum=1.0
    )
    target_copy_updates: int = option(
        0, "Updates between copies of the critic into its target; 0: a share moves at every update.", minimum=0
    )

    largest_weight: float = option(
        10.0, "Largest importance weight of a row; larger ones are reduced to it.", minimum=1.0
    )

    def __post_init__(self) -> None:
        check(self)


class SvgAgentState(struct.PyTreeNode, kw_only=True):
    """Everything that an update reads or changes."""

    actor: Learner
    critic: Learner
    target_params: PyTree  # of the critic
    num_updates: Array  # [], int32


class SvgAgent(NamedTuple):
    """The static parts of an agent, passed to the functions below."""

    config: SvgAgentConfig
    spec: Spec
    actor: Actor
    critic: Scalar
    actor_optimizer: optax.GradientTransformation
    critic_optimizer: optax.GradientTransformation


def build(config: SvgAgentConfig, spec: Spec) -> SvgAgent:
    """Builds SVG's agents for the observations of a task and its actions, in [-1, 1]."""
    size = config.hidden_units, config.num_hidden_layers
    adam = optax.adam(config.learning_rate)
    clipped = optax.chain(optax.clip_by_global_norm(config.actor_gradient_norm), adam)
    return SvgAgent(config, spec, Actor(spec.action_dim, *size), Scalar(*size), clipped, adam)


def init(agent: SvgAgent, key: Key, takes_actions: bool) -> SvgAgentState:
    """Returns the agent's initial state.

    Args:
      takes_actions: whether its critic is Q, of states and actions, or V, of states only.
    """
    key_actor, key_critic = jax.random.split(key)
    num_inputs = agent.spec.obs_dim + agent.spec.action_dim * takes_actions
    params = agent.critic.init(key_critic, jnp.zeros(num_inputs))["params"]
    actor_params = agent.actor.init(key_actor, jnp.zeros(agent.spec.obs_dim))["params"]
    return SvgAgentState(
        actor=learner.init(agent.actor_optimizer, actor_params),
        critic=learner.init(agent.critic_optimizer, params),
        target_params=jax.tree.map(jnp.copy, params),
        num_updates=jnp.zeros((), jnp.int32),
    )


# -- the policy: tanh of a Gaussian ----------------------------------------------------------------------------------


def act(agent: SvgAgent, params: PyTree, obs: Array, noise: Array) -> Array:
    """Returns the actions [..., A] for noise [..., A], which is standard normal or 0."""
    mean, log_std = _gaussian(agent, params, obs)
    return jnp.tanh(mean + jnp.exp(log_std) * noise)


def noise_of(agent: SvgAgent, params: PyTree, obs: Array, action: Array) -> Array:
    """Returns the noise [..., A] with which the policy of these parameters takes the actions [..., A]."""
    mean, log_std = _gaussian(agent, params, obs)
    return (jnp.arctanh(jnp.clip(action, -LARGEST_ACTION, LARGEST_ACTION)) - mean) * jnp.exp(-log_std)


def log_prob(agent: SvgAgent, params: PyTree, obs: Array, action: Array) -> Array:
    """Returns the log-probability [...] of actions [..., A], in nats."""
    mean, log_std = _gaussian(agent, params, obs)
    noise = noise_of(agent, params, obs, action)
    return distributions.tanh_gaussian(mean, log_std, noise)[1]


def _gaussian(agent: SvgAgent, params: PyTree, obs: Array) -> tuple[Array, Array]:
    mean, log_std = agent.actor.apply({"params": params}, obs)
    return mean, jnp.maximum(log_std, math.log(agent.config.least_std))


# -- the critic ------------------------------------------------------------------------------------------------------


def value(agent: SvgAgent, params: PyTree, obs: Array) -> Array:
    """Returns V(s) [...] of states [..., O]."""
    return agent.critic.apply({"params": params}, obs)  # type: ignore[return-value]


def q_value(agent: SvgAgent, params: PyTree, obs: Array, action: Array) -> Array:
    """Returns Q(s, a) [...] of actions [..., A] in states [..., O]."""
    return agent.critic.apply({"params": params}, jnp.concatenate([obs, action], -1))  # type: ignore[return-value]


def move_target(agent: SvgAgent, critic: Learner, target_params: PyTree, num_updates: Array) -> PyTree:
    """Returns the target critic's parameters after `num_updates` [] of the critic, by a soft or a periodic hard update.

    Reference: "hard" and "soft" target networks; Mnih et al. 2015, Lillicrap et al. 2015.
    """
    every = agent.config.target_copy_updates
    if not every:
        return optax.incremental_update(critic.params, target_params, agent.config.target_update_rate)
    return jax.tree.map(lambda new, old: jnp.where(num_updates % every == 0, new, old), critic.params, target_params)


# -- learning off policy ---------------------------------------------------------------------------------------------


def importance(log_prob: Array, behaviour: Array, largest: float) -> Array:
    """Returns the importance weights [B] of a policy against the one that took the actions, capped at `largest`.

    Args:
      log_prob, behaviour: [B], log-probabilities under the two policies, in nats.
    """
    return jnp.exp(jnp.minimum(log_prob - behaviour, math.log(largest)))


def critic_target(reward: Array, terminal: Array, next_value: Array, discount: float) -> Array:
    """Returns r + discount * (1 - terminal) * next_value; all [B]."""
    return reward + discount * (1.0 - terminal) * next_value


class Objective(NamedTuple):
    """What an update learns on rows [B]."""

    weight: Array  # [B], of each row, in both losses
    target: Array  # [B], of the critic
    predicted: Callable[[PyTree], Array]  # (critic's parameters) -> [B], regressed on the target
    actor_objective: Callable[[PyTree], Array]  # (actor's parameters) -> [B], which the actor maximises


def svg_0(agent: SvgAgent, state: SvgAgentState, rows: Transition, noise: Array, next_noise: Array) -> Objective:
    """Returns Q's own target, and Q of the policy's actions; Q is off-policy, so the weights are 1.

    Args:
      noise, next_noise: [B, A], standard normal, of the policy's actions at obs and at next_obs.
    """
    next_action = act(agent, state.actor.params, rows.next_obs, next_noise)
    next_q = q_value(agent, state.target_params, rows.next_obs, next_action)
    critic = state.critic.params
    return Objective(
        weight=jnp.ones_like(rows.reward),
        target=critic_target(rows.reward, rows.terminal, next_q, agent.config.discount),
        predicted=lambda params: q_value(agent, params, rows.obs, rows.action),
        actor_objective=lambda policy: q_value(agent, critic, rows.obs, act(agent, policy, rows.obs, noise)),
    )


def svg_1(agent: SvgAgent, repeat: RepeatFn, state: SvgAgentState, rows: Transition, behaviour: Array) -> Objective:
    """Returns V's own target, and reward plus discounted V for the policy's actions with the noise of the real ones.

    Args:
      repeat: the steps of these rows in a model, with the noise that explains them.
      behaviour: [B], log-probabilities of the rows' actions under the policy that took them.
    """
    policy, critic, discount = state.actor.params, state.critic.params, agent.config.discount
    now = log_prob(agent, policy, rows.obs, rows.action)
    noise = noise_of(agent, policy, rows.obs, rows.action)

    def actor_objective(policy: PyTree) -> Array:
        next_obs, reward = repeat(act(agent, policy, rows.obs, noise))
        return critic_target(reward, rows.terminal, value(agent, critic, next_obs), discount)

    next_value = value(agent, state.target_params, rows.next_obs)
    return Objective(
        weight=importance(now, behaviour, agent.config.largest_weight),
        target=critic_target(rows.reward, rows.terminal, next_value, discount),
        predicted=lambda params: value(agent, params, rows.obs),
        actor_objective=actor_objective,
    )


def update_once(
    agent: SvgAgent, state: SvgAgentState, objective: Objective
) -> tuple[SvgAgentState, tuple[Metrics, Watched]]:
    """Takes one update; all gradients are computed at the parameters before it."""
    weight, target = objective.weight, objective.target

    def critic_loss(params: PyTree) -> tuple[Array, Array]:
        found = objective.predicted(params)
        return 0.5 * jnp.mean(weight * jnp.square(found - target)), found

    def actor_loss(params: PyTree) -> Array:
        return -jnp.mean(weight * objective.actor_objective(params))

    (loss_v, found), critic_grads = jax.value_and_grad(critic_loss, has_aux=True)(state.critic.params)
    loss_pi, actor_grads = jax.value_and_grad(actor_loss)(state.actor.params)
    critic = learner.step(agent.critic_optimizer, state.critic, critic_grads)
    num_updates = state.num_updates + 1
    state = SvgAgentState(
        actor=learner.step(agent.actor_optimizer, state.actor, actor_grads),
        critic=critic,
        target_params=move_target(agent, critic, state.target_params, num_updates),
        num_updates=num_updates,
    )
    metrics = {
        "critic_loss": loss_v,
        "actor_loss": loss_pi,
        "value_mean": jnp.mean(found),
        "weight_mean": jnp.mean(weight),
    }
    causal_order = {
        "the critic's target": target,
        "the critic's loss": loss_v,
        "the critic's gradient": health.bias_magnitude(critic_grads),
        "the actor's loss": loss_pi,
        "the actor's gradient": health.bias_magnitude(actor_grads),
    }
    return state, (metrics, health.watch(causal_order))
