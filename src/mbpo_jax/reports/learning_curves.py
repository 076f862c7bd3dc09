"""Learning curves: a seed's evaluations with where they come from, read from a run or from a small JSON file.

The files live in the repository, so that tables and figures are made again from a checkout, without training.
"""

import dataclasses
import itertools
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mbpo_jax.driver import files, metrics

RETURN, STD = "eval/return_mean", "eval/return_std"
CONFIG, SUMMARY = "config.json", "summary.json"
MOST_BYTES = 2**24  # more is no curve; a million steps, evaluated every 1,000, are a hundredth of it


class Evaluation(NamedTuple):
    """One evaluation of one seed."""

    return_mean: float
    return_std: float | None  # over episodes


@dataclasses.dataclass(frozen=True)
class LearningCurve:
    """The evaluations of one seed of one experiment; None: not known."""

    experiment: str  # the stem of its flagfile
    algorithm: str
    env: str  # Gymnasium id
    seed: int
    num_steps: int | None  # as asked for; the curve may not have reached it yet
    commit: str | None  # that of the last process, where a run was continued
    versions: dict[str, str] | None  # of the software
    devices: tuple[str, ...] | None  # kinds
    seconds: float | None  # wall time of the process, which seeds may share
    steps: tuple[int, ...]  # of evaluations, increasing, exploration included
    returns: tuple[float, ...]  # mean over the episodes of each evaluation
    stds: tuple[float, ...] | None = None  # over those episodes

    @property
    def last_step(self) -> int:
        """That of the last evaluation."""
        return self.steps[-1]


def path_of(report_dir: Path, experiment: str, seed: int) -> Path:
    """Where the curve of a seed is kept."""
    return report_dir / "curves" / experiment / f"seed_{seed}.json"


def collect(path: Path, experiment: str, seed: int, run_dir: Path | None) -> LearningCurve | None:
    """The longer of the curves in a file and in a run, that of the run if they are equally long; None: neither.

    Raises:
      ValueError: a file is damaged, or the curve there is another one; names the file.
    """
    kept = load(path) if path.exists() else None
    if kept is not None and (kept.experiment, kept.seed) != (experiment, seed):
        raise ValueError(f"{path} holds seed {kept.seed} of {kept.experiment}, not seed {seed} of {experiment}")
    ran = None if run_dir is None else read_run(run_dir, experiment, seed)
    if kept is None or ran is None:
        return ran or kept
    return ran if ran.last_step >= kept.last_step else kept


def read_run(run_dir: Path, experiment: str, seed: int) -> LearningCurve | None:
    """The curve of a seed of a run, which may still be running; None before its first evaluation.

    Raises:
      ValueError: a file of the run is damaged; names it.
    """
    path = run_dir / metrics.FILE_NAME
    if not path.exists():
        return None
    records = _records(path)
    evaluations = _evaluations(records).get(seed)
    if not evaluations:
        return None
    config = _read_json(run_dir / CONFIG)
    stds = [evaluation.return_std for evaluation in evaluations.values()]
    value = {
        "experiment": experiment,
        "algorithm": _within(config, "run", "algorithm"),
        "env": _within(config, "run", "env"),
        "seed": seed,
        "num_steps": _within(config, "run", "num_steps"),
        "commit": _within(config, "commit"),
        "versions": _within(config, "versions"),
        "devices": _within(config, "device", "kinds"),
        "seconds": _seconds(run_dir, max(evaluations), records),
        "steps": list(evaluations),
        "returns": [evaluation.return_mean for evaluation in evaluations.values()],
        "stds": None if None in stds else stds,
    }
    return _from_json(value, run_dir / CONFIG)


def read_evaluations(path: Path) -> dict[int, dict[int, Evaluation]]:
    """The evaluations in a file of metrics: seed -> step -> evaluation, by step.

    Raises:
      ValueError: the file is missing or damaged; names it.
    """
    return _evaluations(_records(path))


def load(path: Path) -> LearningCurve:
    """Reads a curve's file.

    Raises:
      ValueError: it is missing or damaged; names it.
    """
    return _from_json(_read_json(path), path)


