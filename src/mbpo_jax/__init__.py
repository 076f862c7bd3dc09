"""Model-based policy optimisation and its family in functional JAX: the public names, imported when first used."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mbpo_jax.agents.ddpg import DdpgConfig
    from mbpo_jax.agents.sac import SacConfig
    from mbpo_jax.agents.td3 import Td3Config
    from mbpo_jax.algorithms.mbpo import MbpoConfig, MbpoDdpgConfig, MbpoTd3Config
    from mbpo_jax.algorithms.model_free import ModelFreeDdpgConfig, ModelFreeSacConfig, ModelFreeTd3Config
    from mbpo_jax.driver.config import RunConfig
    from mbpo_jax.driver.interaction.policy import Policy, load_policy
    from mbpo_jax.driver.loop import Result
    from mbpo_jax.driver.trained import Trained, load_trained
    from mbpo_jax.launch.processes import train
    from mbpo_jax.models.state import GaussianConfig

__version__ = "0.1.0"
__all__ = [
    "DdpgConfig",
    "GaussianConfig",
    "MbpoConfig",
    "MbpoDdpgConfig",
    "MbpoTd3Config",
    "ModelFreeDdpgConfig",
    "ModelFreeSacConfig",
    "ModelFreeTd3Config",
    "Policy",
    "Result",
    "RunConfig",
    "SacConfig",
    "Td3Config",
    "Trained",
    "load_policy",
    "load_trained",
    "train",
]

_HOMES = {
    "DdpgConfig": "agents.ddpg",
    "GaussianConfig": "models.state",
    "MbpoConfig": "algorithms.mbpo",
    "MbpoDdpgConfig": "algorithms.mbpo",
    "MbpoTd3Config": "algorithms.mbpo",
    "ModelFreeDdpgConfig": "algorithms.model_free",
    "ModelFreeSacConfig": "algorithms.model_free",
    "ModelFreeTd3Config": "algorithms.model_free",
    "Policy": "driver.interaction.policy",
    "Result": "driver.loop",
    "RunConfig": "driver.config",
    "SacConfig": "agents.sac",
    "Td3Config": "agents.td3",
    "Trained": "driver.trained",
    "load_policy": "driver.interaction.policy",
    "load_trained": "driver.trained",
    "train": "launch.processes",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mbpo_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(f"mbpo_jax.{_HOMES[name]}"), name)
