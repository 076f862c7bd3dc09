"""The interface of planners, and what they share. Actions are in [-1, 1]."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from mbpo_jax.types import Array, Key, PyTree

ScoreFn: TypeAlias = Callable[[Key, Array], Array]
"""(key, actions [N, H, A]) -> scores [N] of N action sequences; higher is better. It is all that a planner knows about
a task."""
WORST = -1e30  # replaces scores that are not finite; sums of it with others stay finite


class Planner(NamedTuple):
    """A search for a sequence of actions with a high score."""

    init: Callable[[], PyTree]  # () -> the plan with which an episode starts
    plan: Callable[[Key, PyTree, ScoreFn], tuple[Array, PyTree]]
    """(key, plan, score_fn) -> (actions [H, A], the plan with which the next step's search starts)."""


def scored(score_fn: ScoreFn, key: Key, actions: Array) -> Array:
    """Returns the scores [N] of candidates [N, H, A], with WORST in place of those that are not finite."""
    scores = score_fn(key, actions)
    return jnp.where(jnp.isfinite(scores), scores, WORST)


def best(actions: Array, scores: Array, number: int) -> Array:
    """Returns the candidates [number, H, A] with the highest scores, best first."""
    _, index = jax.lax.top_k(scores, number)
    return actions[index]


def shifted(actions: Array, last: Array) -> Array:
    """Shifts plans [..., H, A] by one step: drops the first action and appends `last` [..., A]."""
    return jnp.concatenate([actions[..., 1:, :], last[..., None, :]], axis=-2)
