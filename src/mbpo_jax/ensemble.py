"""The only place that lifts a function of one member over the members of an ensemble.

Everything else is written for one member. Lifting the whole update, optimiser included, keeps members independent: no
norm, clip or statistic is ever taken across them.
"""

from collections.abc import Callable
from typing import Any

import jax

from mbpo_jax.types import Array, Key, PyTree


def lift(fn: Callable[..., Any], in_axes: int | None | tuple[int | None, ...] = 0) -> Callable[..., Any]:
    """Lifts `fn` of one member over a leading member axis; an axis of None marks an argument shared by members."""
    return jax.vmap(fn, in_axes=in_axes)


def init_members(init: Callable[[Key], PyTree], key: Key, num_members: int) -> PyTree:
    """Initialises members [M, ...], each from its own key."""
    return lift(init)(jax.random.split(key, num_members))


def member(members: PyTree, index: Array | int) -> PyTree:
    """Returns one member's arrays from the stacked ones."""
    return jax.tree.map(lambda leaf: leaf[index], members)
