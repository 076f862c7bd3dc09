"""Planners: searches for action sequences that know no model, environment or agent, only a function that scores.

Each file has a config and a `build`, and a row in PLANNERS; `planner` and `noise` hold what they share.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from mbpo_jax.planners import cem, icem, mppi, random_shooting
from mbpo_jax.planners.planner import Planner

PlannerConfig: TypeAlias = random_shooting.RandomShootingConfig | cem.CemConfig | icem.IcemConfig | mppi.MppiConfig


class PlannerEntry(NamedTuple):
    """A planner that `--planner` can choose."""

    config_class: type
    build: Callable[[Any, int, int], Planner]  # (config, horizon, action_dim) -> planner


PLANNERS: dict[str, PlannerEntry] = {
    "random_shooting": PlannerEntry(random_shooting.RandomShootingConfig, random_shooting.build),
    "cem": PlannerEntry(cem.CemConfig, cem.build),
    "icem": PlannerEntry(icem.IcemConfig, icem.build),
    "mppi": PlannerEntry(mppi.MppiConfig, mppi.build),
}
CONFIG_CLASSES: dict[str, type] = {name: entry.config_class for name, entry in PLANNERS.items()}


def build(config: PlannerConfig, horizon: int, action_dim: int) -> Planner:
    """Builds the planner of this config's class, over sequences of `horizon` actions."""
    builders = {entry.config_class: entry.build for entry in PLANNERS.values()}
    return builders[type(config)](config, horizon, action_dim)
