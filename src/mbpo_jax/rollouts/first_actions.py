"""The value of actions under a model: rewards of a few imagined steps that begin with them, and a value after these.

References: Lai et al. 2020 (BMPO), which acts this way in the environment.
"""

from collections.abc import Callable

import jax.numpy as jnp

from mbpo_jax.rollouts import trajectories
from mbpo_jax.rollouts.particles import FAILED
from mbpo_jax.types import Array, Dynamics, Key


def returns(
    dynamics: Dynamics,
    policy: Callable[[Array], Array],
    value: Callable[[Array], Array],
    num_steps: int,
    discount: float,
    key: Key,
    obs: Array,
    actions: Array,
) -> Array:
    """Returns sum_(t < H) discount^t r_t + discount^H V(s_H) [N] of imagined paths of H steps, all from one state [O].

    A terminated path earns nothing more and has no value after it; one that explodes counts as `particles.FAILED`.
    Paths are assigned to the versions of the dynamics afresh at each step.

    Args:
      policy: (obs [N, O]) -> action [N, A] for all steps but the first.
      value: (obs [N, O]) -> [N].
      num_steps: H, 1 or more.
      actions: [N, A], the first.
    """

    def choose(key: Key, number: Array, obs: Array) -> tuple[Array, tuple[()]]:
        return jnp.where(number == 0, actions, policy(obs)), ()

    start = jnp.broadcast_to(obs, (actions.shape[0], *obs.shape))
    path = trajectories.unroll(key, dynamics, choose, start, num_steps)
    weights = discount ** jnp.arange(num_steps + 1)
    total = weights[:-1] @ path.reward + weights[-1] * jnp.where(path.survives, value(path.obs[-1]), 0.0)
    return jnp.where(path.exploded, FAILED, total)
