"""What a planner is, and what planners share. Actions are in [-1, 1]."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from mbpo_jax.types import Array, Key, PyTree

ScoreFn: TypeAlias = Callable[[Key, Array], Array]
"""(key, actions [N, H, A]) -> scores [N] of N sequences of actions; higher is better. It is all that a planner knows of
a task."""
WORST = -1e30  # what a score counts as that is not finite; sums of it with others stay finite


class Planner(NamedTuple):
    """A search for a sequence of actions with a high score."""

    init: Callable[[], PyTree]  # () -> the plan that an episode begins with
    plan: Callable[[Key, PyTree, ScoreFn], tuple[Array, PyTree]]
    """(key, plan, score_fn) -> (actions [H, A], the plan that the search of the next step begins with)."""


def scored(score_fn: ScoreFn, key: Key, actions: Array) -> Array:
    """Returns the scores [N] of candidates [N, H, A]; one that is not finite counts as the worst."""
    scores = score_fn(key, actions)
    return jnp.where(jnp.isfinite(scores), scores, WORST)


def best(actions: Array, scores: Array, number: int) -> Array:
    """Returns the candidates [number, H, A] with the highest scores, best first."""
    _, index = jax.lax.top_k(scores, number)
    return actions[index]


def shifted(actions: Array, last: Array) -> Array:
    """Moves plans [..., H, A] one step on: drops the first action, and appends `last` [..., A]."""
    return jnp.concatenate([actions[..., 1:, :], last[..., None, :]], axis=-2)
