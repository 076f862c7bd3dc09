"""Bidirectional model-based policy optimisation: MBPO whose rollouts also go backwards, from states of high value.

References: Lai et al. 2020, "Bidirectional Model-based Policy Optimization", Algorithm 1; official code hanglai/bmpo.
What agrees and what differs: docs/bidirectional.md.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from mbpo_jax import agents, backends, replay, schedules
from mbpo_jax.agents.sac import SacConfig
from mbpo_jax.algorithms import epochs, phases, planned
from mbpo_jax.algorithms.reactive import reactive
from mbpo_jax.models import adversarial_policy, backward_policy, encoding, gaussian, world
from mbpo_jax.models.backward_policy import BackwardPolicy
from mbpo_jax.models.state import EnsembleState, GaussianConfig
from mbpo_jax.networks import InverseActor
from mbpo_jax.options import check, chosen_section, option
from mbpo_jax.replay import Replay
from mbpo_jax.rollouts import backward, bidirectional, valued_starts
from mbpo_jax.rollouts.bidirectional import Direction
from mbpo_jax.types import (
    FINISHED,
    Agent,
    Algorithm,
    Dynamics,
    Key,
    Phase,
    Programs,
    PyTree,
    Report,
    Spec,
    WorldModel,
)

BACKWARD_POLICIES = {"likelihood": backward_policy, "adversarial": adversarial_policy}


@dataclasses.dataclass(frozen=True)
class BmpoConfig:
    """Knobs of BMPO. The defaults are for tasks without tuned settings; the paper's are in experiments/."""

    exploration_steps: int = option(500, "Environment steps of uniformly random actions before learning.", minimum=1)
    min_replay_rows: int = option(500, "Real rows needed before the agent's first update.", minimum=1)
    replay_capacity: int = option(
        1_000_000, "Maximum number of real rows kept; new rows replace the oldest.", minimum=1
    )
    epoch_steps: int = option(250, "Environment steps of an epoch, the unit of schedules.", minimum=1)
    fit_every_steps: int = option(250, "Environment steps between model fits, and between rollouts.", minimum=1)
    rollout_batch: int = option(10_000, "Start states of a round of rollouts, drawn from the real rows.", minimum=1)
    rollout_length_schedule: tuple[int, ...] = option(
        (20, 150, 1, 1),
        "Schedule of forward steps from each start: first epoch, last epoch, first steps, last steps.",
        minimum=0,
    )
    backward_length_schedule: tuple[int, ...] = option(
        (20, 150, 1, 1), "Schedule of backward steps from each start, in the same form; they may be 0.", minimum=0
    )
    beta_schedule: tuple[float, ...] = option(
        (0.0, 1.0, 0.01, 0.01),
        "Schedule, in the same form, of beta; starts are drawn with p ~ exp(beta * value), 0: uniformly.",
        minimum=0.0,
    )
    backward_epochs: int = option(
        10, "Newest epochs, from whose rows the backward policy learns.", minimum=1, maximum=1_000_000
    )
    backward_policy: str = option(
        "likelihood",
        "How the backward policy learns.",
        choices=tuple(BACKWARD_POLICIES),
    )
    backward_variance: float | None = option(
        0.01, "Variance of the backward policy's actions in rollouts; auto: the learnt one.", minimum=0.0
    )
    retain_epochs: int = option(1, "Epochs for which imagined rows are kept.", minimum=1)
    updates_per_step: int = option(10, "Agent updates per environment step.", minimum=1)
    batch_size: int = option(256, "Rows of an agent update.", minimum=2)
    real_fraction: float = option(0.05, "Share of real rows in an agent update.", minimum=0.0, maximum=1.0)
    planning_steps: int = option(
        0, "Imagined steps used to choose actions in training; 0: the agent acts alone.", minimum=0
    )
    planning_candidates: int = option(
        1000, "Actions drawn from the agent, of which planning takes the best.", minimum=1
    )
    termination_fn: str = option("auto", phases.RULE_HELP)
    model: GaussianConfig = GaussianConfig()
    agent: agents.AgentConfig = chosen_section(SacConfig(), "Agent that acts and learns.", agents.CONFIG_CLASSES)

    def __post_init__(self) -> None:
        check(self)
        _check_schedule("rollout_length_schedule", self.rollout_length_schedule, least=1)
        _check_schedule("backward_length_schedule", self.backward_length_schedule, least=0)
        _check_schedule("beta_schedule", self.beta_schedule)
        if num_real_rows(self) == self.batch_size:
            raise ValueError(f"real_fraction must leave room for imagined rows in a batch, got {self.real_fraction}")


