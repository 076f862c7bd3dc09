"""Loop bounds and branches that stay shared when a function is batched over seeds.

`jax.vmap` turns a loop whose bound differs between the batched calls into one that selects its whole carry at every
iteration, and a `lax.cond` into both of its branches. A bound or predicate that all calls share avoids this: `largest`
and `anywhere` give one. Iterations beyond a call's own bound must then change nothing, and a branch must undo, with
`only_where`, what it changed for calls whose predicate is false.
"""

import jax
import jax.numpy as jnp

from mbpo_jax.types import Array, PyTree


@jax.custom_batching.custom_vmap
def largest(bound: Array) -> Array:
    """Returns the largest value of a number over the batched calls; outside a batch, the number itself."""
    return bound


@largest.def_vmap
def _(axis_size: int, in_batched: list[bool], bound: Array) -> tuple[Array, bool]:
    del axis_size
    return largest(jnp.max(bound, axis=0)) if in_batched[0] else bound, False


def anywhere(predicate: Array) -> Array:
    """Returns whether a predicate holds in any of the batched calls; outside a batch, the predicate itself."""
    return largest(predicate)


@jax.custom_batching.custom_vmap
def only_where(predicate: Array, new: PyTree, old: PyTree) -> PyTree:
    """Selects, in a batch, `new` or `old` for each call; outside a batch, returns `new` whatever the predicate.

    So it belongs in a branch that is taken only if the predicate holds somewhere.
    """
    return new


@only_where.def_vmap
def _(axis_size: int, in_batched: list[PyTree], predicate: Array, new: PyTree, old: PyTree) -> tuple[PyTree, PyTree]:
    def select(predicate: Array, new: PyTree, old: PyTree) -> PyTree:
        return jax.tree.map(lambda n, o: jnp.where(predicate, n, o), new, old)

    axes = jax.tree.map(lambda batched: 0 if batched else None, tuple(in_batched))
    selected = jax.vmap(select, in_axes=axes, axis_size=axis_size)(predicate, new, old)
    return selected, jax.tree.map(lambda leaf: True, selected)
