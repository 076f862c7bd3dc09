"""Stochastic value gradients: real steps, explained by policy and model noise, are differentiated.

SVG(0) maximises Q at the policy's actions, SVG(1) one step of the model and V after it, both off-policy; SVG(inf)
maximises the newest whole episode's return, on-policy, without a critic.

Reference: Heess et al. 2015, "Learning Continuous Control Policies by Stochastic Value Gradients". Differences:
docs/through_the_model.md.
"""

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from mbpo_jax import health, learner, replay
from mbpo_jax.agents import svg as agents
from mbpo_jax.agents.svg import SvgAgent, SvgAgentConfig, SvgAgentState
from mbpo_jax.algorithms import phases
from mbpo_jax.models import encoding, gaussian, noise_inference
from mbpo_jax.models.noise_inference import NoiseInference
from mbpo_jax.models.state import GaussianConfig
from mbpo_jax.options import check, option
from mbpo_jax.replay import Replay
from mbpo_jax.rollouts import episode_gradient
from mbpo_jax.types import (
    FINISHED,
    Algorithm,
    Array,
    Key,
    Phase,
    Programs,
    PyTree,
    Report,
    Spec,
    Transition,
    Watched,
    WorldModel,
)

NONE, ONE, ALL = "0", "1", "inf"  # steps of the model


@dataclasses.dataclass(frozen=True)
class SvgConfig:
    """Knobs of stochastic value gradients. The defaults are for tasks without tuned settings."""

    svg_steps: str = option(ONE, "Steps of the model that the gradient goes through.", choices=(NONE, ONE, ALL))
    exploration_steps: int = option(500, "Environment steps of uniformly random actions before learning.", minimum=1)
    replay_capacity: int = option(
        1_000_000, "Maximum number of real rows kept; new rows replace the oldest.", minimum=1
    )
    fit_every_steps: int = option(250, "Environment steps between model fits.", minimum=1)
    updates_per_step: int = option(4, "Agent updates per environment step; svg_steps=inf: per episode.", minimum=1)
    batch_size: int = option(256, "Rows of an agent update; none with svg_steps=inf.", minimum=1)
    longest_episode: int = option(
        1000, "Steps of an episode that svg_steps=inf learns from; later ones are ignored.", minimum=1
    )
    reward_fn: str = option("learned", phases.REWARD_HELP)
    model: GaussianConfig = GaussianConfig(num_members=1, num_elites=1)
    agent: SvgAgentConfig = SvgAgentConfig()

    def __post_init__(self) -> None:
        check(self)


TINY = {
    "exploration_steps": 40, "replay_capacity": 400, "fit_every_steps": 10, "updates_per_step": 2, "batch_size": 16,
    "longest_episode": 30, "model.model_hidden_units": 8, "model.model_weight_decays": (5e-5, 1e-4),
    "model.fit_epoch_minibatches": 1, "agent.hidden_units": 8, "agent.num_hidden_layers": 1,
}  # fmt: skip
"""Changes to the defaults, by full path, with which tests run every phase within seconds."""


class SvgState(struct.PyTreeNode, kw_only=True):
    """Everything the phases read, apart from the real rows."""

    model: PyTree
    agent: SvgAgentState
    behaviour: Array  # [N], log-probability of the action of real row i under the policy that took it, at i % N
    episode: Array  # [], int32, number of the first row of the newest finished episode found so far; -1: none
    pending: Array  # [], bool, whether that episode is still to be learnt from


class Svg(NamedTuple):
    """The static parts of the algorithm, passed to the functions below."""

    config: SvgConfig
    spec: Spec
    world: WorldModel
    inference: NoiseInference  # of the world
    agent: SvgAgent


def build(config: SvgConfig, spec: Spec) -> Algorithm:
    """Builds SVG with `svg_steps` steps of the model.

    Raises:
      ValueError: episodes may be so long that none would be found.
    """
    if config.svg_steps == ALL and config.replay_capacity <= (spec.max_episode_steps or 0):
        raise ValueError(
            f"replay_capacity must be above the steps of an episode ({spec.max_episode_steps}), got "
            f"{config.replay_capacity}"
        )
    if config.svg_steps == ALL and 2 * config.longest_episode < (spec.max_episode_steps or 0):
        raise ValueError(
            f"longest_episode must be at least half of the steps of an episode ({spec.max_episode_steps}), got "
            f"{config.longest_episode}"
        )
    world = gaussian.build(config.model, spec)
    inference = NoiseInference(world, encoding.forward(spec), spec.reward_fn)
    svg = Svg(config, spec, world, inference, agents.build(config.agent, spec))
    first = config.exploration_steps
    fit = Phase("fit_model", config.fit_every_steps, first, phases.fit_model(world))
    if config.svg_steps == ALL:
        functions = functools.partial(check_for_new_episode, svg), functools.partial(update_episode, svg)
        learn = Programs(functions, lambda state: jnp.where(state.pending, 1, FINISHED))
    else:
        learn = Programs((functools.partial(update_batches, svg),))
    update = Phase("update_agent", 1, first, learn)
    return Algorithm(
        init=functools.partial(init, svg),
        actor=lambda state: state.agent.actor.params,
        begin_episode=lambda key, actor: (),
        act=functools.partial(act, svg),
        phases=(update,) if config.svg_steps == NONE else (fit, update),
        exploration_steps=first,
        replay_capacity=config.replay_capacity,
        learns_from_episodes=config.svg_steps == ALL,
    )


def init(svg: Svg, key: Key) -> SvgState:
    """Returns the initial state, in which all rows count as uniformly random actions."""
    key_model, key_agent = jax.random.split(key)
    uniform = -svg.spec.action_dim * math.log(2.0)
    return SvgState(
        model=svg.world.init(key_model),
        agent=agents.init(svg.agent, key_agent, svg.config.svg_steps == NONE),
        behaviour=jnp.full(svg.config.replay_capacity, uniform),
        episode=jnp.full((), -1, jnp.int32),
        pending=jnp.zeros((), bool),
    )


