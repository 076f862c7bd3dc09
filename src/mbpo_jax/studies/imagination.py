"""Provides the model of a run, checked before a study reads it."""

from mbpo_jax.algorithms import REGISTRY, Entry
from mbpo_jax.driver.trained import Trained
from mbpo_jax.models.learned_termination import ModelWithEnds
from mbpo_jax.models.sequence import SequenceState
from mbpo_jax.types import Dynamics, PyTree


def dynamics(trained: Trained) -> Dynamics:
    """Returns the dynamics that move imagined states in a run's rollouts.

    Raises:
      ValueError: its algorithm learns no model, or this checkpoint has no completely fitted one.
    """
    check(trained)
    assert trained.algorithm.dynamics is not None
    return trained.algorithm.dynamics(trained.state)


def check(trained: Trained) -> None:
    """Refuses a run that has no model; raises as `dynamics`."""
    if trained.algorithm.dynamics is None:
        with_models = [name for name, entry in REGISTRY.items() if _imagines(entry)]
        raise ValueError(
            f"the run must have a model (--algorithm one of {', '.join(with_models)}), got {trained.run.algorithm}"
        )
    check_fitted(trained, trained.state.model)


def check_fitted(trained: Trained, model: PyTree) -> None:
    """Refuses a checkpoint at which this one of its models was not completely fitted; raises as `dynamics`."""
    predicting = ensemble(model)
    if isinstance(predicting, SequenceState):  # it learns a little at every step
        first = next(phase.first for phase in trained.algorithm.phases if phase.name == "fit_model")
        is_fitted, is_running = trained.step >= first, False
    else:
        awaits_ends = isinstance(model, ModelWithEnds) and bool(model.pending)
        is_fitted, is_running = int(predicting.fit.num_rows) > 0, bool(predicting.fit.running) or awaits_ends
    if is_running or not is_fitted:
        why = "a fit was under way" if is_running else "none had been fitted"
        raise ValueError(f"the checkpoint must hold a model, but at step {trained.step} {why}; give another --step")


def _imagines(entry: Entry) -> bool:
    return entry.build(entry.default_config(), entry.spec).dynamics is not None


def ensemble(model: PyTree) -> PyTree:
    """Returns the ensemble, or whatever else predicts, of a run's model, which may also have a classifier of ends."""
    return model.world if isinstance(model, ModelWithEnds) else model


def whole_shares(trained: Trained, num_rows: int) -> int:
    """Returns the smallest number of rows, at least `num_rows`, that divides equally among the elites."""
    num_groups = dynamics(trained).num_groups
    return -(-num_rows // num_groups) * num_groups
