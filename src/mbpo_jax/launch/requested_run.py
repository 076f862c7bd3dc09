"""Reads what a reproduction requests: the run of each flagfile, and the knobs that its curves must have."""

from pathlib import Path
from typing import Any, NamedTuple

from mbpo_jax import options
from mbpo_jax.data_sets import read as data_sets
from mbpo_jax.driver.config import NO_ENVIRONMENT, RESUMABLE_CHANGES, RunConfig, StorageFailure
from mbpo_jax.driver.storage import run_json
from mbpo_jax.launch import flags, sweep_jobs
from mbpo_jax.reports.learning_curves import LearningCurve

NOT_OF_A_CURVE = RESUMABLE_CHANGES | {"algorithm", "env", "seeds", "num_processes"}
"""Knobs that do not determine which curve it is, or that have a field of their own in it."""


class RequestedRun(NamedTuple):
    """The run that a flagfile requests."""

    flagfile: Path
    run: RunConfig
    algorithm_config: Any
    dataset_sha256: str | None = None  # of what --dataset names; None: nothing, or it is not on this machine

    @property
    def flags(self) -> dict[str, Any]:
        """Returns full path of a knob -> value, as stored in curves."""
        return curve_flags(run_json.identity(self.run, self.algorithm_config))

    @property
    def default_flags(self) -> dict[str, Any]:
        """Returns the values with which a curve was made if its file is older than a knob and lacks it."""
        return curve_flags(run_json.default_identity(self.run, self.algorithm_config))


def read_request(flagfile: Path, added: list[str]) -> RequestedRun:
    """Reads a flagfile, with the flags `added` after it.

    Raises:
      ValueError: names the flagfile, the flag and what is allowed.
    """
    try:
        run, config = flags.parse([f"--flagfile={flagfile}", *added])
        if run.env == NO_ENVIRONMENT:
            raise ValueError(f"env must be an environment, whose returns are compared, got {NO_ENVIRONMENT!r}")
        if run.eval_episodes == 0:
            raise ValueError("eval_episodes must be 1 or more, since returns are compared, got 0")
        return RequestedRun(flagfile, run, config, data_sets.sha256(run.dataset) if run.dataset else None)
    except ValueError as error:
        raise ValueError(f"{flagfile}: {error}") from error


def curve_flags(knobs: dict[str, Any]) -> dict[str, Any]:
    """Returns the knobs of a run that determine its curve."""
    return {name: value for name, value in knobs.items() if name not in NOT_OF_A_CURVE}


def check_curve(curve: LearningCurve, place: str, requested: RequestedRun) -> None:
    """Refuses a curve of another algorithm, environment or data set, or with other flags, where it recorded them.

    Raises:
      ValueError: names the place, and each knob with its old and new value.
    """
    run = requested.run
    if (curve.algorithm, curve.env) != (run.algorithm, run.env):
        raise ValueError(
            f"{place} holds {curve.algorithm} on {curve.env}, but {requested.flagfile} asks for {run.algorithm} on "
            f"{run.env}"
        )
    recorded = (curve.dataset or {}).get("dataset_sha256")
    if recorded and requested.dataset_sha256 and recorded != requested.dataset_sha256:
        raise ValueError(
            f"{place} was learnt from the data of SHA-256 {recorded[:12]}, but --dataset={run.dataset} has "
            f"{requested.dataset_sha256[:12]}. Give the old data, or other directories to start again"
        )
    if curve.flags is None:
        return
    known = options.with_paths(curve.flags, requested.flags)
    differ = options.differences(requested.default_flags | known, requested.flags)
    if differ:
        raise ValueError(
            f"{place} was made with flags other than those of {requested.flagfile} and after --: "
            f"{'; '.join(differ.values())}. Give the old values, or other directories to start again"
        )


def check_run(requested: RequestedRun, task: sweep_jobs.Task, added: list[str]) -> None:
    """Refuses a run directory whose run has flags other than those requested.

    Raises:
      ValueError: names the flags that differ.
    """
    try:
        saved = run_json.read_config(task.run_dir)
    except StorageFailure:  # no run yet, or an unreadable one; if it must be continued, that reports what is wrong
        return
    run, config = flags.parse([f"--flagfile={requested.flagfile}", *added, *sweep_jobs.own_flags(task)])
    run_json.check_same(saved, run, config)
