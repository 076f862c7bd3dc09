"""What a run reports: metrics since the last line, episodes, evaluations, seconds."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from mbpo_jax.driver.compile_counter import CompileCounter
from mbpo_jax.driver.config import RunConfig, diverged
from mbpo_jax.driver.storage.metrics import MetricsWriter
from mbpo_jax.types import PyTree


class Record:
    """What a run reports, per seed in the order of `seeds`; part of every checkpoint, so a resumed run continues it."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self._seeds = tuple(seeds)
        self._evaluations: list[list[dict[str, Any]]] = [[] for _ in seeds]
        self._pending: list[dict[str, Any]] = [{} for _ in seeds]  # metrics since the last line
        self._returns: list[list[float]] = [[] for _ in seeds]  # of episodes since the last line
        self._seconds: dict[str, float] = {}
        self._seconds_before = 0.0  # wall time of earlier calls
        self._began = time.monotonic()
        self._compilations = CompileCounter()

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Adds the time spent in the block to `seconds/<name>`."""
        began = time.monotonic()
        yield
        self._seconds[name] = self._seconds.get(name, 0.0) + time.monotonic() - began

    def add_metrics(self, phase: str, metrics: Sequence[PyTree | None]) -> None:
        """Keeps the newest metrics of a phase, one entry per seed; None: that seed did not run it."""
        for pending, values in zip(self._pending, metrics, strict=True):
            if values is not None:
                pending |= {f"{phase}/{key}": value for key, value in values.items()}

    def episode_ended(self, i: int, episode_return: float) -> None:
        """Records the return of a training episode of seed number `i`."""
        self._returns[i].append(episode_return)

    def write_lines(self, writer: MetricsWriter, step: int, num_rows: int, failures: Sequence[dict[str, int]]) -> None:
        """Writes a line for each seed, then clears its metrics and returns.

        Args:
          failures: how often the environments of each seed have failed, by metric.
        Raises:
          Diverged: after the line was written, if a number in it is not finite.
        """
        seconds = {f"seconds/{name}": value for name, value in self._seconds.items()}
        for i, seed in enumerate(self._seeds):
            values = {name: np.asarray(value) for name, value in self._pending[i].items()}
            values["replay/rows"] = np.asarray(num_rows)
            if self._returns[i]:
                values["train/return_mean"] = np.asarray(np.mean(self._returns[i]))
                values["train/episodes"] = np.asarray(len(self._returns[i]))
            values |= {f"env/{name}": np.asarray(count) for name, count in failures[i].items()}
            writer.write(step, seed, values | seconds | {"compilations": self._compilations.count})
        self.check_finite(step)
        self._pending, self._returns = [{} for _ in self._seeds], [[] for _ in self._seeds]

    def check_finite(self, step: int) -> None:
        """Refuses to continue, or to save, if metrics are not finite.

        Raises:
          Diverged: names the number, the step and the seed.
        """
        for seed, pending in zip(self._seeds, self._pending, strict=True):
            for name, value in pending.items():
                if not np.isfinite(np.asarray(value)).all():
                    raise diverged(f"{name} is not finite at step {step}", seed)

    def add_evaluation(self, i: int, step: int, return_mean: float, complete: bool = True) -> bool:
        """Records an evaluation of seed number `i`; returns whether it is the best so far.

        Args:
          complete: whether no episode of it was given up; an incomplete one is best only until there is a complete one.
        """
        best = max(map(_rank, self._evaluations[i]), default=(False, -np.inf))
        evaluation = {"step": step, "return_mean": return_mean} | ({} if complete else {"complete": False})
        self._evaluations[i].append(evaluation)
        return _rank(evaluation) > best

    def score(self, step: int) -> float | None:
        """Returns the seeds' mean evaluation at `step`; None if one is missing or incomplete, or it is not finite."""
        latest = [evaluations[-1] for evaluations in self._evaluations if evaluations]
        if len(latest) < len(self._seeds) or any(evaluation["step"] != step for evaluation in latest):
            return None
        if not all(evaluation.get("complete", True) for evaluation in latest):
            return None
        score = float(np.mean([evaluation["return_mean"] for evaluation in latest]))
        return score if np.isfinite(score) else None

    def summary(self, run: RunConfig, step: int) -> dict[str, Any]:
        """Returns the contents of summary.json."""
        seconds = self._elapsed()
        outcomes = {
            str(seed): {
                "final": evaluations[-1] if evaluations else None,
                "best": max(evaluations, key=_rank, default=None),
            }
            for seed, evaluations in zip(self._seeds, self._evaluations, strict=True)
        }
        return {
            "algorithm": run.algorithm,
            "env": run.env,
            "step": step,
            "num_steps": run.num_steps,
            "seeds": outcomes,
            "env_steps_per_second": step / max(seconds, 1e-9),
            "seconds": seconds,
            "seconds_per_phase": dict(self._seconds),
            "compilations": self._compilations.count,
        }

    def to_json(self) -> dict[str, Any]:
        """Returns the record as a checkpoint holds it."""
        pending = [{name: np.asarray(value).tolist() for name, value in values.items()} for values in self._pending]
        return {
            "evaluations": self._evaluations,
            "pending": pending,
            "returns": self._returns,
            "seconds": dict(self._seconds),
            "seconds_total": self._elapsed(),
        }

    def restore(self, value: dict[str, Any]) -> None:
        """Restores the record that `to_json` returned."""
        self._evaluations, self._pending, self._returns = value["evaluations"], value["pending"], value["returns"]
        self._seconds, self._seconds_before = dict(value["seconds"]), value["seconds_total"]
        self._began = time.monotonic()

    def _elapsed(self) -> float:
        return self._seconds_before + time.monotonic() - self._began


def _rank(evaluation: dict[str, Any]) -> tuple[bool, float]:
    """Returns the key by which evaluations are compared; that of the best is the greatest."""
    return_mean = evaluation["return_mean"]
    return evaluation.get("complete", True) and math.isfinite(return_mean), return_mean
