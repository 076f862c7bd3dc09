"""Model-based offline policy optimisation: MBPO on a data set, with rewards penalised by the model's uncertainty.

References: Yu et al. 2020, "MOPO: Model-based Offline Policy Optimization", Algorithm 2; official code
tianheyu927/mopo. With penalty=none it is MBPO on a data set.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import struct

from mbpo_jax import agents, backends, replay
from mbpo_jax.agents import scaled
from mbpo_jax.agents.sac import SacConfig
from mbpo_jax.algorithms import phases, reporting
from mbpo_jax.algorithms.reactive import reactive
from mbpo_jax.models import gaussian
from mbpo_jax.models.state import GaussianConfig
from mbpo_jax.options import check, chosen_section, option
from mbpo_jax.replay import Replay
from mbpo_jax.rollouts import branched
from mbpo_jax.rollouts.penalties import NO_PENALTY, PENALTIES, penalise
from mbpo_jax.types import Agent, Algorithm, Array, Dynamics, Key, Phase, PyTree, Spec, TerminationFn, WorldModel


@dataclasses.dataclass(frozen=True)
class MopoConfig:
    """Knobs of MOPO; the defaults are the official code's, except for the agent's target entropy (there -3)."""

    penalty: str = option(
        "largest_std_norm", "What is subtracted from imagined rewards.", choices=(*PENALTIES, NO_PENALTY)
    )
    penalty_weight: float = option(1.0, "Factor of the penalty, the paper's lambda.", minimum=0.0)
    rollout_length: int = option(5, "Steps of an imagined rollout, the paper's h.", minimum=1, maximum=10_000)
    rollout_batch: int = option(50_000, "Start states of a round of rollouts, drawn from the data.", minimum=1)
    rollout_every_updates: int = option(1000, "Agent updates between rounds of rollouts.", minimum=1)
    rollout_block_rows: int = option(0, "Imagined rows computed together; 0: chosen for the kind of device.", minimum=0)
    retain_rounds: int = option(5, "Newest rounds of rollouts that are kept.", minimum=1, maximum=1000)
    updates_per_call: int = option(50, "Agent updates in one compiled call.", minimum=1)
    batch_size: int = option(256, "Rows of an agent update.", minimum=2)
    real_fraction: float = option(
        0.05, "Share of an agent update's rows that come from the data.", minimum=0.0, maximum=1.0
    )
    obs_scaling: str = option(
        scaled.NONE, "How the agent's observations are scaled, by statistics of the data.", choices=scaled.SCALINGS
    )
    termination_fn: str = option("auto", phases.TERMINATION_HELP)
    model: GaussianConfig = GaussianConfig(max_holdout_rows=1000, fit_epoch_minibatches=1, fit_max_gradient_steps=0)
    agent: agents.AgentConfig = chosen_section(SacConfig(), "Agent that acts and learns.", agents.CONFIG_CLASSES)

    def __post_init__(self) -> None:
        check(self)
        if num_real_rows(self) == self.batch_size:
            raise ValueError(f"real_fraction must leave room for imagined rows in a batch, got {self.real_fraction}")
        if self.rollout_every_updates % self.updates_per_call:
            raise ValueError(
                f"rollout_every_updates must be a multiple of updates_per_call, which is {self.updates_per_call}, got "
                f"{self.rollout_every_updates}"
            )


TINY = {
    "rollout_length": 2, "rollout_batch": 30, "rollout_every_updates": 10, "retain_rounds": 2, "updates_per_call": 5,
    "batch_size": 16, "real_fraction": 0.25, "model.num_members": 3, "model.num_elites": 2,
    "model.model_hidden_units": 8, "model.model_weight_decays": (5e-5, 1e-4), "model.max_holdout_rows": 20,
    "agent.hidden_units": 8, "agent.num_hidden_layers": 1,
}  # fmt: skip
"""Changes to the defaults, by full path, with which tests run every phase within seconds."""


class MopoState(struct.PyTreeNode, kw_only=True):
    """Everything the phases read, apart from the data set."""

    model: PyTree
    agent: PyTree
    imagined: Replay
    rollout: branched.Rollout  # of the round under way, or of the last one at its end
    round_rows: Array  # [retain_rounds], int32, rows of the rounds before that one, newest first


def num_real_rows(config: MopoConfig) -> int:
    """Returns the number of data rows in a batch, rounded down."""
    return int(config.batch_size * config.real_fraction)


def build(config: MopoConfig, spec: Spec) -> Algorithm:
    """Builds MOPO with the config's agent.

    Raises:
      ValueError: the spec has no termination function, and none is to be learnt.
    """
    world = phases.with_ends(gaussian.build(config.model, spec), spec, config.termination_fn)
    agent, measure = phases.scaled_agent(agents.build(config.agent, spec), spec, config.obs_scaling)
    num_real = num_real_rows(config)

    def rule(state: MopoState) -> TerminationFn:
        return phases.rule_of(world, world.belief(state.model), spec)

    def dynamics(state: MopoState) -> Dynamics:
        return phases.learned_dynamics(world, world.belief(state.model), spec)

    def penalised(state: MopoState) -> Dynamics:
        return penalise(dynamics(state), world, world.belief(state.model), config.penalty, config.penalty_weight)

    room = config.retain_rounds * config.rollout_batch * config.rollout_length
    roll_out = phases.roll_out(
        num_starts=config.rollout_batch,
        length=lambda real: jnp.asarray(config.rollout_length),
        limit=lambda length: room,
        policy=lambda state: phases.exploring(agent, state.agent),
        dynamics=penalised,
        rule=rule,
        max_block_rows=config.rollout_block_rows or backends.choices().block_rows,
    )
    roll_out = reporting.with_penalty(roll_out, config.penalty, world, agent)
    batches = phases.mixed_batches(config.updates_per_call, num_real, config.batch_size - num_real)
    return Algorithm(
        init=functools.partial(init, config, spec, agent, world, room),
        phases=(
            *measure,
            Phase("fit_model", phases.ONCE, 1, phases.fit_model(world)),
            Phase("roll_out", config.rollout_every_updates, 1, phases.keep_newest(config.retain_rounds, roll_out)),
            phases.update_every(config.updates_per_call, phases.update_agent(agent, batches)),
        ),
        dynamics=dynamics,
        **reactive(agent),
    )


def init(config: MopoConfig, spec: Spec, agent: Agent, world: WorldModel, room: int, key: Key) -> MopoState:
    """Returns the state before the first step: untrained networks, and no imagined rows."""
    key_model, key_agent = jax.random.split(key)
    return MopoState(
        model=world.init(key_model),
        agent=agent.init(key_agent),
        imagined=replay.init(spec, room),
        rollout=branched.empty(config.rollout_batch, spec.obs_dim),
        round_rows=jnp.zeros(config.retain_rounds, jnp.int32),
    )