def act(svg: Svg, key: Key, actor: PyTree, carry: tuple[()], obs: Array, explore: bool) -> tuple[Array, tuple[()]]:
    """Returns an action [A], and nothing to carry over."""
    shape = (1, svg.spec.action_dim)
    noise = jax.random.normal(key, shape) if explore else jnp.zeros(shape)
    return agents.act(svg.agent, actor, obs[None], noise)[0], carry


# -- off-policy: SVG(0) and SVG(1) -----------------------------------------------------------------------------------


def update_batches(svg: Svg, key: Key, state: SvgState, real: Replay) -> tuple[SvgState, Report]:
    """Takes G updates on batches of real rows in one scan; metrics are means over them."""
    state = remember(svg, state, real)
    key_rows, key_noise = jax.random.split(key)
    shape = svg.config.updates_per_step, svg.config.batch_size
    age = jax.random.randint(key_rows, shape, 0, real.size)
    rows = replay.take(real, age)
    behaviour = state.behaviour[(real.num_added - real.size + age) % len(state.behaviour)]
    noise = jax.random.normal(key_noise, (2, *shape, svg.spec.action_dim))
    belief = svg.world.belief(state.model)

    def once(agent: SvgAgentState, xs: tuple[Transition, Array, Array, Array]) -> tuple[SvgAgentState, PyTree]:
        rows, behaviour, noise, next_noise = xs
        if svg.config.svg_steps == NONE:
            objective = agents.svg_0(svg.agent, agent, rows, noise, next_noise)
        else:
            repeat = functools.partial(noise_inference.repeat, svg.inference, belief, rows)
            objective = agents.svg_1(svg.agent, repeat, agent, rows, behaviour)
        return agents.update_once(svg.agent, agent, objective)

    agent, (metrics, watched) = jax.lax.scan(once, state.agent, (rows, behaviour, *noise))
    drawn = health.watch({"a real row": rows}, keep=1)
    return state.replace(agent=agent), Report(jax.tree.map(jnp.mean, metrics), (drawn, watched))


def remember(svg: Svg, state: SvgState, real: Replay) -> SvgState:
    """Stores the log-probability of the newest action under the policy that took it, which has not changed since."""
    row, slot = replay.take(real, real.size - 1), (real.num_added - 1) % len(state.behaviour)
    uniform = -svg.spec.action_dim * math.log(2.0)
    found = agents.log_prob(svg.agent, state.agent.actor.params, row.obs, row.action)
    found = jnp.where(real.num_added <= svg.config.exploration_steps, uniform, found)
    return state.replace(behaviour=state.behaviour.at[slot].set(found))


# -- on-policy: SVG(inf) ---------------------------------------------------------------------------------------------


def check_for_new_episode(svg: Svg, key: Key, state: SvgState, real: Replay) -> tuple[SvgState, Report]:
    """Checks whether the policy has finished an episode that nothing was learnt from yet."""
    del key
    _, inside, number = replay.newest_episode(real, svg.config.longest_episode)
    pending = (number >= svg.config.exploration_steps) & (number > state.episode)
    episode = jnp.where(pending, number, state.episode)
    return state.replace(pending=pending, episode=episode), Report({"newest_episode_rows": jnp.sum(inside)})


def update_episode(svg: Svg, key: Key, state: SvgState, real: Replay) -> tuple[SvgState, Report]:
    """Takes G steps of the actor along the gradient of the newest episode's return."""
    rows, inside, _ = replay.newest_episode(real, svg.config.longest_episode)
    belief = svg.world.belief(state.model)
    model_noise = jnp.where(inside[:, None], noise_inference.noise_of(svg.inference, belief, rows), 0.0)

    def once(agent: SvgAgentState, _: None) -> tuple[SvgAgentState, Watched]:
        gradient = return_gradient(svg, belief, agent.actor.params, rows, model_noise, inside)
        actor = learner.step(svg.agent.actor_optimizer, agent.actor, jax.tree.map(jnp.negative, gradient))
        watched = health.watch({"the actor's gradient": health.bias_magnitude(gradient), "a weight": actor.params})
        return agent.replace(actor=actor, num_updates=agent.num_updates + 1), watched

    agent, watched = jax.lax.scan(once, state.agent, length=svg.config.updates_per_step)
    metrics = {"episode_return": jnp.sum(jnp.where(inside, rows.reward, 0.0)), "actor_gradient": watched.values[-1, 0]}
    drawn = health.watch({"a real row": rows, "the model's noise": model_noise})
    return state.replace(agent=agent, pending=jnp.zeros((), bool)), Report(metrics, (drawn, watched))


def return_gradient(
    svg: Svg, belief: PyTree, policy: PyTree, rows: Transition, model_noise: Array, inside: Array
) -> PyTree:
    """Returns the gradient of an episode's [T, ...] discounted return with respect to the policy's parameters.

    Args:
      model_noise: [T, D], the model noise that explains the rows.
    """

    def step(policy: PyTree, obs: Array, noise: tuple[Array, Array]) -> tuple[Array, Array]:
        action = agents.act(svg.agent, policy, obs[None], noise[0][None])
        next_obs, reward = noise_inference.move(svg.inference, belief, obs[None], action, noise[1][None])
        return reward[0], next_obs[0]

    own = agents.noise_of(svg.agent, policy, rows.obs, rows.action)
    discount = svg.agent.config.discount
    return episode_gradient.backward(step, policy, rows.obs, (own, model_noise), inside, discount)[0]
