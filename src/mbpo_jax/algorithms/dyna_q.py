"""Dyna-Q: acting, learning a tabular model and planning in it at every step; `tabular.py` has the updates.

References: Sutton and Barto 2018, sections 8.2 (Dyna-Q) and 8.4 (prioritised sweeping); Sutton 1990.
"""

import dataclasses

from mbpo_jax.algorithms import tabular
from mbpo_jax.algorithms.tabular import Planning, TableConfig
from mbpo_jax.options import check, option
from mbpo_jax.types import Algorithm, Spec


@dataclasses.dataclass(frozen=True)
class DynaQConfig:
    """Knobs of Dyna-Q. The defaults are the textbook's for its maze."""

    planning_updates: int = option(5, "Q updates from the model per environment step; 0: Q-learning.", minimum=0)
    epsilon: float = option(0.1, "Share of uniformly random actions in training.", minimum=0.0, maximum=1.0)
    prioritised_sweeping: bool = option(
        False, "Plan where Q is furthest from its target, then at predecessors; Q learns from the model alone."
    )
    priority_threshold: float = option(
        1e-4,
        "Distance of Q from its target, in units of reward, above which prioritised sweeping updates it.",
        minimum=0.0,
    )
    replay_capacity: int = option(1000, "Real rows kept; learning uses only the newest.", minimum=1)
    table: TableConfig = TableConfig()

    def __post_init__(self) -> None:
        check(self)
        if self.prioritised_sweeping and self.planning_updates == 0:
            raise ValueError("planning_updates must be 1 or more with prioritised_sweeping=true, got 0")


TINY = {"planning_updates": 3, "epsilon": 1.0, "replay_capacity": 400}
"""Changes to the defaults, by full path, for the contract tests."""


def build(config: DynaQConfig, spec: Spec) -> Algorithm:
    """Builds tabular Dyna-Q for one-hot states and actions (Sutton and Barto 2018, section 8.2)."""
    sweeps = config.prioritised_sweeping
    threshold = config.priority_threshold if sweeps else None
    planning = Planning(config.planning_updates, from_rows=not sweeps, priority_threshold=threshold)
    return tabular.build(config.table, spec, planning, config.epsilon, config.replay_capacity)
