"""What acts and learns: each file but `critics`, what they share, builds one `Agent` and has a row in BUILDERS."""

from collections.abc import Callable
from typing import Any, TypeAlias

from mbpo_jax.agents import ddpg, sac, td3
from mbpo_jax.types import Agent, Spec

AgentConfig: TypeAlias = sac.SacConfig | ddpg.DdpgConfig | td3.Td3Config

BUILDERS: dict[type, Callable[[Any, Spec], Agent]] = {
    sac.SacConfig: sac.build,
    ddpg.DdpgConfig: ddpg.build,
    td3.Td3Config: td3.build,
}


def build(config: AgentConfig, spec: Spec) -> Agent:
    """The agent that these knobs are of."""
    return BUILDERS[type(config)](config, spec)
