"""Model-based policy optimisation and its family in functional JAX: the public names, imported when first used."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mbpo_jax.agents.sac import SacConfig
    from mbpo_jax.algorithms.mbpo import MbpoConfig
    from mbpo_jax.algorithms.sac import SacRunConfig
    from mbpo_jax.driver.config import RunConfig
    from mbpo_jax.driver.loop import Result
    from mbpo_jax.driver.policy import Policy, load_policy
    from mbpo_jax.driver.processes import train
    from mbpo_jax.models.gaussian_state import GaussianConfig

__version__ = "0.1.0"
__all__ = [
    "GaussianConfig",
    "MbpoConfig",
    "Policy",
    "Result",
    "RunConfig",
    "SacConfig",
    "SacRunConfig",
    "load_policy",
    "train",
]

_HOMES = {
    "GaussianConfig": "models.gaussian_state",
    "MbpoConfig": "algorithms.mbpo",
    "Policy": "driver.policy",
    "Result": "driver.loop",
    "RunConfig": "driver.config",
    "SacConfig": "agents.sac",
    "SacRunConfig": "algorithms.sac",
    "load_policy": "driver.policy",
    "train": "driver.processes",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mbpo_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(f"mbpo_jax.{_HOMES[name]}"), name)
