"""Published returns of MBPO and of the algorithms that it is compared with, from `published.csv`.

How its rows were derived:

* MBPO on Hopper, Walker2d, HalfCheetah, AntTruncatedObs and HumanoidTruncatedObs, every 5,000 steps from 10,000 on:
  from the per-seed logs in 4kubo/erl_lib, `results/main/gym/mbpo`. A seed's value at a step is the mean of its
  evaluations in (step - 10,000, step]; the row holds mean and standard deviation (ddof 0) of the five seeds. The logs
  have an evaluation at 0, which no window contains, and then one every 1,000 steps from 6,000 on; the 5,000 steps of
  exploration count. Hopper and Walker2d agree with the official curves; for the other three the official origin,
  version 2 of the environments and the truncated observations of Ant and Humanoid are inferred. What the logs call
  evaluations are moving averages over 11 of them (docs/results/published_logs.md has the evidence), probably centred,
  so a row contains evaluations up to 5,000 steps after it.
* SAC (`results/main/gym/sac`, from 1,000,000 steps on `sac_long` with a window of 50,000; all observations) from the
  same repository, and TD3 from sfujim/TD3, in the same way.
* DHMBPO (`results/main/gym/esvg`, eight seeds) likewise, at seven steps; not its Humanoid, whose reward is different.
* Names with parentheses are other implementations, curves that were read from pictures, other statistics (maximum over
  time) and other protocols. They have no `window_steps`, and nothing is compared with them.
"""

import csv
import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mbpo_jax.algorithms import REGISTRY

PATH = Path(__file__).with_name("published.csv")
MBPO = "MBPO"

SETTINGS: dict[str, dict[str, Any]] = {
    "Hopper": {"rollout_length_schedule": [20, 150, 1, 15], "updates_per_step": 20},
    "Walker2d": {"rollout_length_schedule": [20, 150, 1, 1], "updates_per_step": 20},
    "HalfCheetah": {"rollout_length_schedule": [20, 150, 1, 1], "updates_per_step": 40},
    "AntTruncatedObs": {"rollout_length_schedule": [20, 100, 1, 25], "updates_per_step": 20},
    "HumanoidTruncatedObs": {"rollout_length_schedule": [20, 300, 1, 25], "updates_per_step": 20},
}
"""Knobs of published MBPO that ablations change, by environment (jannerm/mbpo@ac694ff, examples/config)."""
REAL_FRACTION = 0.05  # another such knob, the same everywhere


class PublishedRow(NamedTuple):
    """A published return; None: not stated."""

    algorithm: str
    environment: str
    version: str  # of the environment
    step: int
    window_steps: int | None  # over which a seed's evaluations were averaged
    return_mean: float
    return_std: float | None  # over seeds, ddof 0
    num_seeds: int | None
    source: str


@functools.cache
def rows() -> tuple[PublishedRow, ...]:
    """Returns all rows of the file."""
    with PATH.open(newline="", encoding="utf-8") as file:
        return tuple(_row(row) for row in csv.DictReader(file))


def environment_of(env: str) -> str:
    """Returns the published name of a Gymnasium id: `mbpo_jax/AntTruncatedObs-v5` is AntTruncatedObs."""
    return re.sub(r"-v\d+$", "", re.split(r"[:/]", env)[-1])


def comparable(algorithm: str, env: str) -> tuple[PublishedRow, ...]:
    """Returns the rows that say what is needed to compare a run with them, by step.

    Args:
      algorithm: a published name, such as MBPO.
      env: a Gymnasium id.
    """
    wanted = (algorithm, environment_of(env))
    known = (row for row in rows() if row.return_std is not None and row.window_steps is not None)
    return tuple(sorted((row for row in known if row[:2] == wanted), key=lambda row: row.step))


def names_for(algorithm: str) -> tuple[str, ...]:
    """Returns the published names that an algorithm is compared with, best first; none if it is not known."""
    return REGISTRY[algorithm].published if algorithm in REGISTRY else ()


def reference(algorithm: str, env: str) -> tuple[PublishedRow, ...]:
    """Returns what a run is compared with: the rows of the first of its names that has any for the environment."""
    return next(filter(None, (comparable(name, env) for name in names_for(algorithm))), ())


def is_published_mbpo(algorithm: str, env: str, flags: Mapping[str, Any]) -> bool:
    """Returns whether an experiment is MBPO as published, not an ablation of it.

    Args:
      env: a Gymnasium id.
      flags: full path of a knob -> value as in JSON.
    """
    settings = SETTINGS.get(environment_of(env))
    if (
        (algorithm, flags.get("agent", "sac")) != ("mbpo", "sac")
        or settings is None
        or flags.get("real_fraction") != REAL_FRACTION
        or flags.get("expansion_steps", 0) > 0
    ):
        return False
    return all(flags.get(name) == value for name, value in settings.items())


def _row(row: dict[str, str]) -> PublishedRow:
    return PublishedRow(
        row["algorithm"],
        row["environment"],
        row["version"],
        int(row["step"]),
        int(row["window_steps"]) if row["window_steps"] else None,
        float(row["return_mean"]),
        float(row["return_std"]) if row["return_std"] else None,
        int(row["num_seeds"]) if row["num_seeds"] else None,
        row["source"],
    )
