"""What a data set must satisfy; anything else is refused, with the first row that is wrong."""

from collections.abc import Sequence

import numpy as np

from mbpo_jax.data_sets.recorded import Recorded, Refused
from mbpo_jax.driver import memory_limits

NUMBER_KINDS = "fiub"  # of dtype.kind: floats, integers, booleans
WHOLE_KINDS = "iub"
ROUNDING = 1e-5  # of the range of an action
FEWEST_ROWS, FEWEST_EPISODES = 100, 2  # either is enough
COPIES = 2  # of the rows: as read and as kept, then as kept and on the device; reading takes 2.0 to 2.3 at its peak


def check_room(num_rows: int, obs_dim: int, action_dim: int, largest_array: int = 0) -> None:
    """Refuses, before it is read, a data set that does not fit into the memory that this process may use.

    Args:
      largest_array: bytes of the largest array as stored, which is read before it is converted.
    """
    row = 4 * (2 * obs_dim + action_dim + 2) + 2
    needed = COPIES * num_rows * row + max(largest_array, 4 * num_rows * obs_dim)
    limit = memory_limits.smallest()
    if limit is not None and needed > limit[0]:
        raise Refused(
            f"it needs {_size(needed)} of memory for {num_rows:,} rows, which must fit the {_size(limit[0])} that "
            f"{limit[1]} allows"
        )


def matrix(name: str, shape: Sequence[int], dtype: np.dtype) -> None:
    """Refuses anything but an array of numbers [N, D]."""
    numbers(name, dtype)
    if len(shape) != 2:
        letter = "O" if "obs" in name else "A"
        hint = f"; numbers of one dimension are [N, 1], with {letter} = 1" if len(shape) == 1 else ""
        raise Refused(f"{name} must be [N, {letter}], got {list(shape)}{hint}")
    if 0 in shape:
        raise Refused(f"{name} must have at least one row and one column, got {list(shape)}")


def numbers(name: str, dtype: np.dtype) -> None:
    """Refuses anything but an array of numbers; objects would have to be unpickled."""
    if dtype.kind not in NUMBER_KINDS:
        raise Refused(f"{name} must be numbers, got {dtype}")


def column(name: str, shape: Sequence[int], num_rows: int) -> None:
    """Refuses a shape that is neither [N] nor [N, 1]."""
    if tuple(shape) not in ((num_rows,), (num_rows, 1)):
        raise Refused(f"{name} must be [{num_rows}] or [{num_rows}, 1], one for each observation, got {list(shape)}")


def flags(name: str, values: np.ndarray) -> np.ndarray:
    """Returns flags, given as any type of number, as booleans."""
    wrong = (values != 0) & (values != 1)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise Refused(f"{name} must be 0 or 1 everywhere, got {values[row]} in row {row:,}")
    return values.astype(bool)


def finite(recorded: Recorded) -> None:
    """Refuses values that are not finite in float32."""
    parts = {
        "observations": recorded.obs,
        "actions": recorded.action,
        "rewards": recorded.reward,
        "next observations": recorded.next_obs,
    }
    for name, values in parts.items():
        if values is None or (np.isfinite(values.min()) and np.isfinite(values.max())):  # nan spreads to both
            continue
        bad = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
        row = int(np.flatnonzero(bad)[0])
        raise Refused(
            f"{name} must be finite in float32, got {values[row].tolist()} in row {row:,}, the first of "
            f"{int(bad.sum()):,}"
        )


def enough(num_rows: int, num_episodes: int) -> None:
    """Refuses a data set from which nothing can be learnt."""
    if num_rows == 0:
        raise Refused("it must have rows with a next observation or a terminal, got none")
    if num_rows < FEWEST_ROWS and num_episodes < FEWEST_EPISODES:
        raise Refused(
            f"it must have at least {FEWEST_ROWS} rows or {FEWEST_EPISODES} episodes, got {num_rows} rows in "
            f"{num_episodes} episode{'s' * (num_episodes != 1)}"
        )


def bounds(low: np.ndarray, high: np.ndarray, action_dim: int) -> None:
    """Refuses bounds with which actions [N, A] cannot be scaled."""
    if low.shape != (action_dim,) or high.shape != (action_dim,):
        raise Refused(f"actions must have {low.size} numbers, like their bounds, got {action_dim}")
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low <= high).all()):
        raise Refused(f"actions must have finite bounds, got {low.tolist()} and {high.tolist()}; give the environment")


def to_unit(action: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Returns actions [N, A] scaled from their bounds to [-1, 1]; real ones within -1 and 1 are unchanged, bit for bit.

    Whole numbers share [-1, 1] equally, and each becomes the middle of its share.
    """
    _check_inside(action, low, high)
    whole = low.dtype.kind in WHOLE_KINDS
    scaled = np.array(action, np.float32)
    for i, (bottom, top) in enumerate(zip(low.tolist(), high.tolist())):
        bottom, top = (bottom - 0.5, top + 0.5) if whole else (bottom, top)
        if (bottom, top) == (-1.0, 1.0):
            continue
        span = top - bottom
        scaled[:, i] = 2.0 * (action[:, i].astype(np.float64) - bottom) / span - 1.0 if span else 0.0
    return np.clip(scaled, -1.0, 1.0, out=scaled)


def from_unit(action: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Returns actions [N, A], float32, scaled from [-1, 1] to their bounds; unchanged if the bounds are -1 and 1."""
    scaled = np.array(action, np.float32)
    for i, (bottom, top) in enumerate(zip(low.tolist(), high.tolist())):
        if low.dtype.kind in WHOLE_KINDS:
            share = np.floor(0.5 * (action[:, i].astype(np.float64) + 1.0) * (top - bottom + 1))
            scaled[:, i] = bottom + np.minimum(share, top - bottom)
        elif (bottom, top) != (-1.0, 1.0):
            scaled[:, i] = bottom + 0.5 * (action[:, i].astype(np.float64) + 1.0) * (top - bottom)
    return scaled


def _check_inside(action: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    """Refuses actions that lie outside their bounds by more than rounding."""
    outside, worst, where = 0, 0.0, 0
    for i, (bottom, top) in enumerate(zip(low.tolist(), high.tolist())):
        values = action[:, i].astype(np.float64)
        excess = np.maximum(bottom - values, values - top)
        outside += int((excess > ROUNDING * max(top - bottom, abs(top), 1e-30)).sum())
        row = int(np.argmax(excess))
        if excess[row] > worst:
            worst, where, value, allowed = float(excess[row]), row, float(values[row]), (i, bottom, top)
    if outside:
        i, bottom, top = allowed
        raise Refused(
            f"actions must lie within their bounds, got {outside:,} numbers outside; the largest is {value:g} in row "
            f"{where:,}, where action {i} must be from {bottom:g} to {top:g}"
        )


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:,.3g} MB"
