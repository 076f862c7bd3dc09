"""Repeats one measurement at every checkpoint of a run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mbpo_jax.driver.config import StorageFailure
from mbpo_jax.driver.storage import checkpoint, run_json
from mbpo_jax.driver.trained import Trained, load_trained

Measure = Callable[[Trained], dict[str, Any]]


def measure(
    run_dir: Path,
    seed: int | None,
    check: Callable[[Trained], object],
    prepare: Callable[[Trained], Measure],
    least: int = 1,
) -> tuple[list[dict[str, Any]], list[str], Trained]:
    """Measures every checkpoint that is readable and passes the check.

    Args:
      check: raises ValueError, with the reason, if a checkpoint lacks what is measured.
      prepare: builds the measurement from the first such checkpoint, so that it is compiled once.
      least: least number of checkpoints that are needed.
    Returns:
      The measurements with their `step`; the checkpoints left out, with reasons; the newest one measured.
    Raises:
      StorageFailure: there is no run.
      ValueError: there are fewer than `least`; the message says why each was left out.
    """
    run_json.read_config(run_dir)
    points: list[dict[str, Any]] = []
    left_out: list[str] = []
    newest: Trained | None = None
    measure_one: Measure | None = None
    for step in checkpoint.steps(run_dir):
        try:
            trained = load_trained(run_dir, seed, step)
            check(trained)
        except (StorageFailure, ValueError) as error:
            left_out.append(f"step {step}: {error}")
            continue
        measure_one = measure_one or prepare(trained)
        points.append({"step": trained.step} | measure_one(trained))
        newest = trained
    if newest is None or len(points) < least:
        raise ValueError(
            f"run_dir must hold {least} or more checkpoints that can be measured, got {run_dir} with {len(points)} "
            f"(train with a larger --checkpoints_kept). {'; '.join(left_out)}"
        )
    return points, left_out, newest