TINY = {
    "exploration_steps": 40, "min_replay_rows": 40, "replay_capacity": 400, "epoch_steps": 20, "fit_every_steps": 10,
    "rollout_batch": 30, "updates_per_step": 2, "batch_size": 16, "real_fraction": 0.25,
    "planning_steps": 2, "planning_candidates": 6,
    "model.num_members": 3, "model.num_elites": 2, "model.model_hidden_units": 8,
    "model.model_weight_decays": (5e-5, 1e-4), "model.fit_epoch_minibatches": 1,
    "agent.hidden_units": 8, "agent.num_hidden_layers": 1,
}  # fmt: skip
"""Changes to the defaults, by full path, with which tests run every phase within seconds."""


class BmpoState(struct.PyTreeNode, kw_only=True):
    """Everything the phases read, apart from the real rows."""

    model: EnsembleState
    backward_model: EnsembleState
    backward_policy: PyTree  # a Learner, or the Players of the adversarial game
    agent: PyTree
    imagined: Replay  # of both directions
    rollouts: bidirectional.Rollouts


class Parts(NamedTuple):
    """The static parts of the algorithm, passed to the functions below: knobs and pure functions."""

    config: BmpoConfig
    spec: Spec
    world: WorldModel
    backward_world: WorldModel
    backward_policy: BackwardPolicy
    agent: Agent


def _check_schedule(name: str, schedule: tuple[float, ...], least: int | None = None) -> None:
    """Checks a schedule; `least` is the minimum of lengths, which may only grow."""
    form, sound = "first_epoch <= last_epoch", len(schedule) == 4 and schedule[0] <= schedule[1]
    if least is not None:
        form, sound = f"{form} and {least} <= start <= end", sound and least <= schedule[2] <= schedule[3]
    if not sound:
        raise ValueError(f"{name} must be first_epoch,last_epoch,start,end with {form}, got {schedule!r}")


def num_real_rows(config: BmpoConfig) -> int:
    """Returns the number of real rows in a batch, rounded down."""
    return int(config.batch_size * config.real_fraction)


def build(config: BmpoConfig, spec: Spec) -> Algorithm:
    """Builds BMPO with the config's agent.

    Raises:
      ValueError: the task has no termination function, or planning looks further ahead than an episode is long.
    """
    phases.check_rule(spec, config.termination_fn)
    if spec.max_episode_steps is not None and config.planning_steps > spec.max_episode_steps:
        raise ValueError(
            f"planning_steps must be at most the steps of an episode ({spec.max_episode_steps}), got "
            f"{config.planning_steps}"
        )
    parts = parts_of(config, spec)
    agent, num_candidates = parts.agent, config.planning_candidates
    plan = planned.Plan(parts.world, spec, agent, num_candidates, config.planning_steps, config.agent.discount)
    num_real, every, first = num_real_rows(config), config.fit_every_steps, config.exploration_steps
    first_update = max(first, config.min_replay_rows)
    batches = phases.mixed_batches(config.updates_per_step, num_real, config.batch_size - num_real)
    roll_out = Programs(
        (functools.partial(start_round, parts), functools.partial(step_round, parts)),
        lambda state: jnp.where(bidirectional.is_running(state.rollouts), 1, FINISHED),
    )
    learning = BACKWARD_POLICIES[config.backward_policy]
    learn_backward = Programs((functools.partial(learning.update, parts.backward_policy),))
    update_backward = phases.over_field("backward_policy", learn_backward)
    return Algorithm(
        init=functools.partial(init, parts),
        phases=(
            Phase("fit_model", every, first, phases.fit_model(parts.world)),
            Phase("fit_backward_model", every, first, phases.fit_model(parts.backward_world, "backward_model")),
            Phase("roll_out", every, first, roll_out),
            Phase("update_agent", 1, first_update, phases.update_agent(agent, batches)),
            Phase("update_backward_policy", 1, first_update, update_backward),
        ),
        exploration_steps=first,
        replay_capacity=config.replay_capacity,
        dynamics=functools.partial(dynamics, parts),
        backward_dynamics=functools.partial(backward_dynamics, parts),
        **(reactive(agent) | (planned.planned(plan) if config.planning_steps else {})),
    )


