"""Knobs and state of a learned ensemble."""

import dataclasses

from flax import struct

from mbpo_jax.learner import Learner
from mbpo_jax.normalizer import Normalizer
from mbpo_jax.options import check, option
from mbpo_jax.types import Array, PyTree


@dataclasses.dataclass(frozen=True)
class GaussianConfig:
    """Knobs of the model and of its fit."""

    num_members: int = option(7, "Networks in the ensemble.", minimum=1, maximum=1000)
    num_elites: int = option(
        5, "Elite members, those with the lowest held-out error, which generate the rollouts.", minimum=1
    )
    model_hidden_units: int = option(200, "Units of each hidden layer of a member.", minimum=1, maximum=2**16)
    model_learning_rate: float = option(1e-3, "Adam step size of the model.", minimum=0.0, maximum=1.0)
    model_batch_size: int = option(256, "Rows per member in a minibatch of the fit.", minimum=1)
    model_weight_decays: tuple[float, ...] = option(
        (2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4),
        "Weight decay of each layer, output layer last; there is one hidden layer fewer than values.",
        minimum=0.0,
    )
    scale_targets: bool = option(
        False, "Standardise each target of the model, the reward included, by the rows of the fit.", before=False
    )
    holdout_fraction: float = option(0.2, "Share of the real rows held out of a fit.", minimum=0.0, maximum=0.9)
    max_holdout_rows: int = option(5000, "Maximum number of real rows held out of a fit.", minimum=1)
    fixed_holdout: bool = option(
        False,
        "Hold the same rows out of every fit, every n-th with holdout_fraction=1/n, instead of drawing them anew.",
        before=False,
    )
    fit_patience_epochs: int = option(
        5, "A fit stops once no member has improved for more epochs than this.", minimum=0
    )
    fit_epoch_minibatches: int = option(
        50,
        "Fewest minibatches in an epoch of the fit: with few rows, an epoch passes over them several times. 1: an "
        "epoch is one pass.",
        minimum=1,
        before=1,
    )
    fit_improvement: float = option(
        0.01, "Relative fall of a member's held-out error that counts as improving.", minimum=0.0, maximum=0.99
    )
    fit_max_gradient_steps: int = option(
        500, "Maximum gradient steps of a model fit; 0: no limit, early stopping decides.", minimum=0, before=0
    )
    fit_decay_fraction: float = option(
        0.0,
        "Last share of fit_max_gradient_steps, over which the step size falls to 0.",
        minimum=0.0,
        maximum=1.0,
        before=0.0,
    )
    fit_slice_minibatches: int = option(
        16,
        "Minibatches per compiled call of a fit; with more, progress and Ctrl-C respond later.",
        minimum=1,
    )

    def __post_init__(self) -> None:
        check(self)
        one_in = 1.0 / self.holdout_fraction if self.holdout_fraction else 0.0
        if self.fixed_holdout and (one_in < 2.0 or abs(one_in - round(one_in)) > 1e-3):
            raise ValueError(
                "fixed_holdout needs a holdout_fraction of 1/n for a whole number n: 0.5, 0.25, 0.2, 0.1, ...; "
                f"got {self.holdout_fraction}"
            )
        if self.fit_decay_fraction and not self.fit_max_gradient_steps:
            raise ValueError(
                f"fit_decay_fraction must be 0 where fit_max_gradient_steps is 0, got {self.fit_decay_fraction}"
            )
        if self.num_elites > self.num_members:
            raise ValueError(f"num_elites must be at most num_members ({self.num_members}), got {self.num_elites}")


class FitState(struct.PyTreeNode, kw_only=True):
    """The progress of a fit between its programs."""

    running: Array  # [], bool
    num_rows: Array  # [], int32, real rows the fit is over
    epoch: Array  # [], int32, epochs completed
    minibatch: Array  # [], int32, minibatches completed in this epoch
    num_steps: Array  # [], int32, gradient steps of this fit
    epochs_since_improvement: Array  # [], int32
    best_params: PyTree  # [M, ...], each member's snapshot
    best_mse: Array  # [M], held-out error of the snapshots


class Belief(struct.PyTreeNode, kw_only=True):
    """What predicting needs of an ensemble: no optimiser and no fit under way."""

    params: PyTree  # [M, ...]
    shared: PyTree  # what members share
    inputs: Normalizer  # [I]
    elites: Array  # [E], int32, best first
    targets: Normalizer | None = None  # [D]; None: learnt unscaled


class EnsembleState(struct.PyTreeNode, kw_only=True):
    """A warm-started ensemble: parameters and optimiser moments carry over from one fit to the next."""

    members: Learner  # [M, ...]
    shared: Learner  # of all members, such as the bounds of log-variances
    inputs: Normalizer  # [I]
    elites: Array  # [E], int32, best first
    fit: FitState  # of the running fit, or of the last one at its end
    targets: Normalizer | None = None  # [D]; None: learnt unscaled


def belief(model: EnsembleState) -> Belief:
    """Returns the part of an ensemble's state that predicting needs."""
    return Belief(
        params=model.members.params,
        shared=model.shared.params,
        inputs=model.inputs,
        elites=model.elites,
        targets=model.targets,
    )
