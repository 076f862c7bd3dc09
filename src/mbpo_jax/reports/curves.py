"""Draws the learning curves of a run from its metrics.

Uses matplotlib's objects rather than pyplot: no global state, no display. matplotlib is imported only when something is
drawn: importing it takes a fifth of the time that a training takes to start, and most commands draw nothing.
"""

import contextlib
import csv
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mbpo_jax.driver.storage import files, metrics
from mbpo_jax.reports import learning_curves, pictures, plain_json, unevaluated
from mbpo_jax.reports.plain_json import within

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FILE_NAME = "curves.png"
MAX_NAMED_SEEDS = 8  # with more, one legend entry per seed would hide the curves
REFERENCE_POINTS = 201  # of the grid on which published seeds, sampled at different steps, are averaged

Curve = dict[int, float]  # environment step -> evaluation return


def draw_curves(run_dir: str | os.PathLike[str], reference: Path | None = None, output: Path | None = None) -> Path:
    """Draws the evaluation returns of a run; returns the path of the image.

    Args:
      run_dir: directory of a run, with `metrics.jsonl`; `config.json` gives the title if it can be read.
      reference: published curves to compare with, a CSV file with the columns step,time,reward,seed.
      output: path of the image, replaced atomically; `<run_dir>/curves.png` by default.
    Raises:
      ValueError: there is no `metrics.jsonl`, or it or the reference is damaged; names the file.
    """
    figure = curves_figure(run_dir, reference)
    return pictures.save(figure, Path(run_dir) / FILE_NAME if output is None else output)


def curves_figure(run_dir: str | os.PathLike[str], reference: Path | None = None) -> "Figure":
    """Returns the figure that `draw_curves` saves: a line for each seed, their mean, and the reference.

    A run without evaluations shows what else is known, see `unevaluated`.
    """
    from matplotlib.figure import Figure

    run_dir = Path(run_dir)
    curves = _read_curves(run_dir / metrics.FILE_NAME)
    config = _config(run_dir)
    title, unit = _title_and_unit(config, run_dir)
    run = config.get("run")
    if not curves and (within(run, "dataset") or within(run, "eval_episodes") == 0):
        if reference is not None:
            raise ValueError(f"reference is compared with returns, and {run_dir} has none, got '{reference}'")
        return unevaluated.figure(metrics.read(run_dir / metrics.FILE_NAME), title, unit)
    figure = Figure(figsize=(8.0, 5.0), layout="constrained")
    axes = figure.add_subplot()
    axes.set(title=title, xlabel=unit, ylabel="evaluation return")
    axes.grid(visible=True, alpha=0.3)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    last_step = max((step for curve in curves.values() for step in curve), default=None)
    if reference is not None:
        _draw_reference(axes, reference, math.inf if last_step is None else last_step)
    _draw_run(axes, curves)
    if not curves:
        axes.text(0.5, 0.5, "no evaluations", ha="center", va="center", transform=axes.transAxes)
    if last_step:
        axes.set_xlim(0, 1.02 * last_step)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best")
    return figure


def _draw_run(axes: "Axes", curves: Mapping[int, Curve]) -> None:
    for index, (seed, curve) in enumerate(sorted(curves.items())):
        label: str | None = f"seed {seed}"
        if len(curves) > MAX_NAMED_SEEDS:
            label = None if index else f"{len(curves)} seeds"
        alpha = 0.45 if len(curves) > 1 else 1.0
        steps = sorted(curve)
        axes.plot(steps, [curve[step] for step in steps], marker=".", label=label, alpha=alpha, linewidth=1.2)
    if len(curves) > 1:
        steps = sorted(set.intersection(*(set(curve) for curve in curves.values())))
        with np.errstate(invalid="ignore"):  # a seed that diverged leaves a gap in the mean
            means = [float(np.mean([curve[step] for curve in curves.values()])) for step in steps]
        axes.plot(steps, means, color="black", linewidth=2.2, marker=".", label=f"mean of {len(curves)} seeds")


def _draw_reference(axes: "Axes", path: Path, last_step: float) -> None:
    """Draws mean and one standard deviation of the published seeds, over the steps that all of them cover."""
    curves = [np.array(sorted(curve.items())).T for curve in _read_reference(path).values()]
    first = max(steps[0] for steps, _ in curves)
    last = min([last_step, *(steps[-1] for steps, _ in curves)])
    if last <= first:
        return
    grid = np.linspace(first, last, REFERENCE_POINTS)
    returns = np.stack([np.interp(grid, steps, values) for steps, values in curves])
    mean, std = returns.mean(axis=0), returns.std(axis=0)
    label = f"published ({path.stem}): mean of {len(curves)} seeds, ±1 sd"
    axes.plot(grid, mean, color="tab:gray", linestyle="--", linewidth=1.8, label=label)
    axes.fill_between(grid, mean - std, mean + std, color="tab:gray", alpha=0.2, linewidth=0.0)


def _read_curves(path: Path) -> dict[int, Curve]:
    found = learning_curves.read_evaluations(path)
    return {seed: {step: one.return_mean for step, one in evaluations.items()} for seed, evaluations in found.items()}


def _read_reference(path: Path) -> dict[float, dict[float, float]]:
    curves: dict[float, dict[float, float]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            for row in rows:
                step, reward, seed = (_finite(row[name]) for name in ("step", "reward", "seed"))
                curves.setdefault(seed, {})[step] = reward
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise ValueError(f"{path}, line {rows.line_num}: expected numbers for step, reward and seed") from error
    if not curves:
        raise ValueError(f"{path} holds no curve")
    return curves


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _config(run_dir: Path) -> dict[str, Any]:
    """Returns what `config.json` holds; nothing if it cannot be read."""
    with contextlib.suppress(ValueError):
        return plain_json.read(run_dir / files.CONFIG)
    return {}


def _title_and_unit(config: dict[str, Any], run_dir: Path) -> tuple[str, str]:
    """Returns '<algorithm> on <env>', or the directory's name if the configuration lacks one, and the unit of steps."""
    places = (config.get("run"), config)
    algorithm, env = (_first_text(within(place, key) for place in places) for key in ("algorithm", "env"))
    is_offline = bool(within(config.get("run"), "dataset"))
    title = f"{algorithm} on {env}" if algorithm and env else run_dir.resolve().name
    return title, "updates of the agent" if is_offline else "environment steps"


def _first_text(values: Iterable[Any]) -> str | None:
    return next((value for value in values if isinstance(value, str)), None)
