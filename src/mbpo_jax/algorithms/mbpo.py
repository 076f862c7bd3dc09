"""Model-based policy optimisation.

References: Janner et al. 2019, "When to Trust Your Model", Algorithm 2 and Appendix C; official code jannerm/mbpo.
Deviations from the official code, with their reasons: docs/deviations.md.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
from flax import struct

from mbpo_jax import agents, backends, replay, schedules
from mbpo_jax.agents.sac import SacConfig
from mbpo_jax.algorithms import epochs, phases
from mbpo_jax.algorithms.reactive import reactive
from mbpo_jax.models import gaussian
from mbpo_jax.models.state import GaussianConfig
from mbpo_jax.options import check, chosen_section, option
from mbpo_jax.replay import Replay
from mbpo_jax.rollouts import branched, value_expansion
from mbpo_jax.types import Agent, Algorithm, Array, Dynamics, Key, Learning, Phase, PyTree, Spec, WorldModel


@dataclasses.dataclass(frozen=True)
class MbpoConfig:
    """Knobs of MBPO. The defaults are for tasks without tuned settings; the paper's are in experiments/paper.flags."""

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
        "Schedule of the rollout length: first epoch, last epoch, first length, last length.",
        minimum=0,
    )
    rollout_block_rows: int = option(0, "Imagined rows computed together; 0: chosen for the kind of device.", minimum=0)
    retain_epochs: int = option(4, "Epochs for which imagined rows are kept.", minimum=1)
    updates_per_step: int = option(10, "Agent updates per environment step.", minimum=1)
    batch_size: int = option(256, "Rows of an agent update.", minimum=1)
    real_fraction: float = option(
        0.05, "Share of real rows in an agent update; 1 is the paper's 'no model'.", minimum=0.0, maximum=1.0
    )
    expansion_steps: int = option(
        0, "Imagined steps in the critics' targets (value expansion on top of MBPO); 0: none.", minimum=0
    )
    termination_fn: str = option("auto", phases.TERMINATION_HELP)
    model: GaussianConfig = GaussianConfig()
    agent: agents.AgentConfig = chosen_section(SacConfig(), "Agent that acts and learns.", agents.CONFIG_CLASSES)

    def __post_init__(self) -> None:
        check(self)
        schedule = self.rollout_length_schedule
        if len(schedule) != 4 or schedule[0] > schedule[1] or not 1 <= schedule[2] <= schedule[3]:
            raise ValueError(
                "rollout_length_schedule must be first_epoch,last_epoch,start,end with first_epoch <= last_epoch and "
                f"1 <= start <= end, got {schedule!r}"
            )
        if self.expansion_steps and not uses_model(self):
            raise ValueError(
                f"expansion_steps must be 0 with real_fraction={self.real_fraction:g}, which learns no model, got "
                f"{self.expansion_steps}; --algorithm=mve expands targets without imagined batches"
            )


TINY = {
    "exploration_steps": 40, "min_replay_rows": 40, "replay_capacity": 400, "epoch_steps": 20, "fit_every_steps": 10,
    "rollout_batch": 30, "updates_per_step": 2, "batch_size": 16, "real_fraction": 0.25,
    "model.num_members": 3, "model.num_elites": 2, "model.model_hidden_units": 8,
    "model.model_weight_decays": (5e-5, 1e-4), "model.fit_epoch_minibatches": 1,
    "agent.hidden_units": 8, "agent.num_hidden_layers": 1,
}  # fmt: skip
"""Changes to the defaults, by full path, with which tests run every phase within seconds."""


class MbpoState(struct.PyTreeNode, kw_only=True):
    """Everything the phases read, apart from the real rows."""

    model: PyTree  # an EnsembleState, or a ModelWithEnds around one
    agent: PyTree
    imagined: Replay
    rollout: branched.Rollout  # of the round under way, or of the last one at its end


