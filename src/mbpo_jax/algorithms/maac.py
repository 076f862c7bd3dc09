"""Model-augmented actor-critic: the actor maximises an imagined value, and critics learn from imagined rows.

Reference: Clavera, Fu and Abbeel 2020, "Model-Augmented Actor-Critic: Backpropagating through Paths", Algorithm 1. No
code for it is public: what the paper leaves open (sizes, shares, lengths) is as in MBPO (`mbpo.py`).
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import struct

from mbpo_jax import agents, backends, replay
from mbpo_jax.agents.sac import SacConfig
from mbpo_jax.algorithms import phases
from mbpo_jax.algorithms.reactive import reactive
from mbpo_jax.models import gaussian
from mbpo_jax.models.state import GaussianConfig
from mbpo_jax.options import check, chosen_section, option
from mbpo_jax.replay import Replay
from mbpo_jax.rollouts import branched, pathwise
from mbpo_jax.types import Agent, Algorithm, Dynamics, Key, Learning, Phase, PyTree, Spec, WorldModel


@dataclasses.dataclass(frozen=True)
class MaacConfig:
    """Knobs of MAAC. The defaults are for tasks without tuned settings."""

    exploration_steps: int = option(500, "Environment steps of uniformly random actions before learning.", minimum=1)
    replay_capacity: int = option(
        1_000_000, "Maximum number of real rows kept; new rows replace the oldest.", minimum=1
    )
    fit_every_steps: int = option(250, "Environment steps between model fits, and between rollouts.", minimum=1)
    rollout_batch: int = option(10_000, "Start states of a round of rollouts, drawn from the real rows.", minimum=1)
    horizon: int = option(3, "Imagined steps in the actor's gradient and in each rollout.", minimum=1)
    rollout_block_rows: int = option(0, "Imagined rows computed together; 0: chosen for the kind of device.", minimum=0)
    retain_rounds: int = option(4, "Rounds of rollouts for which imagined rows are kept.", minimum=1)
    updates_per_step: int = option(4, "Agent updates per environment step.", minimum=1)
    batch_size: int = option(256, "Rows of an agent update.", minimum=1)
    real_fraction: float = option(0.05, "Share of real rows in an agent update.", minimum=0.0, maximum=1.0)
    termination_fn: str = option("auto", phases.TERMINATION_HELP)
    reward_fn: str = option("learned", phases.REWARD_HELP)
    model: GaussianConfig = GaussianConfig()
    agent: agents.AgentConfig = chosen_section(SacConfig(), "Agent that acts and learns.", agents.CONFIG_CLASSES)

    def __post_init__(self) -> None:
        check(self)


TINY = {
    "exploration_steps": 40, "replay_capacity": 400, "fit_every_steps": 10, "rollout_batch": 30, "horizon": 2,
    "updates_per_step": 2, "batch_size": 16, "real_fraction": 0.25,
    "model.num_members": 3, "model.num_elites": 2, "model.model_hidden_units": 8,
    "model.model_weight_decays": (5e-5, 1e-4), "model.fit_epoch_minibatches": 1,
    "agent.hidden_units": 8, "agent.num_hidden_layers": 1,
}  # fmt: skip
"""Changes to the defaults, by full path, with which tests run every phase within seconds."""


class MaacState(struct.PyTreeNode, kw_only=True):
    """Everything the phases read, apart from the real rows."""

    model: PyTree
    agent: PyTree
    imagined: Replay
    rollout: branched.Rollout  # of the round under way, or of the last one at its end


def build(config: MaacConfig, spec: Spec) -> Algorithm:
    """Builds MAAC with the config's agent.

    Raises:
      ValueError: the spec has no termination function, and none is to be learnt.
    """
    agent = agents.build(config.agent, spec)
    world = phases.with_ends(gaussian.build(config.model, spec), spec, config.termination_fn)
    num_real = int(config.batch_size * config.real_fraction)
    room = config.retain_rounds * config.rollout_batch * config.horizon

    def dynamics(state: MaacState) -> Dynamics:
        return phases.learned_dynamics(world, world.belief(state.model), spec)

    def learning(state: MaacState) -> Learning:
        how = config.horizon, config.agent.discount
        return Learning(actor_loss=functools.partial(pathwise.actor_loss, dynamics(state), agent, *how))

    roll_out = phases.roll_out(
        num_starts=config.rollout_batch,
        length=lambda real: jnp.asarray(config.horizon),
        limit=lambda length: room,
        policy=lambda state: phases.exploring(agent, state.agent),
        dynamics=dynamics,
        rule=lambda state: phases.rule_of(world, world.belief(state.model), spec),
        max_block_rows=config.rollout_block_rows or backends.choices().block_rows,
    )
    batches = phases.mixed_batches(config.updates_per_step, num_real, config.batch_size - num_real)
    every, first = config.fit_every_steps, config.exploration_steps
    return Algorithm(
        init=functools.partial(init, config, spec, agent, world, room),
        phases=(
            Phase("fit_model", every, first, phases.fit_model(world)),
            Phase("roll_out", every, first, roll_out),
            Phase("update_agent", 1, first, phases.update_agent(agent, batches, learning)),
        ),
        exploration_steps=first,
        replay_capacity=config.replay_capacity,
        dynamics=dynamics,
        **reactive(agent),
    )


def init(config: MaacConfig, spec: Spec, agent: Agent, world: WorldModel, room: int, key: Key) -> MaacState:
    """Returns the state before the first step: untrained networks, and no imagined rows."""
    key_model, key_agent = jax.random.split(key)
    return MaacState(
        model=world.init(key_model),
        agent=agent.init(key_agent),
        imagined=replay.init(spec, room),
        rollout=branched.empty(config.rollout_batch, spec.obs_dim),
    )
