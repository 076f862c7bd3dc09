"""Learning curves: a seed's evaluations and their origin, read from a run or from a small JSON file.

The files are kept in the repository, so that tables and figures can be made again from a checkout, without training.
"""

import bisect
import dataclasses
import itertools
import json
import math
import os
from pathlib import Path
from typing import Any, NamedTuple

from mbpo_jax import options
from mbpo_jax.driver.storage import files, metrics
from mbpo_jax.driver.storage.files import CONFIG, SUMMARY
from mbpo_jax.reports import plain_json
from mbpo_jax.reports.plain_json import within

RETURN, STD = "eval/return_mean", "eval/return_std"
LAST_STEP = 2**31 - 1  # the most steps that a run can have
OPTIONAL = {"stds", "elapsed", "flags", "dataset"}  # entries that a file may lack
NULLABLE = {"num_steps", "commit", "versions", "devices", "seconds"} | OPTIONAL  # entries that may be None
DATASET = ("dataset_sha256", "dataset_rows", "dataset_return_mean")


class Evaluation(NamedTuple):
    """One evaluation of one seed."""

    return_mean: float
    return_std: float | None  # over episodes
    seconds: float | None  # of the phases up to the line of metrics before it


@dataclasses.dataclass(frozen=True)
class LearningCurve:
    """The evaluations of one seed of one experiment; None: not known."""

    experiment: str  # the stem of its flagfile
    algorithm: str
    env: str  # Gymnasium id
    seed: int
    num_steps: int | None  # as requested; the curve may not have reached it yet
    commit: str | None  # that of the last process, if the run was continued
    versions: dict[str, str] | None  # of the software
    devices: tuple[str, ...] | None  # kinds
    seconds: float | None  # wall time of the process, which several seeds may share
    steps: tuple[int, ...]  # of evaluations, increasing, exploration included
    returns: tuple[float, ...]  # mean over the episodes of each evaluation
    stds: tuple[float, ...] | None = None  # over those episodes
    elapsed: tuple[float, ...] | None = None  # seconds of the process at each evaluation
    flags: dict[str, Any] | None = None
    """Full path of a knob -> value as in JSON. Older files have the knob's name only, the oldest no flags at all."""
    dataset: dict[str, Any] | None = None
    """What it learnt from, offline: `dataset_sha256`, `_rows` and `_return_mean`, as far as the run knew."""

    @property
    def last_step(self) -> int:
        """Returns the step of the last evaluation."""
        return self.steps[-1]


def path_of(report_dir: Path, experiment: str, seed: int) -> Path:
    """Returns where the curve of a seed is kept."""
    return report_dir / "curves" / experiment / f"seed_{seed}.json"


def load_kept(path: Path, experiment: str, seed: int) -> LearningCurve | None:
    """Reads the curve of a seed from its file; returns None if there is none.

    Raises:
      ValueError: the file is damaged, or holds another curve; names the file.
    """
    if not path.exists():
        return None
    kept = load(path)
    if (kept.experiment, kept.seed) != (experiment, seed):
        raise ValueError(f"{path} holds seed {kept.seed} of {kept.experiment}, not seed {seed} of {experiment}")
    return kept


def longer(kept: LearningCurve | None, ran: LearningCurve | None) -> LearningCurve | None:
    """Returns the longer of the curves in a file and in a run; the run's if they are equally long."""
    if kept is None or ran is None:
        return ran or kept
    return ran if ran.last_step >= kept.last_step else kept


def until(curve: LearningCurve, last_step: int) -> LearningCurve | None:
    """Cuts a curve after a step; returns None if no evaluation is left."""
    end = bisect.bisect_right(curve.steps, last_step)
    if end in (0, len(curve.steps)):
        return curve if end else None
    steps, returns = curve.steps[:end], curve.returns[:end]
    stds, elapsed = (None if column is None else column[:end] for column in (curve.stds, curve.elapsed))
    seconds = elapsed[-1] if elapsed else None
    return dataclasses.replace(curve, steps=steps, returns=returns, stds=stds, elapsed=elapsed, seconds=seconds)


