"""Parameters and the optimiser that moves them."""

import jax
import optax
from flax import struct

from mbpo_jax.types import Array, PyTree


class Learner(struct.PyTreeNode, kw_only=True):
    """Parameters with the state of their optimiser."""

    params: PyTree
    opt_state: PyTree


def init(optimizer: optax.GradientTransformation, params: PyTree) -> Learner:
    """Returns a learner before its first step."""
    return Learner(params=params, opt_state=optimizer.init(params))


def step(
    optimizer: optax.GradientTransformation, learner: Learner, grads: PyTree, share: Array | None = None
) -> Learner:
    """Takes one optimiser step, or a `share` [] of it, with gradients of the same structure as the parameters."""
    updates, opt_state = optimizer.update(grads, learner.opt_state, learner.params)
    if share is not None:
        updates = jax.tree.map(lambda update: share * update, updates)
    return Learner(params=optax.apply_updates(learner.params, updates), opt_state=opt_state)


def without_optimisers(tree: PyTree) -> PyTree:
    """Returns a tree whose learners only have their parameters, which is all that acting and evaluating read."""

    def strip(node: PyTree) -> PyTree:
        return node.replace(opt_state=None) if isinstance(node, Learner) else node

    return jax.tree.map(strip, tree, is_leaf=lambda node: isinstance(node, Learner))