def parts_of(config: BmpoConfig, spec: Spec) -> Parts:
    """Builds the parts from the config and the task."""
    agent, reverse = agents.build(config.agent, spec), encoding.backward(spec)
    return Parts(
        config=config,
        spec=spec,
        world=gaussian.build(config.model, spec),
        backward_world=world.build(config.model, gaussian.member(config.model, reverse), reverse),
        backward_policy=BackwardPolicy(
            spec=spec,
            network=InverseActor(spec.action_dim, config.agent.hidden_units, config.agent.num_hidden_layers),
            optimizer=optax.adam(config.agent.learning_rate),
            batch_size=config.batch_size,
            num_rows=config.backward_epochs * config.epoch_steps,
            variance=config.backward_variance,
        ),
        agent=agent,
    )


def init(parts: Parts, key: Key) -> BmpoState:
    """Returns the state before the first step: untrained networks, and no imagined rows."""
    config, spec = parts.config, parts.spec
    key_model, key_backward_model, key_backward_policy, key_agent = jax.random.split(key, 4)
    longest = config.rollout_length_schedule[-1] + config.backward_length_schedule[-1]
    return BmpoState(
        model=parts.world.init(key_model),
        backward_model=parts.backward_world.init(key_backward_model),
        backward_policy=BACKWARD_POLICIES[config.backward_policy].init(parts.backward_policy, key_backward_policy),
        agent=parts.agent.init(key_agent),
        imagined=replay.init(spec, int(epochs.imagined_rows_limit(config, longest))),
        rollouts=bidirectional.empty(config.rollout_batch, spec.obs_dim),
    )


def dynamics(parts: Parts, state: BmpoState) -> Dynamics:
    """Returns the forward model."""
    return phases.learned_dynamics(parts.world, parts.world.belief(state.model), parts.spec)


def backward_dynamics(parts: Parts, state: BmpoState) -> Dynamics:
    """Returns the backward model."""
    belief = parts.backward_world.belief(state.backward_model)
    return backward.dynamics(parts.backward_world, belief, phases.known_rule(parts.spec))


# -- rollouts --------------------------------------------------------------------------------------------------------


def start_round(parts: Parts, key: Key, state: BmpoState, real: Replay) -> tuple[BmpoState, Report]:
    """Starts a round: draws the states from which both directions start."""
    config = parts.config
    key_rows, key_value, key_start = jax.random.split(jax.random.fold_in(key, 0), 3)
    epoch = epochs.number(config, real)
    num_back = schedules.linear_int(epoch, config.backward_length_schedule)  # type: ignore[arg-type]
    num_ahead = schedules.linear_int(epoch, config.rollout_length_schedule)  # type: ignore[arg-type]
    beta = schedules.linear(epoch, config.beta_schedule)  # type: ignore[arg-type]
    rows = replay.sample(key_rows, real, (config.rollout_batch,))
    value = valued_starts.values(parts.agent, key_value, state.agent, rows.obs, backends.choices().block_rows)
    chosen = valued_starts.draw(key_start, value, beta, config.rollout_batch)
    limit = jnp.asarray(epochs.imagined_rows_limit(config, num_back + num_ahead))
    rollouts, watched = bidirectional.start(rows.obs[chosen], num_back, num_ahead, limit)
    metrics = {
        "length": num_ahead,
        "backward_length": num_back,
        "buffer_rows_limit": limit,
        "beta": beta,
        "real_value_mean": jnp.mean(value),
        "start_value_mean": jnp.mean(value[chosen]),
    }
    metrics |= phases.start_metrics(phases.known_rule(parts.spec), rows)
    return state.replace(rollouts=rollouts), Report(metrics, (watched,))


def step_round(parts: Parts, key: Key, state: BmpoState, real: Replay) -> tuple[BmpoState, Report]:
    """Moves all rows by one step in each direction that has steps left."""
    del real
    before = functools.partial(backward_policy.draw, parts.backward_policy, state.backward_policy.params)
    imagined, rollouts, report = bidirectional.step(
        jax.random.fold_in(key, 1),
        Direction(before, backward_dynamics(parts, state)),
        Direction(phases.exploring(parts.agent, state.agent), dynamics(parts, state)),
        state.imagined,
        state.rollouts,
        backends.choices().block_rows,
    )
    return state.replace(imagined=imagined, rollouts=rollouts), report
