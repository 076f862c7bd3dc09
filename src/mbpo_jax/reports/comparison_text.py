"""Writes a comparison as Markdown: a table for each environment, and the origin of every number."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from mbpo_jax import number_text
from mbpo_jax.reports.comparison import (
    LAST_TENTH,
    Aggregate,
    Experiment,
    Row,
    aggregate,
    compare,
    data_of,
    score,
    steps_near_best,
)
from mbpo_jax.reports.learning_curves import LearningCurve
from mbpo_jax.reports.published import PublishedRow
from mbpo_jax.reports.scores import Reference
from mbpo_jax.reports.statistics import EXPLORATION_STEPS

PROTOCOL = f"""\
Each seed's value at a step is the mean of its evaluations in the window of steps that ends there: 10,000 steps unless
stated otherwise, without exploration (the first {EXPLORATION_STEPS:,} steps). Published: mean ± standard deviation over
seeds in the same window; the logs of published MBPO had already been smoothed over 11 evaluations. Where nothing is
published, or a run is shorter than the first published step, the value is the mean over the last tenth of the run. IQM:
mean of the middle half of the seeds, with its 95 % interval in brackets (percentiles of a bootstrap over seeds; none
for one seed). Percentile: where our mean lies in a normal distribution with the published mean and deviation. Verdict:
*inside* means within one published deviation. Every experiment, including ablations, is compared with published MBPO,
except that sac, td3 and double_horizon are compared with published runs of the same algorithm where there are any.
Environments are version 5 unless their name says otherwise; the published ones are older.
"""
COLUMNS = ("experiment", "step", "seeds", "mean", "IQM [95 %]", "each seed", "published", "percentile", "verdict")
SCORE = "score"  # a column after these, offline, where the environment has a reference


def report(experiments: Sequence[Experiment], command: str, picture: str, references: Mapping[str, Reference]) -> str:
    """Returns the text of the report.

    Args:
      command: the command that makes this report again.
      picture: path of the figure, relative to the report's directory.
      references: of normalised scores offline, by environment.
    """
    parts = [
        f"# Reproduction\n\n    {command}\n",
        PROTOCOL,
        f"![Learning curves beside the published ones]({picture})\n",
    ]
    for task in dict.fromkeys(experiment.task for experiment in experiments):
        mine = [experiment for experiment in experiments if experiment.task == task]
        parts.append(_environment(task, mine, references))
    parts.append("## All environments\n\n" + _aggregate_text(aggregate(experiments)))
    return "\n".join(parts)


def _environment(task: str, experiments: Sequence[Experiment], references: Mapping[str, Reference]) -> str:
    owners = [(experiment, row) for experiment in experiments for row in compare(experiment)]
    rows, scores = [row for _, row in owners], [score(*owner, references) for owner in owners]
    lines = [f"## {task}\n", *_data(experiments)]
    columns, cells = [*COLUMNS], [_cells(row) for row in rows]
    if any(value is not None for value in scores):
        lines.append(_reference(references[experiments[0].env]))
        columns.append(SCORE)
        cells = [[*row, "-" if value is None else f"{value:.1f}"] for row, value in zip(cells, scores)]
    if rows:
        lines += [_line(columns), _line(["---"] * len(columns)), *map(_line, cells), ""]
    lines += [line for experiment in experiments for line in _near_best(experiment)]
    lines += [_provenance(experiment) for experiment in experiments]
    sources = dict.fromkeys(row.published.source for row in rows if row.published)
    versions = dict.fromkeys(f"environment {row.published.version}" for row in rows if row.published)
    lines += [f"* published: {'; '.join([*sources, *versions])}"] if sources else ["* nothing is published"]
    return "\n".join(lines) + "\n"


def _data(experiments: Sequence[Experiment]) -> list[str]:
    """Returns, offline, a line about the data that was learnt from."""
    data = data_of(experiments)
    if not data:
        return []
    return_mean = data.get("dataset_return_mean")
    known = "return unknown" if return_mean is None else f"mean episode return **{return_mean:.0f}**"
    rows = f"{data['dataset_rows']:,} rows, " if "dataset_rows" in data else ""
    return [f"Data set: {rows}{known}, SHA-256 {data['dataset_sha256'][:12]}. Steps are updates of the agent.\n"]


def _reference(reference: Reference) -> str:
    """Returns a line about what the scores of a table are relative to."""
    low, high = number_text.whole(reference.random_return), number_text.whole(reference.expert_return)
    return f"Score: 0 is a return of {low} (random policy), 100 is {high} (expert), {reference.name}.\n"


def _cells(row: Row) -> list[str]:
    window = row.window if row.window == LAST_TENTH else f"window {row.window:,}"
    step = f"{row.step:,}" if row.window == 10_000 else f"{row.step:,} ({window})"
    return [
        row.experiment,
        step,
        str(len(row.values)),
        _number(row.mean),
        _number(row.iqm) + _interval(row.interval, number_text.whole),
        ", ".join(_number(value) for _, value in sorted(row.values.items())) or "-",
        _published(row.published),
        "-" if row.percentile is None else f"{row.percentile:.0f}",
        row.verdict,
    ]


def _near_best(experiment: Experiment) -> list[str]:
    """Returns a line for an unpublished environment: when each seed first was within 1 % of its best, and stayed."""
    steps = steps_near_best(experiment)
    if not steps:
        return []
    seeds = (_near_best_of(curve, *steps[curve.seed]) for curve in experiment.curves)
    return [f"* {experiment.name}, evaluations within 1 % of the seed's best: {'; '.join(seeds)}"]


def _near_best_of(curve: LearningCurve, first: int | None, settled: int | None) -> str:
    seed = f"seed {curve.seed}"
    if first is None:
        return f"{seed} never"
    if first == settled:
        return f"{seed} all from {_moment(curve, first)} on"
    rest = "not the last one" if settled is None else f"all from {_moment(curve, settled)} on"
    return f"{seed} first at {_moment(curve, first)}, {rest}"


def _moment(curve: LearningCurve, step: int) -> str:
    """Returns '1,000 (60 s)': a step, and the seconds of the process until then if they are known."""
    seconds = "" if curve.elapsed is None else f" ({curve.elapsed[curve.steps.index(step)]:,.0f} s)"
    return f"{step:,}{seconds}"


def _provenance(experiment: Experiment) -> str:
    """Returns a line with flagfile, seeds with their commits, device, and hours."""
    head = f"* {experiment.name}: `{experiment.flagfile}` ({experiment.algorithm})"
    if not experiment.curves:
        return f"{head}; no curves yet for {_seeds(experiment.missing_seeds)}"
    groups: dict[tuple[str, int], list[int]] = {}
    for curve in experiment.curves:
        devices = "device unknown" if curve.devices is None else ", ".join(curve.devices)
        origin = f"commit {curve.commit or 'unknown'}, {devices}"
        origin += ", flags not recorded" if curve.flags is None else ""
        groups.setdefault((origin, curve.last_step), []).append(curve.seed)
    texts = [f"{_seeds(seeds)} to {last:,} steps, {origin}" for (origin, last), seeds in groups.items()]
    texts.append(_durations([curve.seconds for curve in experiment.curves if curve.seconds is not None]))
    if experiment.missing_seeds:
        texts.append(f"no curves for {_seeds(experiment.missing_seeds)}")
    return "; ".join([head, *texts])


def _seeds(seeds: Sequence[int]) -> str:
    return f"{'seed' if len(seeds) == 1 else 'seeds'} {_list(seeds)}"


def _durations(seconds: Sequence[float]) -> str:
    """Returns '1.5 to 2.5 hours per process'; in minutes if the shortest took less than a tenth of an hour."""
    if not seconds:
        return "hours unknown"
    unit, length = ("minutes", 60.0) if min(seconds) < 360.0 else ("hours", 3600.0)
    times = dict.fromkeys(f"{value / length:.1f}" for value in (min(seconds), max(seconds)))
    return f"{' to '.join(times)} {unit} per process"


def _aggregate_text(whole: Aggregate | None) -> str:
    if whole is None:
        return (
            "There is no step that two environments share at which every seed of MBPO with the published settings has "
            "evaluations in the window.\n"
        )
    names = _list(f"{name} ({len(values)})" for name, values in whole.values.items())
    interval = _interval(whole.interval, "{:.2f}".format) or " (no interval from one seed each)"
    return (
        f"At {whole.step:,} steps, the last published step with evaluations of every seed in its window, the IQM of "
        f"our returns divided by the published mean is {whole.iqm:.2f}{interval}, over experiments (seeds) {names}. "
        "Published MBPO is 1. For each environment, the first listed experiment counts that runs MBPO with the "
        "published rollout lengths, updates per step and share of real rows.\n"
    )


def _published(row: PublishedRow | None) -> str:
    if row is None:
        return "-"
    return f"{row.algorithm} {row.return_mean:.0f} ± {row.return_std:.0f} (n = {row.num_seeds})"


def _number(value: float | None) -> str:
    return "-" if value is None else number_text.whole(value)


def _interval(interval: tuple[float, float] | None, text: Callable[[float], str]) -> str:
    return "" if interval is None else f" [{text(interval[0])}, {text(interval[1])}]"


def _list(items: Iterable[object]) -> str:
    return ", ".join(map(str, items))


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
