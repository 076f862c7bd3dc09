"""SAC-SVG: soft actor-critic whose actor maximises the rewards of a few model steps and the value after them.

Reference: Amos et al. 2021, "On the model-based stochastic value gradient for continuous reinforcement learning"; the
authors' code, facebookresearch/svg@3a2c945, `svg/agent.py`. Differences: docs/through_the_model.md.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from mbpo_jax import batching, schedules
from mbpo_jax.agents import sac, scaled
from mbpo_jax.agents.sac import SacConfig
from mbpo_jax.agents.scaled import Scaled
from mbpo_jax.algorithms import phases, reporting
from mbpo_jax.algorithms.reactive import reactive
from mbpo_jax.models import sequence
from mbpo_jax.models.sequence import SequenceConfig, SequenceModel, SequenceState
from mbpo_jax.options import check, option
from mbpo_jax.replay import Replay
from mbpo_jax.rollouts import pathwise
from mbpo_jax.types import Agent, Algorithm, Array, Key, Learning, Phase, Programs, PyTree, Report, Spec, Transition

SMALLEST_SCALE, LARGEST_SCALE = 0.1, 10.0  # the authors' bounds on what observations are divided by


@dataclasses.dataclass(frozen=True)
class SacSvgConfig:
    """Knobs of SAC-SVG. The defaults are for tasks without tuned settings."""

    exploration_steps: int = option(500, "Environment steps of uniformly random actions before learning.", minimum=1)
    warmup_steps: int = option(
        1000, "Environment steps, exploration included, before the actor's loss uses the model.", minimum=0
    )
    replay_capacity: int = option(
        1_000_000, "Maximum number of real rows kept; new rows replace the oldest.", minimum=1
    )
    horizon: int = option(
        2, "Imagined steps that the actor's gradient goes through; the paper counts one more.", minimum=1
    )
    scale_every_steps: int = option(
        250, "Environment steps between measurements of the mean and spread of observations.", minimum=1
    )
    updates_per_step: int = option(1, "Agent updates per environment step.", minimum=1)
    batch_size: int = option(256, "Rows of an agent update.", minimum=1)
    first_target_entropy: float | None = option(
        None, "First target entropy, in nats, which moves to target_entropy; auto: target_entropy from the start."
    )
    entropy_decay_steps: int = option(
        100_000, "Environment steps until the target entropy reaches its last value.", minimum=1
    )
    entropy_decay_power: float = option(
        1.0, "Power p of (1 - t / T)^p, with which the target entropy approaches its last value.", minimum=0.0
    )
    termination_fn: str = option("auto", phases.RULE_HELP)
    reward_fn: str = option("learned", phases.REWARD_HELP)
    model: SequenceConfig = SequenceConfig()
    agent: SacConfig = SacConfig()

    def __post_init__(self) -> None:
        check(self)


TINY = {
    "exploration_steps": 40, "warmup_steps": 45, "replay_capacity": 400, "updates_per_step": 2, "batch_size": 16,
    "model.model_hidden_units": 8, "model.model_hidden_layers": 1, "model.model_batch_size": 16,
    "model.fit_minibatches": 2, "agent.hidden_units": 8, "agent.num_hidden_layers": 1,
}  # fmt: skip
"""Changes to the defaults, by full path, with which tests run every phase within seconds."""


class SacSvgState(struct.PyTreeNode, kw_only=True):
    """Everything the phases read, apart from the real rows."""

    model: SequenceState
    agent: Scaled


class SacSvg(NamedTuple):
    """The static parts of the algorithm, passed to the functions below."""

    config: SacSvgConfig
    spec: Spec
    model: SequenceModel
    inside: Agent  # SAC, on scaled observations
    agent: Agent  # the same, on unscaled observations


def build(config: SacSvgConfig, spec: Spec) -> Algorithm:
    """Builds SAC-SVG.

    Raises:
      ValueError: the spec has no termination function.
    """
    phases.check_rule(spec, config.termination_fn)
    inside = sac.build(config.agent, spec)
    model = sequence.build(config.model, spec, config.horizon)
    parts = SacSvg(config, spec, model, inside, scaled.build(inside, spec))
    first = config.exploration_steps
    measure = reporting.with_rule(Programs((measure_scale,)), lambda state: phases.known_rule(spec))
    return Algorithm(
        init=functools.partial(init, parts),
        phases=(
            Phase("measure_scale", config.scale_every_steps, first, measure),
            Phase("fit_model", 1, first, Programs((functools.partial(fit_model, parts),))),
            Phase("update_agent", 1, first, Programs((functools.partial(update_agent, parts),))),
        ),
        exploration_steps=first,
        replay_capacity=config.replay_capacity,
        dynamics=lambda state: sequence.dynamics(model, state.model, state.agent.scale),
        **reactive(parts.agent),
    )


def init(parts: SacSvg, key: Key) -> SacSvgState:
    """Returns the state before the first step: untrained networks."""
    key_model, key_agent = jax.random.split(key)
    return SacSvgState(model=sequence.init(parts.model, key_model), agent=parts.agent.init(key_agent))


# -- phases ----------------------------------------------------------------------------------------------------------


def measure_scale(key: Key, state: SacSvgState, real: Replay) -> tuple[SacSvgState, Report]:
    """Sets the scale of observations, for agent and model, from the real rows."""
    (measure,) = scaled.measure(scaled.STANDARD).functions
    state, report = measure(key, state, real)
    scale = state.agent.scale
    scale = scale.replace(std=jnp.clip(scale.std, SMALLEST_SCALE, LARGEST_SCALE))
    report = report.replace(metrics=report.metrics | {"obs_scale": scale.std})
    return state.replace(agent=state.agent.replace(scale=scale)), report


def fit_model(parts: SacSvg, key: Key, state: SacSvgState, real: Replay) -> tuple[SacSvgState, Report]:
    """Takes a few gradient steps of the model."""
    model, report = sequence.fit(parts.model, key, state.model, state.agent.scale, real)
    return state.replace(model=model), report


def update_agent(parts: SacSvg, key: Key, state: SacSvgState, real: Replay) -> tuple[SacSvgState, Report]:
    """Updates the agent on real rows; its schedules follow the environment step, which is the number of real rows."""
    batches = phases.real_batches(parts.config.updates_per_step, parts.config.batch_size)
    (update,) = phases.update_agent(parts.agent, batches, functools.partial(learning, parts, real.num_added)).functions
    return update(key, state, real)


def learning(parts: SacSvg, step: Array, state: SacSvgState) -> Learning:
    """Returns what the agent learns from: its own critic targets, but the actor loss and target entropy of this step.

    Args:
      step: [], int, of the environment.
    """
    warm = batching.anywhere(step < parts.config.warmup_steps)
    return Learning(
        actor_loss=functools.partial(actor_loss, parts, state, warm), target_entropy=target_entropy(parts, step)
    )


def actor_loss(
    parts: SacSvg, svg_state: SacSvgState, warm: Array, key: Key, actor: PyTree, state: PyTree, batch: Transition
) -> tuple[Array, Array]:
    """Returns the loss [] of an actor, and the log-probabilities [B] of its first actions, on scaled rows [B, ...].

    Args:
      svg_state: the algorithm's state, of which model and scale are used.
      warm: bool [], whether the loss is SAC's own, without imagined steps.
      state: of the agent on scaled observations.
    """
    dynamics = sequence.scaled_dynamics(parts.model, svg_state.model, svg_state.agent.scale)
    agent = observing(parts.model, parts.inside)
    batch = batch.replace(obs=sequence.initial_state(parts.model, batch.obs))

    def loss_of(num_steps: int) -> tuple[Array, Array]:
        return pathwise.actor_loss(dynamics, agent, num_steps, parts.config.agent.discount, key, actor, state, batch)

    return jax.lax.cond(warm, lambda: loss_of(0), lambda: loss_of(parts.config.horizon))


def observing(model: SequenceModel, agent: Agent) -> Agent:
    """Adapts an agent, for an actor loss, to rows that are states of the model, with its memory."""
    assert agent.draw is not None and agent.critic is not None
    draw, q_values = agent.draw, agent.critic.q_values
    return agent._replace(
        draw=lambda key, state, actor, rows: draw(key, state, actor, sequence.observe(model, rows)),
        critic=agent.critic._replace(
            q_values=lambda state, rows, action: q_values(state, sequence.observe(model, rows), action)
        ),
    )


def target_entropy(parts: SacSvg, step: Array) -> Array | None:
    """Returns the scheduled target entropy [] at a step; None if it is always the agent's own."""
    config = parts.config
    if config.first_target_entropy is None:
        return None
    own = config.agent.target_entropy
    last = -float(parts.spec.action_dim) if own is None else own
    how = config.first_target_entropy, last, config.entropy_decay_power
    return schedules.power(step, config.entropy_decay_steps, *how)
