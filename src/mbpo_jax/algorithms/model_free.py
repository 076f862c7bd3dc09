"""Agents as algorithms of their own: updates on real rows at each environment step, and no model.

References: Haarnoja et al. 2018b (SAC); Lillicrap et al. 2015 (DDPG); Fujimoto et al. 2018 (TD3).
"""

import dataclasses

from flax import struct

from mbpo_jax import agents
from mbpo_jax.agents.sac import SacConfig
from mbpo_jax.algorithms import phases
from mbpo_jax.algorithms.reactive import reactive
from mbpo_jax.options import check, chosen_section, option
from mbpo_jax.types import Algorithm, Phase, PyTree, Spec


@dataclasses.dataclass(frozen=True)
class ModelFreeConfig:
    """Knobs of an agent as an algorithm of its own. The defaults are for tasks without tuned settings."""

    exploration_steps: int = option(1000, "Environment steps of uniformly random actions before learning.", minimum=1)
    replay_capacity: int = option(
        1_000_000, "Maximum number of real rows kept; new rows replace the oldest.", minimum=1
    )
    updates_per_step: int = option(1, "Agent updates per environment step.", minimum=1)
    batch_size: int = option(256, "Rows of an agent update.", minimum=1)
    agent: agents.AgentConfig = chosen_section(SacConfig(), "Agent that acts and learns.", agents.CONFIG_CLASSES)

    def __post_init__(self) -> None:
        check(self)


TINY = {
    "exploration_steps": 40, "replay_capacity": 400, "updates_per_step": 2, "batch_size": 16,
    "agent.hidden_units": 8, "agent.num_hidden_layers": 1,
}  # fmt: skip
"""Changes to the defaults, by full path, with which tests run every phase within seconds."""


class ModelFreeState(struct.PyTreeNode, kw_only=True):
    """Everything the phase reads, apart from the real rows."""

    agent: PyTree


def build(config: ModelFreeConfig, spec: Spec) -> Algorithm:
    """Builds an algorithm from the config's agent."""
    agent = agents.build(config.agent, spec)
    updates = phases.update_agent(agent, phases.real_batches(config.updates_per_step, config.batch_size))
    return Algorithm(
        init=lambda key: ModelFreeState(agent=agent.init(key)),
        phases=(Phase("update_agent", 1, config.exploration_steps, updates),),
        exploration_steps=config.exploration_steps,
        replay_capacity=config.replay_capacity,
        **reactive(agent),
    )
