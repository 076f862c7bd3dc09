"""Packs many small arrays into a few large ones, and unpacks them.

Storage spends about a millisecond on every array, and never frees some memory of each (tensorstore's specs leak a few
hundred bytes): a state has hundreds of arrays, and a run saves thousands of times.
"""

import math
from collections import defaultdict
from typing import Any

import numpy as np
from flax.traverse_util import empty_node, flatten_dict, unflatten_dict

LARGE_BYTES = 2**20  # arrays of at least this size are not bundled


def bundle(tree: dict[str, Any]) -> tuple[dict[str, np.ndarray], list[list[Any]]]:
    """Returns a flat dict with one vector for all small arrays of a type, and every large array by itself.

    Args:
      tree: nested dicts of arrays; dicts may be empty, and arrays too, but not all of them.
    Returns:
      The dict, and the layout, which is JSON: [path, type, shape] of every array, type None for an empty dict.
    """
    small: dict[str, list[np.ndarray]] = defaultdict(list)
    large: dict[str, np.ndarray] = {}
    layout: list[list[Any]] = []
    for path, leaf in flatten_dict(tree, keep_empty_nodes=True).items():
        if leaf is empty_node:
            layout.append([list(path), None, None])
            continue
        array = np.asarray(leaf)
        layout.append([list(path), array.dtype.name, list(array.shape)])
        if array.nbytes < LARGE_BYTES:
            small[f"small_{array.dtype.name}"].append(array.reshape(-1))
        else:
            large[f"large_{len(large)}"] = array
    return {name: np.concatenate(vectors) for name, vectors in small.items()} | large, layout


def unbundle(bundled: dict[str, np.ndarray], layout: list[list[Any]]) -> dict[str, Any]:
    """Returns the nested dict that was bundled."""
    flat: dict[tuple[str, ...], Any] = {}
    used: dict[str, int] = defaultdict(int)  # elements of each vector
    num_large = 0
    for path, dtype, shape in layout:
        if dtype is None:
            flat[tuple(path)] = empty_node
            continue
        size = math.prod(shape)
        if size * np.dtype(dtype).itemsize < LARGE_BYTES:
            vector, begin = bundled[f"small_{dtype}"], used[dtype]
            used[dtype] += size
            flat[tuple(path)] = vector[begin : begin + size].reshape(shape)
        else:
            flat[tuple(path)] = bundled[f"large_{num_large}"]
            num_large += 1
    tree: dict[str, Any] = unflatten_dict(flat)
    return tree
