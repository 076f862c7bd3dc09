"""How real rows become a network's inputs and targets, and how its predictions become states."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from mbpo_jax.types import Array, Spec, Transition


class Encoding(NamedTuple):
    """The three conversions between rows and a network of I inputs and D targets."""

    num_inputs: int
    num_targets: int
    inputs: Callable[[Array, Array], Array]  # (obs [..., O], action [..., A]) -> [..., I]
    examples: Callable[[Transition], tuple[Array, Array]]  # rows [...] -> (inputs [..., I], targets [..., D])
    decode: Callable[[Array, Array, Array], tuple[Array, Array]]
    """(obs [..., O], action [..., A], target [..., D]) -> (next_obs [..., O], reward [...])."""


def forward(spec: Spec) -> Encoding:
    """Returns MBPO's encoding: [obs, action] to [reward, next_obs - obs]; D = 1 + O."""
    return Encoding(spec.obs_dim + spec.action_dim, 1 + spec.obs_dim, _joined, _changes, _moved)


def backward(spec: Spec) -> Encoding:
    """Returns BMPO's encoding of backward steps: [next_obs, action] to [reward, obs - next_obs]; D = 1 + O.

    What `inputs` and `decode` call obs is the observation after the step; their next_obs is the one before it.

    References: Lai et al. 2020 (BMPO).
    """
    return Encoding(spec.obs_dim + spec.action_dim, 1 + spec.obs_dim, _joined, _changes_backward, _moved)


def _joined(obs: Array, action: Array) -> Array:
    return jnp.concatenate([obs, action], -1)


def _changes(rows: Transition) -> tuple[Array, Array]:
    targets = jnp.concatenate([rows.reward[..., None], rows.next_obs - rows.obs], -1)
    return _joined(rows.obs, rows.action), targets


def _changes_backward(rows: Transition) -> tuple[Array, Array]:
    return _changes(rows.replace(obs=rows.next_obs, next_obs=rows.obs))


def _moved(obs: Array, action: Array, target: Array) -> tuple[Array, Array]:
    del action
    return obs + target[..., 1:], target[..., 0]
