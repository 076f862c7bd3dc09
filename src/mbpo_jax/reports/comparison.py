"""Compares our runs with published ones: a row of numbers for each experiment and step."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mbpo_jax.reports import published, statistics
from mbpo_jax.reports.learning_curves import LearningCurve
from mbpo_jax.reports.plain_json import plain
from mbpo_jax.reports.published import PublishedRow
from mbpo_jax.reports.scores import Reference, normalised

MILESTONES = (
    *(25_000, 50_000, 75_000, 100_000, 125_000, 150_000, 200_000, 250_000, 300_000, 400_000, 500_000),
    *(1_000_000, 2_000_000, 3_000_000),
)
"""Published steps that get a row, in addition to those where our runs end."""
LAST_TENTH = "last tenth"
NOT_PUBLISHED = "not published"


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The curves of a flagfile's seeds."""

    name: str
    flagfile: str
    algorithm: str
    env: str
    curves: tuple[LearningCurve, ...]  # by seed
    missing_seeds: tuple[int, ...] = ()  # requested but without a curve
    as_published: bool = False  # MBPO with the published settings, not an ablation
    until_step: int | None = None  # later evaluations are not reported; None: all are
    dataset: str = ""  # name of what it learnt from; empty: the environment

    @property
    def task(self) -> str:
        """Returns the task within which it is compared: its environment and, offline, its data set."""
        return f"{self.env}, {self.dataset}" if self.dataset else self.env

    @property
    def last_step(self) -> int:
        """Returns the last step of the longest curve; 0 without curves."""
        return max((curve.last_step for curve in self.curves), default=0)

    @property
    def common_step(self) -> int:
        """Returns the last step that all curves reach; 0 without curves."""
        return min((curve.last_step for curve in self.curves), default=0)


@dataclasses.dataclass(frozen=True)
class Row:
    """One experiment at one step; None: not known."""

    experiment: str
    step: int
    window: int | str  # number of steps up to `step` that are averaged, or LAST_TENTH
    values: dict[int, float]  # seed -> return, of the seeds that have one
    mean: float | None
    iqm: float | None
    interval: tuple[float, float] | None  # of the IQM, 95 %
    published: PublishedRow | None
    percentile: float | None  # of our mean in the published distribution
    verdict: str


@dataclasses.dataclass(frozen=True)
class Aggregate:
    """Returns divided by the published mean, over environments."""

    step: int
    values: dict[str, dict[int, float]]  # experiment -> seed -> normalised return
    iqm: float
    interval: tuple[float, float] | None


def compare(experiment: Experiment) -> list[Row]:
    """Returns the rows of an experiment: milestones that it reached, its end, and the published end if that is later.

    The published end is the last published step within `until_step`.
    """
    if not experiment.curves:
        return []
    everything, until = published.reference(experiment.algorithm, experiment.env), experiment.until_step
    known = [row for row in everything if until is None or row.step <= until]
    reached = [row for row in known if row.step <= experiment.last_step]
    common = [row for row in known if row.step <= experiment.common_step]
    rows = []
    if not reached:
        rows.append(_last_tenth(experiment, bool(everything)))
    for row in reached:
        if row.step in MILESTONES or row == reached[-1] or (common and row == common[-1]):
            rows.append(_beside(experiment, row))
    if known and len(reached) < len(known):
        rows.append(_beside(experiment, known[-1]))
    return rows


def data_of(experiments: Sequence[Experiment]) -> dict[str, Any]:
    """Returns what is known about the data set of experiments of one task; empty: they learnt in the environment.

    Raises:
      ValueError: their curves are of different data.
    """
    every = [curve.dataset for one in experiments for curve in one.curves if curve.dataset]
    digests = sorted({data["dataset_sha256"][:12] for data in every})
    if len(digests) > 1:
        raise ValueError(f"curves of {experiments[0].task} must be of the same data, got SHA-256 {', '.join(digests)}")
    return max(every, key=len, default={})


def score(experiment: Experiment, row: Row, references: Mapping[str, Reference]) -> float | None:
    """Returns the normalised score of a row's mean; None online, and where the environment has no reference."""
    reference = references.get(experiment.env) if experiment.dataset else None
    return None if reference is None or row.mean is None else normalised(row.mean, reference)


def aggregate(experiments: Sequence[Experiment]) -> Aggregate | None:
    """Aggregates MBPO over environments, at the last published step with evaluations of every seed in its window.

    Uses the first experiment of each environment that is MBPO as published.

    Returns:
      None if fewer than two environments are published, or they share no step.
    """
    chosen: dict[str, Experiment] = {}
    for experiment in experiments:
        if experiment.as_published and experiment.curves:
            chosen.setdefault(experiment.env, experiment)
    pairs = [(experiment, published.comparable(published.MBPO, env)) for env, experiment in chosen.items()]
    pairs = [(experiment, rows) for experiment, rows in pairs if rows]
    shared = [{row.step for row in rows if _is_complete(experiment, row)} for experiment, rows in pairs]
    steps = set.intersection(*shared) if len(pairs) > 1 else set()
    if not steps:
        return None
    step, values = max(steps), {}
    for experiment, rows in pairs:
        row = next(row for row in rows if row.step == step)
        found = _values(experiment, row)
        values[experiment.name] = {seed: value / row.return_mean for seed, value in found.items()}
    strata = [list(column.values()) for column in values.values()]
    return Aggregate(step, values, float(statistics.iqm(np.concatenate(strata))), _interval(strata))


