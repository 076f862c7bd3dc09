"""Summarises a few seeds: windowed returns, interquartile means, bootstrap intervals, verdicts on published numbers.

References: Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (interquartile
mean over all runs of all environments; bootstrap that resamples seeds within each environment; percentiles).
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import scipy.stats

Floats = npt.NDArray[np.float64]

EXPLORATION_STEPS = 5_000
"""Windows begin here at the earliest: the published MBPO logs have no evaluations up to this step, except at 0."""
TRIMMED_SHARE = 0.25  # at either end
NUM_RESAMPLES = 10_000
BOOTSTRAP_SEED = 0  # fixed, so that the same runs give the same report
CONFIDENCE = 0.95
SETTLED_SHARE = 0.01  # of a seed's best evaluation
INSIDE, ABOVE, BELOW, NOT_REACHED, NOT_FINITE = "inside", "above", "below", "not reached", "not finite"
NO_EVALUATION = "no evaluation in the window"


def window_mean(steps: Sequence[int], returns: Sequence[float], start: float, stop: float) -> float | None:
    """Returns the mean of the evaluations at steps in (start, stop]; None if there are none."""
    inside = [value for step, value in zip(steps, returns, strict=True) if start < step <= stop]
    return float(np.mean(inside)) if inside else None


def value_at(steps: Sequence[int], returns: Sequence[float], step: int, window_steps: int) -> float | None:
    """Returns a seed's value at a step: the mean over the `window_steps` steps up to it, without exploration.

    None if the seed has not reached the step, or has no evaluation in the window.
    """
    if steps[-1] < step:
        return None
    return window_mean(steps, returns, max(step - window_steps, EXPLORATION_STEPS), step)


def last_value(steps: Sequence[int], returns: Sequence[float], step: int) -> float | None:
    """Returns the mean of the evaluations in the last tenth of the steps up to `step`, or the last one if it has none.

    For runs shorter than a window, and for environments without published returns. None if the first evaluation is
    later than `step`.
    """
    known = [(at, value) for at, value in zip(steps, returns, strict=True) if at <= step]
    inside = [value for at, value in known if 10 * at > 9 * step]
    if not known:
        return None
    return float(np.mean(inside)) if inside else known[-1][1]


def steps_near_best(steps: Sequence[int], returns: Sequence[float]) -> tuple[int | None, int | None]:
    """Returns the first step within 1 % of the best evaluation, and the first from which on every one is.

    The latter is None if the last evaluation is not near the best; both are None without a finite evaluation. One that
    is not finite is neither the best nor near it.
    """
    best = max((value for value in returns if math.isfinite(value)), default=math.nan)
    near = [abs(best - value) <= SETTLED_SHARE * abs(best) for value in returns]  # False for nan
    far = max((index for index, is_near in enumerate(near) if not is_near), default=-1)
    first = steps[near.index(True)] if any(near) else None
    return first, steps[far + 1] if far + 1 < len(steps) else None


def iqm(values: npt.ArrayLike, axis: int | None = None) -> npt.NDArray[np.float64]:
    """Returns the interquartile mean: the mean without the floor(n / 4) values at either end."""
    return np.asarray(scipy.stats.trim_mean(np.asarray(values, dtype=np.float64), TRIMMED_SHARE, axis=axis))


def mean(values: npt.ArrayLike, axis: int | None = None) -> npt.NDArray[np.float64]:
    """Returns the mean, as a statistic for `bootstrap_interval`."""
    return np.asarray(np.mean(np.asarray(values, dtype=np.float64), axis=axis))


def bootstrap_interval(
    strata: Sequence[npt.ArrayLike],
    statistic: Callable[..., npt.NDArray[np.float64]] = iqm,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = BOOTSTRAP_SEED,
) -> tuple[Floats, Floats] | None:
    """Returns the 95 % interval of a statistic over seeds, by percentiles of a stratified bootstrap.

    Args:
      strata: the seeds of each environment, [n_k, ...] each; only n_k may differ.
      statistic: computed over all resampled seeds together, along `axis`.
    Returns:
      Lower and upper end, [...] each; None if no environment has two seeds, as one seed has no spread.
    """
    arrays = [np.asarray(stratum, dtype=np.float64) for stratum in strata]
    if all(len(array) < 2 for array in arrays):
        return None
    generator = np.random.default_rng(seed)
    chosen = [array[generator.integers(len(array), size=(num_resamples, len(array)))] for array in arrays]
    estimates = statistic(np.concatenate(chosen, axis=1), axis=1)
    tail = 50.0 * (1.0 - CONFIDENCE)
    low, high = np.percentile(estimates, [tail, 100.0 - tail], axis=0)
    return low, high


def sample_std(values: Sequence[float]) -> float | None:
    """Returns the standard deviation of a sample, with n - 1; None for fewer than two values."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def t_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Returns the 95 % interval of the mean by Student's t; None for fewer than two values."""
    std = sample_std(values)
    if std is None:
        return None
    half = float(scipy.stats.t.ppf(0.5 * (1.0 + CONFIDENCE), len(values) - 1)) * std / math.sqrt(len(values))
    return float(np.mean(values)) - half, float(np.mean(values)) + half


def percentile(value: float, published_mean: float, published_std: float) -> float:
    """Returns the percentile of a value in a normal distribution, 0 to 100; 0, 50 or 100 if it has no spread."""
    if published_std == 0.0:
        return 50.0 * (1.0 + float(np.sign(value - published_mean)))
    return 100.0 * float(scipy.stats.norm.cdf(value, published_mean, published_std))


def verdict(value: float, published_mean: float, published_std: float) -> str:
    """Returns whether a mean lies inside, above or below one published standard deviation of the published mean."""
    if not math.isfinite(value):
        return NOT_FINITE
    if abs(value - published_mean) <= published_std:
        return INSIDE
    return ABOVE if value > published_mean else BELOW