def uses_model(config: MbpoConfig) -> bool:
    """Returns whether any row of a batch is imagined; if not, no model is learnt."""
    return num_real_rows(config) < config.batch_size


def num_real_rows(config: MbpoConfig) -> int:
    """Returns the number of real rows in a batch, rounded down: 12 of 256 at a share of 0.05."""
    return int(config.batch_size * config.real_fraction)


def build(config: MbpoConfig, spec: Spec) -> Algorithm:
    """Builds MBPO with the config's agent.

    Raises:
      ValueError: a model is used, the spec has no termination function, and none is to be learnt.
    """
    agent, num_real = agents.build(config.agent, spec), num_real_rows(config)
    if uses_model(config):
        world = phases.with_ends(gaussian.build(config.model, spec), spec, config.termination_fn)
    else:
        world = gaussian.build(config.model, spec)
    fit_and_roll_out = _model_phases(config, spec, agent, world) if uses_model(config) else ()
    batches = phases.mixed_batches(config.updates_per_step, num_real, config.batch_size - num_real)
    first_update = max(config.exploration_steps, config.min_replay_rows)
    update = Phase(
        "update_agent", 1, first_update, phases.update_agent(agent, batches, _learning(config, spec, agent, world))
    )
    return Algorithm(
        init=functools.partial(init, config, spec, agent, world),
        phases=(*fit_and_roll_out, update),
        exploration_steps=config.exploration_steps,
        replay_capacity=config.replay_capacity,
        dynamics=_dynamics(spec, world) if uses_model(config) else None,
        **reactive(agent),
    )


def init(config: MbpoConfig, spec: Spec, agent: Agent, world: WorldModel, key: Key) -> MbpoState:
    """Returns the state before the first step: untrained networks, and no imagined rows."""
    key_model, key_agent = jax.random.split(key)
    longest = config.rollout_length_schedule[-1]
    imagined_capacity = int(epochs.imagined_rows_limit(config, longest)) if uses_model(config) else 1
    return MbpoState(
        model=world.init(key_model),
        agent=agent.init(key_agent),
        imagined=replay.init(spec, imagined_capacity),
        rollout=branched.empty(config.rollout_batch if uses_model(config) else 1, spec.obs_dim),
    )


def rollout_length(config: MbpoConfig, real: Replay) -> Array:
    """Returns the scheduled rollout length [] of the current epoch."""
    return schedules.linear_int(epochs.number(config, real), config.rollout_length_schedule)  # type: ignore[arg-type]


def _model_phases(config: MbpoConfig, spec: Spec, agent: Agent, world: WorldModel) -> tuple[Phase, Phase]:
    """Returns the phases that fit the model, and that fill the imagined buffer with rows of the current policy."""
    roll_out = phases.roll_out(
        num_starts=config.rollout_batch,
        length=functools.partial(rollout_length, config),
        limit=functools.partial(epochs.imagined_rows_limit, config),
        policy=lambda state: phases.exploring(agent, state.agent),
        dynamics=_dynamics(spec, world),
        rule=lambda state: phases.rule_of(world, world.belief(state.model), spec),
        max_block_rows=config.rollout_block_rows or backends.choices().block_rows,
    )
    every, first = config.fit_every_steps, config.exploration_steps
    return Phase("fit_model", every, first, phases.fit_model(world)), Phase("roll_out", every, first, roll_out)


def _dynamics(spec: Spec, world: WorldModel) -> Callable[[MbpoState], Dynamics]:
    return lambda state: phases.learned_dynamics(world, world.belief(state.model), spec)


def _learning(config: MbpoConfig, spec: Spec, agent: Agent, world: WorldModel) -> Callable[[MbpoState], Learning]:
    """Returns what the agent learns from: its own targets, or expanded ones."""
    if not config.expansion_steps:
        return phases.own_targets
    dynamics, how = _dynamics(spec, world), (config.expansion_steps, config.agent.discount, True)
    return lambda state: Learning(regression=functools.partial(value_expansion.expand, dynamics(state), agent, *how))
