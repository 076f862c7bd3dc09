"""Model-based policy optimisation.

References: Janner et al. 2019, "When to Trust Your Model", Algorithm 2 and Appendix C; official code jannerm/mbpo.
Deviations from the official code, with their reasons: docs/deviations.md.
"""

import dataclasses
from typing import TypeAlias

import jax
import jax.numpy as jnp
from flax import struct

from mbpo_jax import agents, backends, health, replay, schedules
from mbpo_jax.agents.ddpg import DdpgConfig
from mbpo_jax.agents.sac import SacConfig
from mbpo_jax.agents.td3 import Td3Config
from mbpo_jax.algorithms.reactive import reactive
from mbpo_jax.health import Health
from mbpo_jax.models import gaussian
from mbpo_jax.options import check, option
from mbpo_jax.replay import Replay
from mbpo_jax.rollouts import branched
from mbpo_jax.types import (
    FINISHED,
    Agent,
    Algorithm,
    Array,
    Key,
    Metrics,
    Phase,
    ProgramFn,
    Programs,
    PyTree,
    Spec,
    Transition,
    WorldModel,
)


@dataclasses.dataclass(frozen=True)
class _Knobs:
    """Knobs of MBPO with any agent. The defaults are the paper's for the MuJoCo tasks."""

    exploration_steps: int = option(5000, "Environment steps of uniformly random actions before learning.", minimum=1)
    min_replay_rows: int = option(1000, "Real rows that the agent's updates wait for.", minimum=1)
    replay_capacity: int = option(1_000_000, "Maximum number of real rows kept; the oldest give way.", minimum=1)
    epoch_steps: int = option(1000, "Environment steps of an epoch, the unit of schedules.", minimum=1)
    fit_every_steps: int = option(250, "Environment steps between model fits, and between rollouts.", minimum=1)
    rollout_batch: int = option(100_000, "Start states, drawn from the real rows, of a round of rollouts.", minimum=1)
    rollout_length_schedule: tuple[int, ...] = option(
        (20, 150, 1, 1),
        "Rollout length: first epoch, last epoch, length at first, length at last.",
        minimum=0,
    )
    rollout_block_rows: int = option(
        0, "Imagined rows worked on together; 0: chosen for the kind of device.", minimum=0
    )
    retain_epochs: int = option(1, "Epochs for which imagined rows are kept.", minimum=1)
    updates_per_step: int = option(20, "Agent updates per environment step.", minimum=1)
    batch_size: int = option(256, "Rows of an agent update.", minimum=1)
    real_fraction: float = option(
        0.05, "Share of real rows in an agent update; 1 is the paper's 'no model'.", minimum=0.0, maximum=1.0
    )
    termination_fn: str = option(
        "auto",
        "When imagined episodes end: package.module:function of (obs, action, next_obs) [B, ...] -> bool [B]; 'never'; "
        "or 'auto' for the environments that are known.",
    )
    model: gaussian.GaussianConfig = gaussian.GaussianConfig()

    def __post_init__(self) -> None:
        check(self)
        schedule = self.rollout_length_schedule
        if len(schedule) != 4 or schedule[0] > schedule[1] or not 1 <= schedule[2] <= schedule[3]:
            raise ValueError(
                "rollout_length_schedule must be first_epoch,last_epoch,start,end with first_epoch <= last_epoch and "
                f"1 <= start <= end, got {schedule!r}"
            )


@dataclasses.dataclass(frozen=True)
class MbpoConfig(_Knobs):
    """Knobs of MBPO as published: its agent is SAC."""

    agent: SacConfig = SacConfig()


@dataclasses.dataclass(frozen=True)
class MbpoDdpgConfig(_Knobs):
    """Knobs of MBPO with DDPG as its agent."""

    agent: DdpgConfig = DdpgConfig()


@dataclasses.dataclass(frozen=True)
class MbpoTd3Config(_Knobs):
    """Knobs of MBPO with TD3 as its agent."""

    agent: Td3Config = Td3Config()