def read_run(run_dir: Path, experiment: str, seed: int) -> LearningCurve | None:
    """Reads the curve of a seed from a run, which may still be running; returns None before its first evaluation.

    Raises:
      ValueError: a file of the run is damaged; names it.
    """
    path = run_dir / metrics.FILE_NAME
    if not path.exists():
        return None
    records = _records(path)
    evaluations = _evaluations(records, path).get(seed)
    if not evaluations:
        return None
    config = plain_json.read(run_dir / CONFIG)
    stds = [evaluation.return_std for evaluation in evaluations.values()]
    elapsed = [evaluation.seconds for evaluation in evaluations.values()]
    value = {
        "experiment": experiment,
        "algorithm": within(config, "run", "algorithm"),
        "env": within(config, "run", "env"),
        "seed": seed,
        "num_steps": within(config, "run", "num_steps"),
        "commit": within(config, "commit"),
        "versions": within(config, "versions"),
        "devices": within(config, "device", "kinds"),
        "seconds": _seconds(run_dir, max(evaluations), records),
        "steps": list(evaluations),
        "returns": [evaluation.return_mean for evaluation in evaluations.values()],
        "stds": None if None in stds else stds,
        "elapsed": None if None in elapsed else elapsed,
        "flags": _knobs(config),
        "dataset": {name: item for name, item in (config.get("task") or {}).items() if name in DATASET} or None,
    }
    return _from_json(value, run_dir / CONFIG)


def step_of_summary(run_dir: Path) -> float:
    """Returns the environment steps taken when the summary was written; -1 without a summary, 0 if it does not say.

    Raises:
      ValueError: it is damaged; names the file.
    """
    path = run_dir / SUMMARY
    return _number({"step": 0} | plain_json.read(path), "step", path) if path.exists() else -1.0


def read_evaluations(path: Path) -> dict[int, dict[int, Evaluation]]:
    """Reads the evaluations in a file of metrics: seed -> step -> evaluation, by step.

    Raises:
      ValueError: the file is missing or damaged; names it.
    """
    return _evaluations(_records(path), path)


def load(path: Path) -> LearningCurve:
    """Reads a curve's file.

    Raises:
      ValueError: it is missing or damaged; names it.
    """
    return _from_json(plain_json.read(path), path)


def save(path: Path, curve: LearningCurve) -> None:
    """Writes a curve's file, one line per entry, whole or not at all; leaves it alone if nothing has changed."""
    value = plain_json.plain(dataclasses.asdict(curve))
    for name in ("elapsed", "flags", "dataset"):
        if value[name] is None:
            del value[name]  # a file older than this entry stays unchanged
    entries = (f"  {json.dumps(name)}: {json.dumps(item, allow_nan=False)}" for name, item in value.items())
    text = ("{\n" + ",\n".join(entries) + "\n}\n").encode()
    if path.exists() and path.read_bytes() == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_whole(path, lambda file: file.write(text))


def _records(path: Path) -> list[dict[str, Any]]:
    try:
        return metrics.read(path)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}; is this the directory of a run?") from error


def _evaluations(records: list[dict[str, Any]], path: Path) -> dict[int, dict[int, Evaluation]]:
    found: dict[int, dict[int, Evaluation]] = {}
    seconds = None
    for record in records:
        seconds = _phase_seconds(record, path) or seconds
        if RETURN in record:
            if not _is_step(record["step"]):
                raise ValueError(f"{path} is damaged: an evaluation at step {record['step']}")
            std = _number(record, STD, path) if STD in record else None
            evaluation = Evaluation(_number(record, RETURN, path), std, seconds)
            found.setdefault(record["seed"], {})[record["step"]] = evaluation
    return {seed: dict(sorted(evaluations.items())) for seed, evaluations in found.items()}


def _seconds(run_dir: Path, last_step: int, records: list[dict[str, Any]]) -> float | None:
    """Returns the wall time: from the summary if it is as new as the curve, else from the last line of metrics."""
    if step_of_summary(run_dir) >= last_step:
        summary = plain_json.read(run_dir / SUMMARY)
        if summary.get("seconds") is not None:
            return _number(summary, "seconds", run_dir / SUMMARY, finite=True)
    lines = (_phase_seconds(record, run_dir / metrics.FILE_NAME) for record in reversed(records))
    return next((seconds for seconds in lines if seconds), None)


