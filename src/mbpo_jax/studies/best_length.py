"""Evaluates the theory: the best rollout length, and the penalty of other lengths.

References: Janner et al. 2019 (MBPO), Theorem A.2.
"""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from mbpo_jax import theory
from mbpo_jax.studies.finding import Finding

CELLS_PER_DECADE = 20
MODEL_ERROR_DECADES = 4  # 1e-4 ... 1
POLICY_SHIFT_DECADES = 3  # 1e-3 ... 1
SHIFT = 0.05  # policy shift of the right-hand panel
MODEL_ERRORS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06)  # its model errors; the last exceeds SHIFT
HORIZONS = 4  # the right-hand panel ends at this many times 1 / (1 - discount)
CURVE_POINTS = 400


def study(discount: float = 0.99) -> Finding:
    """Finds the best lengths over model error and policy shift; needs no run.

    Args:
      discount: per environment step, in (0, 1).
    Raises:
      ValueError: the discount is outside its range.
    """
    figure = best_length_figure(discount)
    best = {
        f"{error:g}": theory.best_length(
            model_error=error, policy_shift=SHIFT, discount=discount, longest=round(HORIZONS / (1.0 - discount))
        )
        for error in MODEL_ERRORS
    }
    lengths = ", ".join(f"{length} at {error}" for error, length in best.items())
    sentence = f"Discount {discount:g}, policy shift {SHIFT:g}: the best rollout length by model error is {lengths}."
    numbers = {"discount": discount, "policy_shift": SHIFT, "best_length_by_model_error": best}
    return Finding(sentence, numbers, figure)


def best_length_figure(discount: float) -> Figure:
    """Draws a map of the best lengths, and the penalty against the length."""
    figure = Figure(figsize=(11.0, 4.6), layout="constrained")
    lengths, penalties = figure.subplots(1, 2)
    _draw_lengths(lengths, discount)
    _draw_penalties(penalties, discount)
    return figure


def best_lengths(discount: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns model errors [E] and policy shifts [S], both increasing to 1, and the best length [E, S] of each pair."""
    errors, shifts = (
        10.0 ** (np.arange(-decades * CELLS_PER_DECADE, 1) / CELLS_PER_DECADE)
        for decades in (MODEL_ERROR_DECADES, POLICY_SHIFT_DECADES)
    )
    longest = math.ceil(-MODEL_ERROR_DECADES / math.log10(discount)) if 0.0 < discount < 1.0 else 0
    lengths = [
        [
            theory.best_length(model_error=error, policy_shift=shift, discount=discount, longest=longest)
            for shift in shifts.tolist()
        ]
        for error in errors.tolist()
    ]
    return errors, shifts, np.array(lengths)


def _draw_lengths(axes: Axes, discount: float) -> None:
    errors, shifts, lengths = best_lengths(discount)
    axes.set(
        xscale="log", yscale="log", xlabel="policy shift (total variation)", ylabel="model error (total variation)"
    )
    axes.set_title(f"best rollout length, discount {discount:g}")
    axes.set_facecolor("lightgray")  # shows where the length is 0
    shown = np.ma.masked_equal(lengths, 0)
    least = 10 ** math.floor(math.log10(shown.min()))
    norm = LogNorm(least, max(shown.max(), least + 1))
    mesh = axes.pcolormesh(_edges(shifts), _edges(errors), shown, norm=norm, cmap="viridis")
    axes.figure.colorbar(mesh, ax=axes, label="steps in the model")
    axes.plot(shifts, shifts, color="black", linestyle="--", linewidth=1.2)  # model error = policy shift
    axes.text(0.3, 0.85, "length 0:\nthe model does not help", ha="center", va="center", transform=axes.transAxes)


def _draw_penalties(axes: Axes, discount: float) -> None:
    """Draws penalties against the length, relative to the penalty without a model; a dot marks the minimum."""
    end = round(HORIZONS / (1.0 - discount))
    grid = np.unique(np.linspace(0, end, CURVE_POINTS).astype(int)).tolist()
    for error in MODEL_ERRORS:
        best = theory.best_length(model_error=error, policy_shift=SHIFT, discount=discount, longest=end)
        (line,) = axes.plot(grid, [_relative_penalty(error, k, discount) for k in grid], label=f"{error:g}")
        axes.plot([best], [_relative_penalty(error, best, discount)], marker="o", color=line.get_color(), clip_on=False)
    axes.set(xlabel="rollout length", ylabel="penalty / penalty at length 0", xlim=(0, end), ylim=(0.0, 2.0))
    axes.set_title(f"penalty at policy shift {SHIFT:g}")
    axes.axhline(1.0, color="gray", linewidth=0.8)
    axes.grid(visible=True, alpha=0.3)
    axes.legend(title="model error", loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _relative_penalty(model_error: float, rollout_length: int, discount: float) -> float:
    with_model, without = (
        theory.branched_penalty(model_error=model_error, policy_shift=SHIFT, rollout_length=k, discount=discount)
        for k in (rollout_length, 0)
    )
    return with_model / without


def _edges(centres: np.ndarray) -> np.ndarray:
    """Returns the edges [N + 1] of cells around centres [N] that are evenly spaced on a log axis."""
    half = 10.0 ** (0.5 / CELLS_PER_DECADE)
    return np.append(centres / half, centres[-1] * half)
