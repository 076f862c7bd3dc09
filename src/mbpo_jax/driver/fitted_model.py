"""The model that another run has fitted to the same data, in place of a fit of one's own.

A fit depends on the data, the seed and the model's knobs, and on nothing that the agent does, so that runs which differ
in their penalties or agents would each fit the same model. With `--fitted_model` a run takes it and computes the same
numbers, bit for bit, as if it had fitted it with the same software on the same kind of device.
"""

from pathlib import Path
from typing import Any

from mbpo_jax import options
from mbpo_jax.data_sets.data_set import DataSet
from mbpo_jax.driver.config import RunConfig, StorageFailure
from mbpo_jax.driver.interaction.spaces import Spaces, spaces_to_json
from mbpo_jax.driver.phase_runner import PhaseRunner
from mbpo_jax.driver.seeds import SeedAxis
from mbpo_jax.driver.storage import checkpoint, files, metrics, packing, run_json
from mbpo_jax.driver.storage.checkpoint import Saved
from mbpo_jax.driver.storage.run_json import SavedConfig
from mbpo_jax.types import Algorithm, Metrics, PyTree

FIT = "fit_model"  # name of the phase
SCALES_OF_ACTIONS = ("action_low", "action_high")


class FittedModel(PhaseRunner):
    """The phase of the fit, for all seeds: it takes the saved models."""

    def __init__(self, axis: SeedAxis, fit: PhaseRunner, saved: list[PyTree], reported: list[Metrics]) -> None:
        """Stores the models.

        Args:
          fit: the phase that it replaces.
          saved: for each seed, the model as a checkpoint holds it.
          reported: for each seed, the metrics of the fit.
        """
        self.phase, self._axis, self._saved, self._reported = fit.phase, axis, saved, reported

    def run(
        self, roots: PyTree, step: int, state: PyTree, replay: PyTree, done: list[bool], *hooks: Any
    ) -> tuple[PyTree, list[Metrics]]:
        """Puts the models into the state of all seeds and marks all as done; also returns the metrics of their fits."""
        del roots, step, replay, hooks
        axis = self._axis
        unfitted = axis.split(axis.lift(lambda mine: mine.model)(state))
        models = axis.place(axis.join([packing.unpack(model, saved) for model, saved in zip(unfitted, self._saved)]))
        put = axis.lift(lambda mine, model: mine.replace(model=model), donate=(0,))
        done[:] = [True] * len(done)
        return put(state, models), self._reported


def in_place_of_the_fit(
    run: RunConfig,
    config: Any,
    algorithm: Algorithm,
    data_set: DataSet | None,
    spaces: Spaces,
    axis: SeedAxis,
    phases: tuple[PhaseRunner, ...],
) -> tuple[tuple[PhaseRunner, ...], list[str]]:
    """Returns the phases of a run, with the saved model of `run.fitted_model` in place of the fit, and notes on it.

    A run whose newest checkpoint is past its fit needs no other run any more, and keeps its phases.

    Raises:
      ValueError: the run fits no model, or fits it more than once; or it would fit another one than that run did.
    """
    names = [phase.name for phase in algorithm.phases]
    if data_set is None or FIT not in names:
        raise ValueError(
            f"fitted_model must be '' for {run.algorithm}, which does not fit a model to a data set, got "
            f"{run.fitted_model!r}"
        )
    if max(checkpoint.steps(Path(run.directory)), default=0) > algorithm.phases[names.index(FIT)].first:
        return phases, []
    at, source = names.index(FIT), files.local_path(run.fitted_model)
    try:
        saved, theirs = checkpoint.load(source), run_json.read_config(source)
        lines = metrics.read(source / metrics.FILE_NAME)
    except (StorageFailure, OSError, ValueError) as error:
        raise ValueError(f"fitted_model must be the directory of a run, got {run.fitted_model!r} ({error})") from error
    _check_same(run, config, theirs, saved, data_set, spaces, at)
    models = [saved.arrays[str(seed)]["state"]["model"] for seed in run.seeds]
    reported = [_fit_metrics(lines, saved, theirs.run.seeds, seed) for seed in run.seeds]
    notes = [f"model: fitted by {run.fitted_model}"]
    notes += [f"  {text}: with a fit of its own the numbers may differ" for text in run_json.changed_versions(theirs)]
    return (*phases[:at], FittedModel(axis, phases[at], models, reported), *phases[at + 1 :]), notes


def _check_same(
    run: RunConfig, config: Any, theirs: SavedConfig, saved: Saved, data_set: DataSet, spaces: Spaces, at: int
) -> None:
    """Raises ValueError unless a run has fitted, for the same seeds, the model that this one would."""
    if not hasattr(theirs.algorithm, "model"):
        raise ValueError(f"fitted_model must be a run that fitted a model, got {run.fitted_model!r}")
    old, new = _what_a_fit_depends_on(theirs.algorithm), _what_a_fit_depends_on(config)
    differ = list(options.differences(old, new).values())
    sha256 = saved.record.get("dataset_sha256")
    if sha256 != data_set.sha256:
        differ.append(f"the SHA-256 of its data was {sha256}, is {data_set.sha256}")
    was, now = theirs.task or {}, spaces_to_json(spaces)
    differ += [
        f"{name} was {was[name]}, is {now[name]}" for name in SCALES_OF_ACTIONS if was and was[name] != now[name]
    ]
    missing = [str(seed) for seed in run.seeds if str(seed) not in saved.arrays]
    if missing:
        differ.append(f"it has no seed {', '.join(missing)}")
    step, phase = saved.record["step"], saved.record["phase"]
    if step == 0 or (step == 1 and phase is not None and phase <= at):
        differ.append("its fit has not ended")
    if differ:
        raise ValueError(
            f"fitted_model must be a run with the model that this one would fit, got {run.fitted_model!r}: "
            f"{'; '.join(differ)}"
        )


def _what_a_fit_depends_on(config: Any) -> dict[str, Any]:
    """Returns the knobs of a fit by full path, and those that decide which number its phase, and so its keys, have."""
    others = {name: getattr(config, name, None) for name in ("termination_fn", "obs_scaling")}
    return {f"model.{name}": value for name, value in options.values(config.model).items()} | others


def _fit_metrics(lines: list[dict[str, Any]], saved: Saved, seeds: tuple[int, ...], seed: int) -> Metrics:
    """Returns the newest metrics of a seed's fit, without the name of the phase.

    Args:
      lines: of the run's metrics.
      saved: its checkpoint, which holds what no line has yet.
      seeds: all seeds of the run.
    """
    prefix = f"{FIT}/"
    newest: Metrics = {}
    for line in [*lines, saved.record["record"]["pending"][seeds.index(seed)] | {"seed": seed}]:
        if line["seed"] == seed:
            newest |= {name.removeprefix(prefix): value for name, value in line.items() if name.startswith(prefix)}
    return newest
