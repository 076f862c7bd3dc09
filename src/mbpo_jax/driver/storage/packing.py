"""Converts the state of one seed to nested dicts of host arrays, as checkpoints hold it, and back.

Buffers are written by age, oldest first, and only their valid rows, so files stay small, load on any device, and fit a
buffer of another capacity.
"""

from typing import Any

import flax.serialization
import flax.traverse_util
import jax
import numpy as np

from mbpo_jax import replay as replay_lib
from mbpo_jax.replay import Replay, is_replay
from mbpo_jax.types import PyTree


def pack(tree: PyTree) -> dict[str, Any]:
    """Returns the arrays of one seed as nested dicts on the host, with buffers cut to their valid rows."""
    return jax.tree.map(np.asarray, without_none(flax.serialization.to_state_dict(_with_contents(tree))))


def unpack(template: PyTree, packed: dict[str, Any]) -> PyTree:
    """Returns what was packed, in the structure of freshly initialised arrays or of shapes.

    Raises:
      ValueError: an array is missing or has another shape or type, or a buffer has more rows than fit.
    """
    contents = _with_contents(template)
    packed = with_none(flax.serialization.to_state_dict(contents), packed)
    restored = flax.serialization.from_state_dict(contents, packed)

    def place(fresh: Any, saved: Any) -> Any:
        if isinstance(fresh, Replay):
            return _rebuild(fresh, saved)
        if fresh.shape != saved.shape or fresh.dtype != saved.dtype:
            raise ValueError(f"an array is {saved.dtype}{saved.shape} where {fresh.dtype}{fresh.shape} is expected")
        return _put(saved, fresh)

    return jax.tree.map(place, template, restored, is_leaf=is_replay)


def finite(tree: PyTree) -> dict[str, bool]:
    """Returns whether each array of floats is finite throughout, by its path in what `pack` makes of a tree."""
    flat = flax.traverse_util.flatten_dict(flax.serialization.to_state_dict(tree), sep="/")
    arrays = {name: np.asarray(leaf) for name, leaf in flat.items() if leaf is not None}
    # By extremes, since nan spreads to both: this makes no copy of the size of a buffer.
    return {
        name: bool(np.isfinite(array.min()) and np.isfinite(array.max()))
        for name, array in arrays.items()
        if array.dtype.kind == "f" and array.size
    }


def without_buffers(tree: PyTree) -> PyTree:
    """Returns the tree with None in the place of every buffer."""
    return jax.tree.map(lambda leaf: None if is_replay(leaf) else leaf, tree, is_leaf=is_replay)


def without_none(tree: Any) -> Any:
    """Drops entries that are None, which are not arrays."""
    if not isinstance(tree, dict):
        return tree
    return {name: without_none(value) for name, value in tree.items() if value is not None}


def with_none(like: Any, packed: Any) -> Any:
    """Puts None where `like` has it and `packed` has nothing."""
    if not (isinstance(like, dict) and isinstance(packed, dict)):
        return packed
    none = {name: None for name, value in like.items() if value is None and name not in packed}
    return none | {name: with_none(like.get(name), value) for name, value in packed.items()}


def _put(value: np.ndarray, like: Any) -> Any:
    """Puts a value where `like` lies, committed only if `like` is: else every program would be recompiled."""
    return jax.device_put(value, like.sharding if getattr(like, "committed", False) else None)  # shapes have none


def _with_contents(tree: PyTree) -> PyTree:
    """Returns the tree with its rows in the place of every buffer."""
    return jax.tree.map(lambda leaf: _contents(leaf) if is_replay(leaf) else leaf, tree, is_leaf=is_replay)


def _contents(buffer: Replay) -> dict[str, Any]:
    """Returns the valid rows, oldest first; if there are none, one row stands in, which is part of the format."""
    size, head, num_slots = int(buffer.size), int(buffer.head), replay_lib.capacity(buffer)
    slots = np.arange(head - max(size, 1), head) % num_slots
    rows, first = jax.tree.map(lambda leaf: np.asarray(leaf)[slots], (buffer.rows, buffer.first))
    contents = {"rows": rows, "size": np.asarray(size), "num_added": np.asarray(buffer.num_added)}
    return contents if first is None else contents | {"first": first}


def _rebuild(fresh: Replay, saved: dict[str, Any]) -> Replay:
    size, num_slots = int(saved["size"]), replay_lib.capacity(fresh)
    if size > num_slots:
        raise ValueError(f"a buffer of {size} rows does not fit a capacity of {num_slots}")

    def fill(leaf: Any, rows: Any) -> Any:
        expected = (max(size, 1), *leaf.shape[1:])
        if rows.shape != expected or rows.dtype != leaf.dtype:
            raise ValueError(
                f"the rows of a buffer are {rows.dtype}{rows.shape} where {leaf.dtype}{expected} is expected"
            )
        slots = np.zeros(leaf.shape, leaf.dtype)
        slots[:size] = rows[:size]
        return _put(slots, leaf)

    def scalar(value: int, like: Any) -> Any:
        return _put(np.asarray(value, like.dtype), like)

    return Replay(
        rows=jax.tree.map(fill, fresh.rows, saved["rows"]),
        head=scalar(size % num_slots, fresh.head),
        size=scalar(size, fresh.size),
        num_added=scalar(int(saved["num_added"]), fresh.num_added),
        first=None if fresh.first is None else fill(fresh.first, saved["first"]),
    )
