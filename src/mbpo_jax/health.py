"""Which quantity of learning went wrong first: a name and a number instead of a mystery NaN.

Every program of a phase returns a `Health` as `metrics["health"]`; the driver reads it after every call and stops with
`describe`. All of it but `describe` runs on the device, as maxima and comparisons of what is at hand anyway.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import struct

from mbpo_jax.types import Array, Metrics, PyTree

LIMIT = 1e16
"""Magnitude from which a float32 quantity counts as exploded: 1e16 is a critic's loss at value errors of 1e8. What is
below can be squared, as Adam does with gradients, without leaving the range of float32 (3e38)."""


class Health(struct.PyTreeNode, kw_only=True):
    """The first quantity that is not finite, or whose magnitude reaches LIMIT. All zeros, too, mean that none is."""

    update: Array  # [], int32, number from 0 of the `unit` with the trouble; -1: none
    quantity: Array  # [], int32, index of `names`: of several in trouble the one that comes first in causal order
    value: Array  # [], float32, the largest magnitude in it: nan, inf, or at least LIMIT
    names: tuple[str, ...] = struct.field(pytree_node=False)  # singular, with their article: "critic 1's loss"
    unit: str = struct.field(pytree_node=False, default="update")  # what `update` counts


def magnitude(tree: PyTree, keep: int = 0) -> Array:
    """Largest magnitude in a tree, over all axes but the first `keep`; nan if there is any, 0 of nothing."""
    largest = jnp.zeros(())
    for leaf in jax.tree.leaves(tree):
        size = jnp.abs(leaf.astype(jnp.float32))
        largest = jnp.maximum(largest, jnp.max(size, axis=tuple(range(keep, leaf.ndim)), initial=0.0))
    return largest


def bias_magnitude(grads: PyTree) -> Array:
    """`magnitude` of the gradients of the biases alone, one value in a few hundred.

    The bias of a layer sums what flows back through all layers above it, so whatever is not finite there shows here.
    """
    named = jax.tree.leaves_with_path(grads)
    return magnitude([leaf for path, leaf in named if getattr(path[-1], "key", None) == "bias"])


def first_trouble(names: Sequence[str], values: Array, start: Array | int = 0, unit: str = "update") -> Health:
    """The first trouble in magnitudes.

    Args:
      names: Q of them, in causal order within an update.
      values: [U, Q], magnitudes of each update.
      start: [], int, number of the first update.
    """
    num_names = len(names)
    if values.shape[-1] != num_names:
        raise ValueError(f"{num_names} names for {values.shape[-1]} quantities")
    bad = ~(values < LIMIT).reshape(-1)  # nan is not below it
    first = jnp.argmax(bad)
    update = jnp.where(jnp.any(bad), start + first // num_names, -1)
    return Health(
        update=update.astype(jnp.int32),
        quantity=(first % num_names).astype(jnp.int32),
        value=values.reshape(-1)[first],
        names=tuple(names),
        unit=unit,
    )


def merge(first: Health, second: Health) -> Health:
    """The earlier trouble of two; in the same update that of `first`, whose quantities come before in causal order."""
    if first.unit != second.unit:
        raise ValueError(f"one health counts each {first.unit}, the other each {second.unit}")
    later = (first.update < 0) | ((second.update >= 0) & (second.update < first.update))
    return Health(
        update=jnp.where(later, second.update, first.update),
        quantity=jnp.where(later, second.quantity + len(first.names), first.quantity),
        value=jnp.where(later, second.value, first.value),
        names=first.names + second.names,
        unit=first.unit,
    )


def precede(metrics: Metrics, first: Health) -> Metrics:
    """Metrics whose health is preceded by `first`, as by that of the rows that an update was made on."""
    return metrics | {"health": merge(first, metrics["health"])}


def describe(health: Health) -> str | None:
    """Says it, on the host: "critic 1's loss is not finite (nan) at update 7", counted from 1; None: no trouble."""
    update, value = int(health.update), float(health.value)
    if update < 0 or value < LIMIT:
        return None
    what = f"has exploded ({value:.2g})" if math.isfinite(value) else f"is not finite ({value})"
    return f"{health.names[int(health.quantity)]} {what} at {health.unit} {update + 1}"
