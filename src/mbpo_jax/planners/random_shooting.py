"""Random shooting: the best of many sequences of uniformly random actions.

Reference: Nagabandi et al. 2018, "Neural Network Dynamics for Model-Based Deep Reinforcement Learning with Model-Free
Fine-Tuning".
"""

import dataclasses
import functools

import jax

from mbpo_jax.options import check, option
from mbpo_jax.planners.planner import Planner, ScoreFn, best, scored
from mbpo_jax.types import Array, Key


@dataclasses.dataclass(frozen=True)
class RandomShootingConfig:
    """Knobs of random shooting."""

    num_candidates: int = option(2000, "Action sequences that are tried.", minimum=1)

    def __post_init__(self) -> None:
        check(self)


def build(config: RandomShootingConfig, horizon: int, action_dim: int) -> Planner:
    """Builds a planner that carries nothing over from step to step."""
    return Planner(init=lambda: (), plan=functools.partial(plan, config, horizon, action_dim))


def plan(
    config: RandomShootingConfig, horizon: int, action_dim: int, key: Key, start: tuple[()], score_fn: ScoreFn
) -> tuple[Array, tuple[()]]:
    """Returns the best sequence [H, A] of those drawn."""
    key_draw, key_score = jax.random.split(key)
    shape = (config.num_candidates, horizon, action_dim)
    candidates = jax.random.uniform(key_draw, shape, minval=-1.0, maxval=1.0)
    return best(candidates, scored(score_fn, key_score, candidates), 1)[0], start