def _phase_seconds(record: dict[str, Any], path: Path) -> float:
    """Returns the seconds of all phases so far, in a line of metrics; 0 in a line without them."""
    return sum(_number(record, name, path, finite=True) for name in record if name.startswith("seconds/"))


def _knobs(config: dict[str, Any]) -> dict[str, Any] | None:
    """Returns every knob in a run's configuration, keyed by full path; None if it lacks the algorithm's."""
    run, algorithm = config.get("run"), config.get("algorithm")
    if not isinstance(run, dict) or not isinstance(algorithm, dict):
        return None
    return options.flat(run) | options.flat(algorithm)


def _number(record: dict[str, Any], name: str, path: Path, finite: bool = False) -> float:
    """Returns a number of a record.

    Raises:
      ValueError: it is not a number, or not finite although it has to be; names the file.
    """
    if not _is_number(record[name]) or (finite and not math.isfinite(record[name])):
        raise ValueError(f"{path} is damaged: {name} must be a number, got {str(record[name])[:40]!r}")
    return float(record[name])


def _from_json(value: dict[str, Any], path: str | os.PathLike[str]) -> LearningCurve:
    """Makes a curve from JSON, checking every entry.

    Raises:
      ValueError: names the file and the entry.
    """
    fields = [field.name for field in dataclasses.fields(LearningCurve)]
    wrong = sorted(set(fields) - OPTIONAL - set(value)) + sorted(set(value) - set(fields))
    wrong = wrong or [name for name in fields if not _fits(name, value.get(name))]
    if wrong:
        raise ValueError(f"{path} is damaged: {wrong[0]} is missing, not known, or not what it should be")
    steps = value["steps"]
    returns, stds, elapsed = (_floats(value.get(name)) for name in ("returns", "stds", "elapsed"))
    if returns is None or any(len(column) != len(steps) for column in (returns, stds, elapsed) if column is not None):
        raise ValueError(f"{path} is damaged: steps, returns, stds and elapsed differ in length")
    if not steps or any(next_step <= step for step, next_step in itertools.pairwise(steps)):
        raise ValueError(f"{path} is damaged: steps must increase, and there must be at least one")
    devices = value["devices"] if value["devices"] is None else tuple(value["devices"])
    columns = {"steps": tuple(steps), "returns": returns, "stds": stds, "elapsed": elapsed}
    return LearningCurve(**value | columns | {"devices": devices})


def _fits(name: str, item: Any) -> bool:
    """Returns whether an entry has the right type."""
    if item is None:
        return name in NULLABLE
    if name == "dataset":
        known = isinstance(item, dict) and all(_is_knob(value) for value in item.values())
        return known and isinstance(item.get("dataset_sha256"), str) and type(item.get("dataset_rows", 0)) is int
    if name == "flags":
        return isinstance(item, dict) and all(_is_knob(value) for value in item.values())
    if name == "versions":
        return isinstance(item, dict) and all(isinstance(text, str) for text in item.values())
    if name in ("steps", "returns", "stds", "elapsed", "devices"):
        return isinstance(item, list) and all(_item_fits(name, entry) for entry in item)
    if name == "seconds":
        return _is_number(item) and math.isfinite(item)
    return type(item) is (int if name in ("seed", "num_steps") else str)


def _item_fits(name: str, entry: Any) -> bool:
    if name == "devices":
        return isinstance(entry, str)
    if name == "steps":
        return _is_step(entry)
    if name == "elapsed":
        return _is_number(entry) and math.isfinite(entry)
    return _is_number(entry) or (isinstance(entry, str) and entry in metrics.NON_FINITE)


def _is_knob(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_knob(item) for item in value)
    return value is None or isinstance(value, str | bool) or (_is_number(value) and math.isfinite(value))


def _is_step(value: Any) -> bool:
    return type(value) is int and 0 <= value <= LAST_STEP


def _is_number(value: Any) -> bool:
    """Returns whether a value is a number, and not an integer that is too large for a float."""
    return type(value) is float or (type(value) is int and abs(value) < 2**1000)


def _floats(column: list[Any] | None) -> tuple[float, ...] | None:
    return None if column is None else tuple(float(item) for item in column)  # "nan" and "inf" are read too
