"""Describes a data set in five lines: what it is, and what is suspicious about it."""

import numpy as np

from mbpo_jax.data_sets.data_set import DataSet, episode_bounds, episode_returns

SUSPICIOUS_DUPLICATES = 0.01  # share of rows
SUSPICIOUS_AT_BOUNDS = 0.5  # share of numbers in actions
SUSPICIOUS_SIZE = 1e6  # of an observation or reward: an odd unit, or a fault of the recording
AT_BOUND = 1.0 - 1e-6
MOST_NAMED = 10  # dimensions in one line


def describe(data_set: DataSet) -> list[str]:
    """Returns five lines: source, episodes, returns, actions and observations, duplicates and what is suspicious."""
    duplicates = duplicate_share(data_set)
    return [
        _source(data_set),
        _episodes(data_set),
        _returns(data_set),
        _numbers(data_set),
        f"duplicates: {duplicates:.2%} of rows; sha256 {data_set.sha256[:12]}; {_suspicious(data_set, duplicates)}",
    ]


def duplicate_share(data_set: DataSet) -> float:
    """Returns the share of rows that equal an earlier one bit for bit, in observation, action, reward and successor."""
    sums = np.zeros(len(data_set.reward), np.uint64)
    factors = np.random.default_rng(0)
    for values in (data_set.obs, data_set.action, data_set.reward[:, None], data_set.next_obs):
        bits = np.ascontiguousarray(values).view(np.uint32)
        for column in bits.T:  # a random linear hash of 64 bits
            sums += column.astype(np.uint64) * (factors.integers(2**63, dtype=np.uint64) * np.uint64(2) + np.uint64(1))
    return 1.0 - len(np.unique(sums)) / len(sums)


def constant_dimensions(values: np.ndarray) -> list[int]:
    """Returns the columns of [N, D] that are constant."""
    return [int(i) for i in np.flatnonzero(values.min(axis=0) == values.max(axis=0))]


def _source(data_set: DataSet) -> str:
    env = data_set.env_id or "environment not known"
    sizes = f"{len(data_set.reward):,} rows, {data_set.obs.shape[1]} observations, {data_set.action.shape[1]} actions"
    return f"data set: {data_set.name} ({data_set.kind}, {env}): {sizes}"


def _episodes(data_set: DataSet) -> str:
    starts, stops = episode_bounds(data_set)
    lengths = stops - starts
    terminal, truncated = int(data_set.terminal.sum()), int(data_set.truncated.sum())
    return (
        f"episodes: {len(starts):,}, {terminal:,} ended by a terminal, {truncated:,} otherwise; "
        f"{lengths.min():,} to {lengths.max():,} rows, mean {lengths.mean():,.1f}"
    )


def _returns(data_set: DataSet) -> str:
    returns, whole = episode_returns(data_set)
    rewards = f"rewards from {data_set.reward.min():.4g} to {data_set.reward.max():.4g}"
    if not whole.any():
        return f"returns: no whole episode; {rewards}"
    of_whole = returns[whole]
    spread = f"mean {of_whole.mean():.2f}, from {of_whole.min():.2f} to {of_whole.max():.2f}"
    return f"returns: {spread} over {whole.sum():,} whole episodes; {rewards}"


def _numbers(data_set: DataSet) -> str:
    low, high = data_set.action_low.min(), data_set.action_high.max()
    constant = constant_dimensions(data_set.obs)
    stds = data_set.obs.std(axis=0, dtype=np.float64)
    return (
        f"actions: bounds {low:g} to {high:g}, {_share_at_bounds(data_set):.1%} at a bound; observations: sd "
        f"{stds.min():.3g} to {stds.max():.3g}, {_named(constant) or 'none'} constant"
    )


def _share_at_bounds(data_set: DataSet) -> float:
    return float((np.abs(data_set.action) >= AT_BOUND).mean())


def _suspicious(data_set: DataSet, duplicates: float) -> str:
    """Returns what a user should look at, and what reading left out."""
    largest = max(float(np.abs(values).max()) for values in (data_set.obs, data_set.next_obs, data_set.reward))
    found = {
        f"{duplicates:.1%} of rows are duplicates": duplicates > SUSPICIOUS_DUPLICATES,
        "one episode only": len(episode_bounds(data_set)[0]) == 1,
        "all rewards are equal": data_set.reward.min() == data_set.reward.max(),
        f"action {_named(constant_dimensions(data_set.action))} is constant": bool(
            constant_dimensions(data_set.action)
        ),
        "most numbers in actions are at a bound": _share_at_bounds(data_set) > SUSPICIOUS_AT_BOUNDS,
        f"numbers as large as {largest:.3g}": largest > SUSPICIOUS_SIZE,
    }
    lines = [text for text, holds in found.items() if holds] + list(data_set.notes)
    return "; ".join(lines) or "nothing suspicious"


def _named(dimensions: list[int]) -> str:
    shown = ", ".join(map(str, dimensions[:MOST_NAMED]))
    return shown + (f" and {len(dimensions) - MOST_NAMED} more" if len(dimensions) > MOST_NAMED else "")