def steps_near_best(experiment: Experiment) -> dict[int, tuple[int | None, int | None]] | None:
    """Returns seed -> the steps where it first was near its best, and from where on it stayed there (None: it did not).

    Returns None altogether if returns are published, and offline.
    """
    if experiment.dataset or published.reference(experiment.algorithm, experiment.env):
        return None
    return {curve.seed: statistics.steps_near_best(curve.steps, curve.returns) for curve in experiment.curves}


def _beside(experiment: Experiment, row: PublishedRow) -> Row:
    """Returns an experiment's row at the step, and in the window, of a published row."""
    values = _values(experiment, row)
    assert row.window_steps is not None and row.return_std is not None  # of `comparable`
    if not values:
        none = (None, None, None)
        verdict = statistics.NOT_REACHED if experiment.last_step < row.step else statistics.NO_EVALUATION
        return Row(experiment.name, row.step, row.window_steps, {}, *none, row, None, verdict)
    column = list(values.values())
    mean = float(np.mean(column))
    return Row(
        experiment.name,
        row.step,
        row.window_steps,
        values,
        mean,
        float(statistics.iqm(column)),
        _interval([column]),
        row,
        statistics.percentile(mean, row.return_mean, row.return_std),
        statistics.verdict(mean, row.return_mean, row.return_std),
    )


def _last_tenth(experiment: Experiment, is_published: bool) -> Row:
    """Returns an experiment's row at its end, without a comparison."""
    step = experiment.common_step
    found = {curve.seed: statistics.last_value(curve.steps, curve.returns, step) for curve in experiment.curves}
    values = {seed: value for seed, value in found.items() if value is not None}  # not empty: one curve ends there
    column = list(values.values())
    return Row(
        experiment.name,
        step,
        LAST_TENTH,
        values,
        float(np.mean(column)),
        float(statistics.iqm(column)),
        _interval([column]),
        None,
        None,
        statistics.NOT_REACHED if is_published else NOT_PUBLISHED,
    )


def _values(experiment: Experiment, row: PublishedRow) -> dict[int, float]:
    """Returns seed -> return, of the seeds that reached a row's step and have evaluations in its window."""
    assert row.window_steps is not None
    found = {
        curve.seed: statistics.value_at(curve.steps, curve.returns, row.step, row.window_steps)
        for curve in experiment.curves
    }
    return {seed: value for seed, value in found.items() if value is not None}


def _is_complete(experiment: Experiment, row: PublishedRow) -> bool:
    return len(_values(experiment, row)) == len(experiment.curves)


def _interval(strata: Sequence[Sequence[float]]) -> tuple[float, float] | None:
    interval = statistics.bootstrap_interval(strata)
    return None if interval is None else (float(interval[0]), float(interval[1]))


def to_json(experiments: Sequence[Experiment], references: Mapping[str, Reference]) -> dict[str, Any]:
    """Returns all numbers of the report, as values that strict JSON can hold."""
    whole = aggregate(experiments)
    value = {
        "experiments": [_provenance(experiment) for experiment in experiments],
        "rows": [
            dataclasses.asdict(row) | _plain_published(row) | _plain_score(score(e, row, references))
            for e in experiments
            for row in compare(e)
        ],
        "aggregate": None if whole is None else dataclasses.asdict(whole),
    }
    if references:
        value["score_references"] = {env: reference._asdict() for env, reference in references.items()}
    numbers: dict[str, Any] = plain(value)
    return numbers


def _plain_published(row: Row) -> dict[str, Any]:
    return {"published": None if row.published is None else row.published._asdict()}


def _plain_score(value: float | None) -> dict[str, float]:
    return {} if value is None else {"score": value}


def _provenance(experiment: Experiment) -> dict[str, Any]:
    """Returns everything about an experiment except its evaluations."""
    dropped = ["steps", "returns", "stds", "elapsed", "experiment", "algorithm", "env"]
    dropped += [] if experiment.dataset else ["dataset"]
    curves = [
        {name: item for name, item in dataclasses.asdict(curve).items() if name not in dropped}
        | {"last_step": curve.last_step}
        for curve in experiment.curves
    ]
    return {
        "experiment": experiment.name,
        "flagfile": experiment.flagfile,
        "algorithm": experiment.algorithm,
        "env": experiment.env,
        "curves": curves,
        "missing_seeds": list(experiment.missing_seeds),
        "as_published": experiment.as_published,
        "steps_near_best": steps_near_best(experiment),
    } | ({"dataset": experiment.dataset} if experiment.dataset else {})
