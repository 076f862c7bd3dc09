"""Knobs and state of a world model of Gaussian processes."""

import dataclasses
from typing import NamedTuple

import optax
from flax import struct

from mbpo_jax.models.encoding import Encoding
from mbpo_jax.models.gp_regression import Hyperparameters, Posterior
from mbpo_jax.normalizer import Normalizer
from mbpo_jax.options import check, option
from mbpo_jax.types import Array, PyTree


@dataclasses.dataclass(frozen=True)
class GpConfig:
    """Knobs of the processes and of their fit."""

    inducing_rows: int = option(
        200,
        "Rows on which predictions are based, drawn from all rows; with no more rows than this, all are used.",
        minimum=1,
        maximum=1000,
    )
    fit_max_iterations: int = option(
        100, "Most iterations of L-BFGS on the evidence in a fit; rounded up to whole compiled calls.", minimum=1
    )
    fit_slice_iterations: int = option(
        5, "Iterations per compiled call; a fit ends after a call in which no evidence has risen.", minimum=1
    )

    def __post_init__(self) -> None:
        check(self)


class GpBelief(struct.PyTreeNode, kw_only=True):
    """What predicting needs of the processes: no fit under way."""

    hyper: Hyperparameters  # [D, ...]
    posterior: Posterior  # [D, ...]
    x: Array  # [M, I], scaled inputs of the inducing rows
    inputs: Normalizer  # [I]
    targets: Normalizer  # [D]


class GpFit(struct.PyTreeNode, kw_only=True):
    """The state of the running fit, or of the last one at its end."""

    running: Array  # [], bool
    num_rows: Array  # [], int32, real rows that the fit is over
    iteration: Array  # [], int32, iterations completed
    rising: Array  # [], bool, whether any target's evidence has risen in the last call
    evidence: Array  # [D], nats per inducing row
    optimizer: PyTree  # [D, ...]


class GpState(struct.PyTreeNode, kw_only=True):
    """Warm-started processes: a fit starts from the last one's hyperparameters where they explain its rows better."""

    belief: GpBelief
    fit: GpFit


class Parts(NamedTuple):
    """The static parts of a model, passed to the functions of `gp` and `gp_fit`."""

    config: GpConfig
    encoding: Encoding
    optimizer: optax.GradientTransformationExtraArgs

    @property
    def names(self) -> tuple[str, ...]:
        """Returns the names of the targets for messages."""
        return tuple(f"target {i}" for i in range(self.encoding.num_targets))
