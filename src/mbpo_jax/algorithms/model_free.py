"""Agents as algorithms of their own: so many updates per environment step on real rows, no model.

References: Haarnoja et al. 2018b (SAC); Lillicrap et al. 2015 (DDPG); Fujimoto et al. 2018 (TD3).
"""

import dataclasses
from typing import TypeAlias

import jax
from flax import struct

from mbpo_jax import agents, health, replay
from mbpo_jax.agents.ddpg import DdpgConfig
from mbpo_jax.agents.sac import SacConfig
from mbpo_jax.agents.td3 import Td3Config
from mbpo_jax.algorithms.reactive import reactive
from mbpo_jax.options import check, option
from mbpo_jax.replay import Replay
from mbpo_jax.types import Algorithm, Key, Metrics, Phase, Programs, PyTree, Spec


@dataclasses.dataclass(frozen=True)
class _Knobs:
    """Knobs of every agent as an algorithm of its own."""

    exploration_steps: int = option(5000, "Environment steps of uniformly random actions before learning.", minimum=1)
    replay_capacity: int = option(1_000_000, "Maximum number of real rows kept; the oldest give way.", minimum=1)
    updates_per_step: int = option(1, "Agent updates per environment step.", minimum=1)
    batch_size: int = option(256, "Rows of an agent update.", minimum=1)

    def __post_init__(self) -> None:
        check(self)


@dataclasses.dataclass(frozen=True)
class ModelFreeSacConfig(_Knobs):
    """Knobs of SAC as an algorithm of its own."""

    agent: SacConfig = SacConfig()


@dataclasses.dataclass(frozen=True)
class ModelFreeDdpgConfig(_Knobs):
    """Knobs of DDPG as an algorithm of its own."""

    agent: DdpgConfig = DdpgConfig()


@dataclasses.dataclass(frozen=True)
class ModelFreeTd3Config(_Knobs):
    """Knobs of TD3 as an algorithm of its own."""

    agent: Td3Config = Td3Config()


Config: TypeAlias = ModelFreeSacConfig | ModelFreeDdpgConfig | ModelFreeTd3Config


class ModelFreeState(struct.PyTreeNode, kw_only=True):
    """Everything that the phase reads, the real rows aside."""

    agent: PyTree


def build(config: Config, spec: Spec) -> Algorithm:
    """The config's agent as an algorithm."""
    agent = agents.build(config.agent, spec)

    def init(key: Key) -> ModelFreeState:
        return ModelFreeState(agent=agent.init(key))

    def update_agent(key: Key, state: ModelFreeState, real: Replay) -> tuple[ModelFreeState, Metrics]:
        key_batches, key_update = jax.random.split(key)
        batches = replay.sample(key_batches, real, (config.updates_per_step, config.batch_size))
        agent_state, metrics = agent.update(key_update, state.agent, batches)
        of_rows = health.first_trouble(("a real row",), health.magnitude(batches, keep=1)[:, None])
        return state.replace(agent=agent_state), health.precede(metrics, of_rows)

    return Algorithm(
        init=init,
        **reactive(agent),
        phases=(Phase("update_agent", 1, config.exploration_steps, Programs((update_agent,))),),
        exploration_steps=config.exploration_steps,
        replay_capacity=config.replay_capacity,
    )