def save(path: Path, curve: LearningCurve) -> None:
    """Writes a curve's file, a line for each entry, whole or not at all; one that would not change is left alone."""
    value = dataclasses.asdict(curve)
    for name in ("returns", "stds"):
        value[name] = None if value[name] is None else [in_words(item) for item in value[name]]
    entries = (f"  {json.dumps(name)}: {json.dumps(item, allow_nan=False)}" for name, item in value.items())
    text = ("{\n" + ",\n".join(entries) + "\n}\n").encode()
    if path.exists() and path.read_bytes() == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_whole(path, lambda file: file.write(text))


def in_words(value: float) -> float | str:
    """A number as strict JSON can say it: `nan` and the infinities as text, as in metrics."""
    return value if math.isfinite(value) else str(value)


def _records(path: Path) -> list[dict[str, Any]]:
    try:
        return metrics.read(path)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}; is this the directory of a run?") from error


def _evaluations(records: list[dict[str, Any]]) -> dict[int, dict[int, Evaluation]]:
    found: dict[int, dict[int, Evaluation]] = {}
    for record in records:
        if RETURN in record:
            std = float(record[STD]) if STD in record else None
            found.setdefault(record["seed"], {})[record["step"]] = Evaluation(float(record[RETURN]), std)
    return {seed: dict(sorted(evaluations.items())) for seed, evaluations in found.items()}


def _seconds(run_dir: Path, last_step: int, records: list[dict[str, Any]]) -> float | None:
    """Wall time: what the summary says if it is not older than the curve, or else what the last line says of parts."""
    path = run_dir / SUMMARY
    if path.exists():
        summary = _read_json(path)
        if summary.get("step", 0) >= last_step and summary.get("seconds") is not None:
            return float(summary["seconds"])
    lines = ([value for name, value in record.items() if name.startswith("seconds/")] for record in reversed(records))
    return next((float(sum(parts)) for parts in lines if parts), None)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(files.read_text(path, MOST_BYTES))
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} is damaged: not an object")
    return value


def _within(value: Any, *names: str) -> Any:
    """What lies below these names; None where there is no such thing."""
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _from_json(value: dict[str, Any], path: str | os.PathLike[str]) -> LearningCurve:
    """A curve from JSON, checked.

    Raises:
      ValueError: names the file and the entry.
    """
    fields = [field.name for field in dataclasses.fields(LearningCurve)]
    wrong = sorted(set(fields) - {"stds"} - set(value)) + sorted(set(value) - set(fields))
    wrong = wrong or [name for name in fields if not _fits(name, value.get(name))]
    if wrong:
        raise ValueError(f"{path} is damaged: {wrong[0]} is missing, not known, or not what it should be")
    steps = value["steps"]
    returns, stds = (_floats(value.get(name)) for name in ("returns", "stds"))
    if returns is None or any(len(column) != len(steps) for column in (returns, stds) if column is not None):
        raise ValueError(f"{path} is damaged: steps, returns and stds differ in length")
    if not steps or any(next_step <= step for step, next_step in itertools.pairwise(steps)):
        raise ValueError(f"{path} is damaged: steps must increase, and there must be one")
    devices = value["devices"] if value["devices"] is None else tuple(value["devices"])
    return LearningCurve(**value | {"steps": tuple(steps), "returns": returns, "stds": stds, "devices": devices})


def _fits(name: str, item: Any) -> bool:
    """Whether an entry has the type that it should have."""
    if name in ("num_steps", "commit", "versions", "devices", "seconds", "stds") and item is None:
        return True
    if name == "versions":
        return isinstance(item, dict) and all(isinstance(text, str) for text in item.values())
    if name in ("steps", "returns", "stds", "devices"):
        return isinstance(item, list) and all(_item_fits(name, entry) for entry in item)
    if name == "seconds":
        return type(item) in (int, float)
    return type(item) is (int if name in ("seed", "num_steps") else str)


def _item_fits(name: str, entry: Any) -> bool:
    if name == "devices":
        return isinstance(entry, str)
    if type(entry) is int or name == "steps":
        return type(entry) is int
    return type(entry) is float or (isinstance(entry, str) and entry in metrics.NON_FINITE)


def _floats(column: list[Any] | None) -> tuple[float, ...] | None:
    return None if column is None else tuple(float(item) for item in column)  # "nan" and "inf" are read too
