"""Random-sample one-step tabular Q-planning: Q is learnt only from a model, at states and actions drawn at random.

The model is learnt from actions that are uniformly random, or epsilon-greedy with a smaller epsilon.

References: Sutton and Barto 2018, section 8.1.
"""

import dataclasses

from mbpo_jax.algorithms import tabular
from mbpo_jax.algorithms.tabular import Planning, TableConfig
from mbpo_jax.options import check, option
from mbpo_jax.types import Algorithm, Spec


@dataclasses.dataclass(frozen=True)
class QPlanningConfig:
    """Knobs of Q-planning. The defaults are the textbook's for its maze."""

    planning_updates: int = option(50, "Q updates from the model per environment step.", minimum=1)
    epsilon: float = option(
        1.0, "Share of uniformly random actions in training; 1: actions do not depend on Q.", minimum=0.0, maximum=1.0
    )
    replay_capacity: int = option(1000, "Real rows kept; learning uses only the newest.", minimum=1)
    table: TableConfig = TableConfig()

    def __post_init__(self) -> None:
        check(self)


TINY = {"planning_updates": 3, "replay_capacity": 400, "table.table_model": "counting"}
"""Changes to the defaults, by full path, for the contract tests."""


def build(config: QPlanningConfig, spec: Spec) -> Algorithm:
    """Builds tabular Q-planning for one-hot states and actions (Sutton and Barto 2018, section 8.1)."""
    planning = Planning(config.planning_updates, from_rows=False)
    return tabular.build(config.table, spec, planning, config.epsilon, config.replay_capacity)