Config: TypeAlias = MbpoConfig | MbpoDdpgConfig | MbpoTd3Config


class Starts(struct.PyTreeNode, kw_only=True):
    """What a round of rollouts tells of the real rows that it starts from."""

    reward_min: Array  # []
    reward_max: Array  # []
    disagreement: Array  # [], share of them where the termination function and the environment disagree


class MbpoState(struct.PyTreeNode, kw_only=True):
    """Everything that the phases read, the real rows aside."""

    model: gaussian.GaussianState
    agent: PyTree
    imagined: Replay
    rollout: branched.Rollout  # the round of rollouts that is under way, or how the last one ended
    starts: Starts  # of that round


def uses_model(config: Config) -> bool:
    """Whether any row of a batch is imagined; if not, no model is learnt."""
    return num_real_rows(config) < config.batch_size


def num_real_rows(config: Config) -> int:
    """Real rows in a batch, rounded down: 12 of 256 at a share of 0.05."""
    return int(config.batch_size * config.real_fraction)


def imagined_rows_limit(config: Config, length: Array | int) -> Array | int:
    """Rows of `retain_epochs` epochs of rollouts of this length: what the model buffer may hold at the moment."""
    rows_per_step = config.rollout_batch * config.epoch_steps * config.retain_epochs // config.fit_every_steps
    return length * max(rows_per_step, config.rollout_batch)


def draw_batches(
    key: Key, real: Replay, imagined: Replay, num_batches: int, num_real: int, num_imagined: int
) -> Transition:
    """Batches [num_batches, num_real + num_imagined, ...]: exactly so many rows of each kind in every batch."""
    key_real, key_imagined = jax.random.split(key)
    parts = []
    if num_real:
        parts.append(replay.sample(key_real, real, (num_batches, num_real)))
    if num_imagined:
        parts.append(replay.sample(key_imagined, imagined, (num_batches, num_imagined)))
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=1), *parts)


def build(config: Config, spec: Spec) -> Algorithm:
    """MBPO as an algorithm, with the agent of the config.

    Raises:
      ValueError: a model is used and the spec has no termination function.
    """
    if uses_model(config) and spec.termination_fn is None:
        raise ValueError(
            "termination_fn is not known for this environment: pass --termination_fn=package.module:function, a "
            "function of (obs, action, next_obs), each [B, ...], to bool [B], or --termination_fn=never if episodes "
            "only end by time limit"
        )
    model, agent = gaussian.build(config.model, spec), agents.build(config.agent, spec)
    longest = config.rollout_length_schedule[-1]
    imagined_capacity = int(imagined_rows_limit(config, longest)) if uses_model(config) else 1

    def init(key: Key) -> MbpoState:
        key_model, key_agent = jax.random.split(key)
        return MbpoState(
            model=model.init(key_model),
            agent=agent.init(key_agent),
            imagined=replay.init(spec, imagined_capacity),
            rollout=branched.idle(config.rollout_batch if uses_model(config) else 1, spec.obs_dim),
            starts=Starts(reward_min=jnp.zeros(()), reward_max=jnp.zeros(()), disagreement=jnp.zeros(())),
        )

    def of_model(fit: ProgramFn) -> ProgramFn:
        def fit_model(key: Key, state: MbpoState, real: Replay) -> tuple[MbpoState, Metrics]:
            fitted, metrics = fit(key, state.model, real)
            return state.replace(model=fitted), metrics

        return fit_model

    first = config.exploration_steps
    phases: tuple[Phase, ...] = (
        Phase("update_agent", 1, max(first, config.min_replay_rows), Programs((_update_agent(config, agent),))),
    )
    if uses_model(config):
        fit_model = Programs(tuple(map(of_model, model.fit.functions)), lambda state: model.fit.due(state.model))
        phases = (
            Phase("fit_model", config.fit_every_steps, first, fit_model),
            Phase("roll_out", config.fit_every_steps, first, _roll_out(config, spec, model, agent)),
            *phases,
        )
    return Algorithm(
        init=init,
        **reactive(agent),
        phases=phases,
        exploration_steps=first,
        replay_capacity=config.replay_capacity,
    )


