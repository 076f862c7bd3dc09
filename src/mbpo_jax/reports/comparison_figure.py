"""Draws a comparison: a panel for each environment, its experiments in front of the published band."""

import bisect
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mbpo_jax.reports import pictures, published, statistics
from mbpo_jax.reports.comparison import Experiment, data_of
from mbpo_jax.reports.learning_curves import LearningCurve

WINDOW_STEPS = 10_000  # as in the published rows of MBPO
MOST_COLUMNS = 3
NUM_RESAMPLES = 2_000  # one interval for each step
MOST_BANDS = 6  # experiments in a panel; with more, their bands would hide each other
PANEL_INCHES = (5.4, 4.0)
LEGEND_INCHES = 0.2  # height of each further experiment in the legend
CAPTION_COLUMNS = 85  # characters that fit below a panel
CAPTION = (
    f"Where MBPO is published, thick lines are means over the last {WINDOW_STEPS:,} steps, as the published one is.\n"
    "Thin lines: single evaluations of a seed. Coloured bands: 95 % bootstrap intervals of the mean over seeds.\n"
    "Dotted lines: a seed alone, where not every seed has run as far."
)


class MeanLine(NamedTuple):
    """Mean over seeds at T steps; [T] each."""

    steps: list[int]
    mean: statistics.Floats  # over seeds
    interval: tuple[statistics.Floats, statistics.Floats] | None  # of that mean, 95 %; None: one seed


def draw(experiments: Sequence[Experiment], path: Path) -> None:
    """Writes the figure of a comparison, whole or not at all."""
    pictures.save(figure(experiments), path)


def figure(experiments: Sequence[Experiment]) -> Figure:
    """Returns a figure with a panel for each environment, in the order of the experiments."""
    tasks = list(dict.fromkeys(experiment.task for experiment in experiments))
    columns = min(MOST_COLUMNS, len(tasks))
    rows = math.ceil(len(tasks) / columns)
    counts = [sum(experiment.task == task for experiment in experiments) for task in tasks]
    height = PANEL_INCHES[1] + LEGEND_INCHES * max(max(counts) - MOST_BANDS, 0)
    drawn = Figure(figsize=(columns * PANEL_INCHES[0], rows * height), layout="constrained")
    for index, task in enumerate(tasks):
        axes = drawn.add_subplot(rows, columns, index + 1)
        _draw_panel(axes, task, [experiment for experiment in experiments if experiment.task == task])
    wrapped = [textwrap.fill(line, columns * CAPTION_COLUMNS) for line in CAPTION.splitlines()]
    drawn.supxlabel("\n".join(wrapped), fontsize="small")
    return drawn


def mean_line(curves: Sequence[LearningCurve], window_steps: int | None) -> MeanLine:
    """Returns mean and interval over seeds, at the steps where every seed was evaluated.

    Args:
      window_steps: steps over which a seed's evaluations are averaged, without exploration; None: not averaged.
    """
    steps = sorted(set.intersection(*(set(curve.steps) for curve in curves)))
    if window_steps is not None:
        steps = [step for step in steps if step > statistics.EXPLORATION_STEPS]
    columns = [[_value(curve, step, window_steps) for step in steps] for curve in curves]
    values = np.array(columns, dtype=np.float64).reshape(len(curves), len(steps))
    interval = statistics.bootstrap_interval([values], statistics.mean, NUM_RESAMPLES)
    return MeanLine(steps, values.mean(axis=0), interval)


def _value(curve: LearningCurve, step: int, window_steps: int | None) -> float:
    if window_steps is None:
        return curve.returns[curve.steps.index(step)]
    value = statistics.value_at(curve.steps, curve.returns, step, window_steps)
    assert value is not None  # there is an evaluation at the step itself
    return value


def _draw_panel(axes: Axes, task: str, experiments: Sequence[Experiment]) -> None:
    env, is_offline = experiments[0].env, bool(experiments[0].dataset)
    compared = any(published.MBPO in published.names_for(experiment.algorithm) for experiment in experiments)
    known = published.comparable(published.MBPO, env) if compared else ()
    steps = "updates of the agent" if is_offline else "environment steps"
    axes.set(title=task, xlabel=steps, ylabel="evaluation return")
    axes.grid(visible=True, alpha=0.3)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    last_step = max(experiment.last_step for experiment in experiments)
    data_return = data_of(experiments).get("dataset_return_mean")
    if data_return is not None:
        label = "data set: mean episode return"
        axes.axhline(data_return, color="tab:gray", linestyle="--", linewidth=1.4, label=label)
    _draw_published(axes, [row for row in known if not last_step or row.step <= last_step])
    for index, experiment in enumerate(experiments):
        if experiment.curves:
            window_steps = WINDOW_STEPS if known else None
            _draw_experiment(axes, experiment, f"C{index}", window_steps, len(experiments) <= MOST_BANDS)
    if not last_step:
        axes.text(0.5, 0.5, "no evaluations yet", ha="center", va="center", transform=axes.transAxes)
    axes.set_xlim(0, 1.02 * last_step if last_step else None)
    if axes.get_legend_handles_labels()[0]:
        below = (0.5, 0.0)  # plus four font heights of padding, below the label of the axis
        axes.legend(loc="upper center", bbox_to_anchor=below, borderaxespad=4.0, fontsize="small", frameon=False)


def _draw_published(axes: Axes, rows: Sequence[published.PublishedRow]) -> None:
    if not rows:
        return
    steps, mean, std = np.array([(row.step, row.return_mean, row.return_std) for row in rows], np.float64).T
    label = f"published {published.MBPO}: mean of {rows[0].num_seeds} seeds, ±1 sd"
    axes.plot(steps, mean, color="tab:gray", linestyle="--", marker="o", markersize=3, linewidth=1.4, label=label)
    axes.fill_between(steps, mean - std, mean + std, color="tab:gray", alpha=0.2, linewidth=0.0)


def _draw_experiment(
    axes: Axes, experiment: Experiment, colour: str, window_steps: int | None, with_band: bool
) -> None:
    """Draws every evaluation (thin) and the mean over seeds (thick) with its 95 % bootstrap interval (band).

    Where the mean ends, dotted lines continue for each seed that ran further.
    """
    for curve in experiment.curves:
        axes.plot(curve.steps, curve.returns, color=colour, alpha=0.35, linewidth=0.7, label=f"_seed {curve.seed}")
    line = mean_line(experiment.curves, window_steps)
    label = f"{experiment.name}: one seed"
    if line.interval is not None:
        label = f"{experiment.name}: mean of {len(experiment.curves)} seeds"
        if with_band:
            label += ", 95 % interval"
            axes.fill_between(line.steps, *line.interval, color=colour, alpha=0.25, linewidth=0.0)
    axes.plot(line.steps, line.mean, color=colour, linewidth=2.0, label=label)
    for curve in experiment.curves:
        if curve.last_step > experiment.common_step:
            steps, alone, _ = mean_line([curve], window_steps)
            first = bisect.bisect_left(steps, experiment.common_step)
            axes.plot(
                steps[first:],
                alone[first:],
                color=colour,
                linestyle=":",
                linewidth=2.0,
                label=f"_seed {curve.seed} alone",
            )
