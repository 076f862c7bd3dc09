"""Agents that update an actor, most of them with critics.

* `sac`, `td3`, `ddpg`: each builds an `Agent` and has a row in AGENTS, from which `--agent` chooses; so must a new one.
* `bounded_sac` (double_horizon), `svg`, `cloning` (bc), `q_table` (tables): each belongs to one kind of algorithm.
* `critics`: code shared by agents with critics. `scaled`: wraps any agent and scales its observations.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from mbpo_jax.agents import ddpg, sac, td3
from mbpo_jax.types import Agent, Spec

AgentConfig: TypeAlias = sac.SacConfig | ddpg.DdpgConfig | td3.Td3Config


class AgentEntry(NamedTuple):
    """An agent that `--agent` can choose."""

    config_class: type
    build: Callable[[Any, Spec], Agent]


AGENTS: dict[str, AgentEntry] = {
    "sac": AgentEntry(sac.SacConfig, sac.build),
    "ddpg": AgentEntry(ddpg.DdpgConfig, ddpg.build),
    "td3": AgentEntry(td3.Td3Config, td3.build),
}
CONFIG_CLASSES: dict[str, type] = {name: entry.config_class for name, entry in AGENTS.items()}


def build(config: AgentConfig, spec: Spec) -> Agent:
    """Builds the agent of this config's class."""
    builders = {entry.config_class: entry.build for entry in AGENTS.values()}
    return builders[type(config)](config, spec)
