"""Which quantity went wrong first in learning: a name and a number instead of a mysterious NaN.

A program reports named magnitudes as `Watched` (`watch`). The driver reduces them on the device to a `Fault`
(`first_fault`), reads that after every call, and stops with the message of `describe`.
"""

import math
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from flax import struct

from mbpo_jax.types import Array, PyTree, Watched

LIMIT = 1e16
"""Magnitude from which a float32 quantity counts as exploded: 1e16 is a critic's loss at value errors of 1e8. Anything
below can be squared, as Adam does with gradients, without leaving the range of float32 (3e38)."""


class Fault(struct.PyTreeNode, kw_only=True):
    """The first quantity that is not finite, or whose magnitude reaches LIMIT."""

    update: Array  # [], int32, number from 0 of the `unit` with the fault; -1: none
    quantity: Array  # [], int32, index into `names`; of several faults in one update, the first in causal order
    value: Array  # [], float32, its largest magnitude: nan, inf, or at least LIMIT
    names: tuple[str, ...] = struct.field(pytree_node=False)
    unit: str = struct.field(pytree_node=False)


def magnitude(tree: PyTree, keep: int = 0) -> Array:
    """Returns the largest magnitude in a tree, over all axes but the first `keep`; nan if any is nan, 0 if empty."""
    largest = jnp.zeros(())
    for leaf in jax.tree.leaves(tree):
        size = jnp.abs(leaf.astype(jnp.float32))
        largest = jnp.maximum(largest, jnp.max(size, axis=tuple(range(keep, leaf.ndim)), initial=0.0))
    return largest


def bias_magnitude(grads: PyTree) -> Array:
    """Returns the `magnitude` of the gradients of the biases alone, one value in a few hundred.

    A layer's bias gradient sums what flows back through all layers above it, so any non-finite value there shows here.
    """
    named = jax.tree.leaves_with_path(grads)
    return magnitude([leaf for path, leaf in named if getattr(path[-1], "key", None) == "bias"])


def watch(quantities: Mapping[str, PyTree], keep: int = 0, unit: str = "update") -> Watched:
    """Measures the magnitudes of named quantities.

    Args:
      quantities: trees by name, in the singular with an article ("the actor's loss"), in causal order.
      keep: leading axes that count updates: 0, or 1 for trees of [U, ...].
      unit: what the updates are called.
    """
    values = [magnitude(value, keep) for value in quantities.values()]
    return Watched(jnp.stack(values, axis=-1), names=tuple(quantities), unit=unit)


def each(name: str, owners: Sequence[str], values: Array) -> dict[str, Array]:
    """Names the entries of values [M, ...] after their owners: each("{}'s loss", ["critic 0", "critic 1"], losses)."""
    return {name.format(owner): values[i] for i, owner in enumerate(owners)}


def first_fault(watched: Sequence[Watched]) -> Fault | None:
    """Finds the first fault: that of the first quantity in the earliest update; None if nothing was watched.

    Args:
      watched: in causal order within an update; all in the same unit.
    """
    if not watched:
        return None
    units = {group.unit for group in watched}
    if len(units) > 1:
        raise ValueError(f"what is watched must count one unit, got {' and '.join(sorted(units))}")
    fault = _fault_of(watched[0])
    for group in watched[1:]:
        fault = _earlier(fault, _fault_of(group))
    return fault


def _fault_of(watched: Watched) -> Fault:
    num_names = len(watched.names)
    if watched.values.shape[-1] != num_names:
        raise ValueError(f"{num_names} names for {watched.values.shape[-1]} quantities")
    bad = ~(watched.values < LIMIT).reshape(-1)  # nan is not below it
    first = jnp.argmax(bad)
    start = 0 if watched.first is None else watched.first
    update = jnp.where(jnp.any(bad), start + first // num_names, -1)
    return Fault(
        update=update.astype(jnp.int32),
        quantity=(first % num_names).astype(jnp.int32),
        value=watched.values.reshape(-1)[first],
        names=watched.names,
        unit=watched.unit,
    )


def _earlier(first: Fault, second: Fault) -> Fault:
    """Returns the earlier of two faults; in the same update `first`, which comes before in causal order."""
    later = (first.update < 0) | ((second.update >= 0) & (second.update < first.update))
    return Fault(
        update=jnp.where(later, second.update, first.update),
        quantity=jnp.where(later, second.quantity + len(first.names), first.quantity),
        value=jnp.where(later, second.value, first.value),
        names=first.names + second.names,
        unit=first.unit,
    )


def describe(fault: Fault | None) -> str | None:
    """Returns "critic 1's loss is not finite (nan) at update 7" for a fault on the host; None if there is none."""
    if fault is None or int(fault.update) < 0:
        return None
    value = float(fault.value)
    what = f"has exploded ({value:.2g})" if math.isfinite(value) else f"is not finite ({value})"
    return f"{fault.names[int(fault.quantity)]} {what} at {fault.unit} {int(fault.update) + 1}"
