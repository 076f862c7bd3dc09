"""Model-based policy optimisation and its family in functional JAX: the public names, imported on first use."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers; at run time, `__getattr__` imports a name's module
    from mbpo_jax.agents.bounded_sac import BoundedSacConfig as BoundedSacConfig
    from mbpo_jax.agents.ddpg import DdpgConfig as DdpgConfig
    from mbpo_jax.agents.sac import SacConfig as SacConfig
    from mbpo_jax.agents.svg import SvgAgentConfig as SvgAgentConfig
    from mbpo_jax.agents.td3 import Td3Config as Td3Config
    from mbpo_jax.algorithms.behaviour_cloning import CloningRunConfig as CloningRunConfig
    from mbpo_jax.algorithms.bmpo import BmpoConfig as BmpoConfig
    from mbpo_jax.algorithms.double_horizon import DoubleHorizonConfig as DoubleHorizonConfig
    from mbpo_jax.algorithms.dyna_q import DynaQConfig as DynaQConfig
    from mbpo_jax.algorithms.maac import MaacConfig as MaacConfig
    from mbpo_jax.algorithms.mbpo import MbpoConfig as MbpoConfig
    from mbpo_jax.algorithms.model_free import ModelFreeConfig as ModelFreeConfig
    from mbpo_jax.algorithms.mopo import MopoConfig as MopoConfig
    from mbpo_jax.algorithms.mve import MveConfig as MveConfig
    from mbpo_jax.algorithms.pets import PetsConfig as PetsConfig
    from mbpo_jax.algorithms.q_planning import QPlanningConfig as QPlanningConfig
    from mbpo_jax.algorithms.sac_svg import SacSvgConfig as SacSvgConfig
    from mbpo_jax.algorithms.steve import SteveConfig as SteveConfig
    from mbpo_jax.algorithms.svg import SvgConfig as SvgConfig
    from mbpo_jax.algorithms.td3_bc import Td3BcConfig as Td3BcConfig
    from mbpo_jax.driver.config import RunConfig as RunConfig
    from mbpo_jax.driver.interaction.policy import Policy as Policy
    from mbpo_jax.driver.interaction.policy import load_policy as load_policy
    from mbpo_jax.driver.loop import Result as Result
    from mbpo_jax.driver.trained import Trained as Trained
    from mbpo_jax.driver.trained import load_trained as load_trained
    from mbpo_jax.launch.processes import train as train
    from mbpo_jax.models.gp_state import GpConfig as GpConfig
    from mbpo_jax.models.sequence import SequenceConfig as SequenceConfig
    from mbpo_jax.models.state import GaussianConfig as GaussianConfig

__version__ = "0.1.0"

_MODULES = {
    "BmpoConfig": "algorithms.bmpo",
    "BoundedSacConfig": "agents.bounded_sac",
    "CloningRunConfig": "algorithms.behaviour_cloning",
    "DdpgConfig": "agents.ddpg",
    "DoubleHorizonConfig": "algorithms.double_horizon",
    "DynaQConfig": "algorithms.dyna_q",
    "GaussianConfig": "models.state",
    "GpConfig": "models.gp_state",
    "MaacConfig": "algorithms.maac",
    "MbpoConfig": "algorithms.mbpo",
    "ModelFreeConfig": "algorithms.model_free",
    "MopoConfig": "algorithms.mopo",
    "MveConfig": "algorithms.mve",
    "PetsConfig": "algorithms.pets",
    "Policy": "driver.interaction.policy",
    "QPlanningConfig": "algorithms.q_planning",
    "Result": "driver.loop",
    "RunConfig": "driver.config",
    "SacConfig": "agents.sac",
    "SacSvgConfig": "algorithms.sac_svg",
    "SequenceConfig": "models.sequence",
    "SteveConfig": "algorithms.steve",
    "SvgAgentConfig": "agents.svg",
    "SvgConfig": "algorithms.svg",
    "Td3BcConfig": "algorithms.td3_bc",
    "Td3Config": "agents.td3",
    "Trained": "driver.trained",
    "load_policy": "driver.interaction.policy",
    "load_trained": "driver.trained",
    "train": "launch.processes",
}
__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'mbpo_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(f"mbpo_jax.{_MODULES[name]}"), name)
