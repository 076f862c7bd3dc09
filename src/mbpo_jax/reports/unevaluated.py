"""What a run knows without an evaluation: model errors, penalties, values and, online, the returns of training."""

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbpo_jax.driver.storage import metrics
from mbpo_jax.number_text import short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOT_EVALUATED = "not evaluated"
TRAINING = "train/return_mean"
MAX_NAMED_SEEDS = 8  # with more, a legend would hide the panel
VALUES = {
    TRAINING: "mean return of the newest training episodes",
    "fit_model/holdout_mse_elite_mean": "the model's held-out error",
    "roll_out/penalty_mean": "penalty of the policy's actions",
    "roll_out/data_penalty_mean": "penalty of the data's actions",
    "eval/start_value_mean": "critics' value at the data's first states",
    "update_agent/actor_loss": "the actor's loss",
}
"""Label of each metric that is shown. All but the first are no returns, and a critic that is wrong is often high."""

Curve = dict[int, float]  # step -> value; offline, a step is an update of the agent


def curves(lines: Iterable[Mapping[str, Any]]) -> dict[str, dict[int, Curve]]:
    """Returns, by metric and seed, the curve of each metric of `VALUES` that a run has reported.

    Raises:
      ValueError: one of them is not a number.
    """
    found: dict[str, dict[int, Curve]] = {}
    for line in lines:
        for name in VALUES:
            if name in line:
                if not isinstance(line[name], float):
                    raise ValueError(f"metrics are damaged: {name} must be a number, got {line[name]!r}")
                found.setdefault(name, {}).setdefault(line["seed"], {})[line["step"]] = line[name]
    return {name: found[name] for name in VALUES if name in found}


def last(lines: Iterable[Mapping[str, Any]]) -> dict[int, dict[str, float]]:
    """Returns, by seed, the newest value of each metric of `VALUES` that a run has reported."""
    newest: dict[int, dict[str, float]] = {}
    for name, by_seed in curves(lines).items():
        for seed, curve in by_seed.items():
            newest.setdefault(seed, {})[name] = curve[max(curve)]
    return newest


def add_to(summary: dict[str, Any], run_dir: Path) -> None:
    """Adds the newest values of each seed to a run's summary, unless its metrics cannot be read, as the curves say."""
    with contextlib.suppress(ValueError, OSError):
        for seed, values in last(metrics.read(run_dir / metrics.FILE_NAME)).items():
            summary["seeds"][str(seed)]["last"] = values


def in_words(values: Mapping[str, float]) -> str:
    """Returns a line for the terminal about the newest values of a seed."""
    return "; ".join([*(f"{VALUES[name]} {short(value)}" for name, value in values.items()), _remark(values)])


def _remark(values: Iterable[str]) -> str:
    """Returns what to say about returns where the metrics of these names are known."""
    return NOT_EVALUATED if TRAINING in values else f"returns are unknown: {NOT_EVALUATED}"


def figure(lines: Iterable[Mapping[str, Any]], title: str, unit: str) -> "Figure":
    """Returns a figure with a panel for each metric and a line in it for each seed."""
    from matplotlib.figure import Figure

    found = curves(lines)
    drawn = Figure(figsize=(8.0, 1.0 + 2.0 * max(len(found), 1)), layout="constrained")
    drawn.suptitle(f"{title} ({_remark(found)})")
    panels = drawn.subplots(max(len(found), 1), 1, sharex=True, squeeze=False)[:, 0]
    seeds = sorted({seed for by_seed in found.values() for seed in by_seed})
    for axes, (name, by_seed) in zip(panels, found.items()):
        axes.set_title(VALUES[name], fontsize="medium")
        axes.grid(visible=True, alpha=0.3)
        for index, seed in enumerate(seeds):
            steps = sorted(by_seed.get(seed, {}))
            values = [by_seed[seed][step] for step in steps]
            axes.plot(steps, values, marker=".", color=f"C{index % 10}", label=f"seed {seed}")
    panels[-1].set_xlabel(unit)
    panels[-1].xaxis.set_major_formatter("{x:,.0f}")
    if not found:
        panels[0].text(0.5, 0.5, "nothing reported yet", ha="center", va="center", transform=panels[0].transAxes)
    if 1 < len(seeds) <= MAX_NAMED_SEEDS:
        panels[0].legend(loc="best", ncols=2, fontsize="small")
    return drawn
