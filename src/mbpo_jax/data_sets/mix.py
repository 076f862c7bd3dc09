"""Joins data sets of one environment."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mbpo_jax.data_sets import read as reading
from mbpo_jax.data_sets.data_set import COLUMNS, DataSet, episode_bounds, episode_returns, return_mean


def mixed(names: Sequence[str]) -> tuple[DataSet, dict[str, Any]]:
    """Concatenates data sets; the first row of each begins an episode."""
    parts = [_with_unknown_returns(reading.read(name)) for name in names]
    one = parts[0]
    for other in parts[1:]:
        for what, mine, theirs in (
            ("observations", one.obs.shape[1:], other.obs.shape[1:]),
            ("action bounds", one.action_low.tolist(), other.action_low.tolist()),
            ("action bounds", one.action_high.tolist(), other.action_high.tolist()),
            ("environments", one.env_id, other.env_id),
        ):
            if mine != theirs:
                raise ValueError(f"--mix must name data sets of one environment, got the {what} {mine} and {theirs}")
    columns: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS}
    columns["first"][np.cumsum([0, *(len(part.reward) for part in parts[:-1])])] = True
    notes = tuple(f"{part.name}: {note}" for part in parts for note in part.notes)
    lost = int(np.sum(np.abs(columns["left_out_reward"]) > 0))
    if lost:
        notes += (f"{lost:,} episodes lose their last reward, of a step without successor; policy_return_mean has it",)
    limit = max(part.max_episode_steps for part in parts)
    joined = one._replace(**columns, kind="mixture", max_episode_steps=limit, sha256="", notes=notes)
    sources = [
        {"name": part.name, "rows": len(part.reward), "sha256": part.sha256, "return_mean": return_mean(part)[0]}
        for part in parts
    ]
    return joined, {"policy": "mixture", "algorithm": "mixture", "sources": sources}


def _with_unknown_returns(part: DataSet) -> DataSet:
    """Marks the episodes that are not whole, which shows at the ends of a data set only."""
    unknown = part.left_out_reward.copy()
    unknown[episode_bounds(part)[0][~episode_returns(part)[1]]] = np.nan
    return part._replace(left_out_reward=unknown)
