"""What a fit must know about one network of an ensemble."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from mbpo_jax.types import Array, Key, Metrics, PyTree


class Member(NamedTuple):
    """One network, the loss that fits it, and what all networks of the ensemble share."""

    init: Callable[[Key], PyTree]  # (key) -> params
    init_shared: Callable[[], PyTree]  # () -> parameters that members share; {} if there are none
    loss: Callable[[PyTree, PyTree, Array, Array, Array, Key | None], Array]
    """(params, shared, x [B, I], y [B, D], weights [B] that sum to one, key if the loss is random) -> []."""
    shared_loss: Callable[[PyTree], Array]  # (shared) -> [], counted once, not once per member
    predict: Callable[[PyTree, PyTree, Array], tuple[Array, Array]]
    """(params, shared, x [B, I]) -> (mean, log_var) [B, D]; a log_var of -inf means no noise."""
    metrics: Callable[[PyTree], Metrics]  # (shared) -> metrics of the shared parameters
    random_loss: bool = False  # whether the loss needs a key


SHARES_NOTHING: dict[str, Any] = {
    "init_shared": dict,
    "shared_loss": lambda shared: jnp.zeros(()),
    "metrics": lambda shared: {},
}
"""The fields of members that share no parameters."""