def _roll_out(config: Config, spec: Spec, model: WorldModel, agent: Agent) -> Programs:
    """The phase that fills the model buffer with the current policy's imagined experience: it begins, then advances."""
    termination_fn = spec.termination_fn
    assert termination_fn is not None  # build() has checked it
    block_rows = config.rollout_block_rows or backends.choices().block_rows

    def begin(key: Key, state: MbpoState, real: Replay) -> tuple[MbpoState, Metrics]:
        key_start, _ = jax.random.split(key)
        epoch = (real.num_added - config.exploration_steps) // config.epoch_steps
        length = schedules.linear_int(epoch, config.rollout_length_schedule)  # type: ignore[arg-type]
        rows = replay.sample(key_start, real, (config.rollout_batch,))
        disagree = termination_fn(rows.obs, rows.action, rows.next_obs) != (rows.terminal > 0.5)
        starts = Starts(
            reward_min=jnp.min(rows.reward),
            reward_max=jnp.max(rows.reward),
            disagreement=jnp.mean(disagree.astype(jnp.float32)),
        )
        rollout, seen = branched.begin(rows.obs, length, jnp.asarray(imagined_rows_limit(config, length)))
        state = state.replace(rollout=rollout, starts=starts)
        return state, metrics(state, seen)

    def advance(key: Key, state: MbpoState, real: Replay) -> tuple[MbpoState, Metrics]:
        _, key_roll = jax.random.split(key)
        actor = agent.actor(state.agent)

        def policy_fn(key: Key, obs: Array) -> Array:
            return agent.act(key, actor, obs, True)

        dynamics = branched.dynamics_of(model, state.model, termination_fn, config.model.num_elites)
        imagined, rollout, seen = branched.advance(
            key_roll, policy_fn, dynamics, state.imagined, state.rollout, block_rows
        )
        state = state.replace(imagined=imagined, rollout=rollout)
        return state, metrics(state, seen)

    def metrics(state: MbpoState, seen: Health) -> Metrics:
        return branched.metrics(state.rollout, state.imagined, seen) | {
            "length": state.rollout.length,
            "buffer_rows_limit": state.rollout.limit,
            "real_reward_min": state.starts.reward_min,
            "real_reward_max": state.starts.reward_max,
            "termination_disagreement_fraction": state.starts.disagreement,
        }

    def due(state: MbpoState) -> Array:
        return jnp.where(branched.under_way(state.rollout), 1, FINISHED)

    return Programs((begin, advance), due)


def _update_agent(config: Config, agent: Agent):  # type: ignore[no-untyped-def]
    """The phase of G agent updates on batches of real and imagined rows."""
    num_real = num_real_rows(config)
    num_imagined = config.batch_size - num_real

    def update_agent(key: Key, state: MbpoState, real: Replay) -> tuple[MbpoState, Metrics]:
        key_batches, key_update = jax.random.split(key)
        batches = draw_batches(key_batches, real, state.imagined, config.updates_per_step, num_real, num_imagined)
        agent_state, metrics = agent.update(key_update, state.agent, batches)
        metrics["real_row_fraction"] = jnp.asarray(num_real / config.batch_size)
        return state.replace(agent=agent_state), health.precede(metrics, _health_of_rows(batches, num_real))

    return update_agent


def _health_of_rows(batches: Transition, num_real: int) -> Health:
    """Of batches [G, B, ...] whose first `num_real` rows are real ones."""
    real = health.magnitude(jax.tree.map(lambda leaf: leaf[:, :num_real], batches), keep=1)
    imagined = health.magnitude(jax.tree.map(lambda leaf: leaf[:, num_real:], batches), keep=1)
    return health.first_trouble(("a real row", "an imagined row"), jnp.stack([real, imagined], -1))
