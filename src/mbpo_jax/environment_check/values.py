"""Checks the numbers that an environment returned: observations and rewards."""

import numpy as np
from gymnasium.spaces import Box, Discrete

from mbpo_jax.environment_check.finding import Finding, note, numbers, problem
from mbpo_jax.environment_check.playing import Trace

CONSTANT = 1e-12  # share of a number's size: smaller variation is rounding
LOST = 0.01  # share of a number's spread that may be lost by keeping it in float32
OUTSIDE = 1e-6  # share of a bound: a float64 number may exceed a float32 bound by its rounding
HUGE_OBS = 1e4
HUGE_REWARD, TINY_REWARD = 1e4, 1e-4  # root of the mean square
MOST_FLOAT32 = float(np.finfo(np.float32).max)


def check_observations(space: Box | Discrete, trace: Trace) -> list[Finding]:
    """Checks the observations of a trace; returns the findings."""
    if isinstance(space, Discrete):
        return _check_states(space, trace)
    obs = np.concatenate([trace.obs, trace.next_obs])
    finite = np.isfinite(obs)
    if not finite.all():
        dims = np.flatnonzero(~finite.all(axis=0)).tolist()
        rows = int((~np.isfinite(trace.next_obs).all(axis=1)).sum())
        return [
            problem(
                f"observations {numbers(dims)} are not finite in {rows:,} of {len(trace):,} steps", "make them finite"
            )
        ]
    found = []
    if dims := np.flatnonzero((np.abs(obs) > MOST_FLOAT32).any(axis=0)).tolist():
        return [problem(f"observations {numbers(dims)} exceed float32, in which runs store them", "scale them")]
    spread, size = np.ptp(obs, axis=0), np.abs(obs).max(axis=0)
    constant = spread <= CONSTANT * size
    rounding = np.abs(obs - obs.astype(np.float32)).max(axis=0)
    if dims := np.flatnonzero(~constant & (rounding > LOST * spread)).tolist():
        found.append(
            problem(
                f"observations {numbers(dims)} vary by less than float32, in which runs store them, can resolve",
                "subtract the part that does not change",
            )
        )
    if constant.all():
        found.append(problem("no observation ever changes", "return something that actions change"))
    elif dims := np.flatnonzero(constant).tolist():
        found.append(note(f"observations {numbers(dims)} never change; this does no harm"))
    if dims := np.flatnonzero(size > HUGE_OBS).tolist():
        found.append(
            problem(
                f"observations {numbers(dims)} are as large as {size.max():.2g}",
                "scale them: models scale their inputs themselves, agents see them as they are",
            )
        )
    return found + _equal_columns(obs, constant) + _outside(space, obs) + _dtypes(space, trace)


def _check_states(space: Discrete, trace: Trace) -> list[Finding]:
    states = np.unique(np.concatenate([trace.obs, trace.next_obs]))
    outside = [number for number in states.tolist() if not (number.is_integer() and space.contains(int(number)))]
    if outside:
        return [
            problem(f"observations leave their space, {space} ({outside[0]:g})", "return only numbers of the space")
        ]
    return [] if states.size > 1 else [problem("no observation ever changes", "return something that actions change")]


def _equal_columns(obs: np.ndarray, constant: np.ndarray) -> list[Finding]:
    first: dict[bytes, int] = {}
    twins = []
    for index in np.flatnonzero(~constant).tolist():
        column = obs[:, index].tobytes()
        if column in first:
            twins.append(f"{index} of {first[column]}")
        first.setdefault(column, index)
    return [note(f"observations that are copies of others: {', '.join(twins)}")] if twins else []


def _outside(space: Box, obs: np.ndarray) -> list[Finding]:
    low, high = (np.asarray(bound, np.float64).reshape(-1) for bound in (space.low, space.high))
    below = low - obs > OUTSIDE * (1.0 + np.abs(low))
    above = obs - high > OUTSIDE * (1.0 + np.abs(high))
    outside = below | above
    if not outside.any():
        return []
    dims = np.flatnonzero(outside.any(axis=0)).tolist()
    worst = dims[0]
    observed = f"observation {worst} was in [{obs[:, worst].min():.4g}, {obs[:, worst].max():.4g}]"
    return [
        problem(
            f"observations {numbers(dims)} leave their space ({observed}, its space is [{low[worst]:.4g}, "
            f"{high[worst]:.4g}])",
            "clip them, or widen the space",
        )
    ]


def _dtypes(space: Box, trace: Trace) -> list[Finding]:
    others = [name for name in trace.dtypes if name != str(space.dtype)]
    if not others:
        return []
    return [note(f"observations are {', '.join(others)} but their space is {space.dtype}; runs store float32")]


def check_rewards(trace: Trace) -> list[Finding]:
    """Checks the rewards of a trace; returns the findings."""
    reward = trace.reward
    if not np.isfinite(reward).all():
        rows = int((~np.isfinite(reward)).sum())
        return [problem(f"rewards are not finite in {rows:,} of {len(trace):,} steps", "make them finite")]
    scale = float(np.sqrt(np.mean(np.square(np.clip(reward, -1e150, 1e150)))))
    if scale > HUGE_REWARD:
        return [
            problem(
                f"rewards are as large as {np.abs(reward).max():.2g}",
                "scale them to about 1 (gymnasium.wrappers.TransformReward); no learning rate makes up for it",
            )
        ]
    if np.ptp(reward) == 0.0:
        return [note(f"every reward was {reward[0]:g}; all that could be learnt from it is when episodes end")]
    if scale < TINY_REWARD:
        return [
            problem(
                f"rewards are as small as {scale:.2g} (root of the mean square)",
                "scale them to about 1 (gymnasium.wrappers.TransformReward)",
            )
        ]
    return []
