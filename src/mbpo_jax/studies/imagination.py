"""The model of a run, checked before a study reads it."""

from mbpo_jax.algorithms import REGISTRY
from mbpo_jax.driver.trained import Trained
from mbpo_jax.models.learned_termination import ModelWithEnds
from mbpo_jax.models.state import EnsembleState
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
        with_models = [name for name, member in REGISTRY.items() if hasattr(member.default_config(), "model")]
        raise ValueError(
            f"the run must have a model (--algorithm one of {', '.join(with_models)}), got {trained.run.algorithm}"
        )
    fit = ensemble(trained.state.model).fit
    if int(fit.num_rows) == 0 or bool(fit.running):
        why = "a fit was under way" if bool(fit.running) else "none had been fitted"
        raise ValueError(f"the checkpoint must hold a model, but at step {trained.step} {why}; give another --step")


def ensemble(model: PyTree) -> EnsembleState:
    """Returns the ensemble of a run's model, which may also contain a classifier of terminals."""
    found: EnsembleState = model.world if isinstance(model, ModelWithEnds) else model
    return found


def whole_shares(trained: Trained, num_rows: int) -> int:
    """Returns the smallest number of rows, at least `num_rows`, that divides equally among the elites."""
    num_groups = dynamics(trained).num_groups
    return -(-num_rows // num_groups) * num_groups
