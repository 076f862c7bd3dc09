"""Backward steps: a learned model predicts the observation from which a step led to a given one.

References: Lai et al. 2020 (BMPO), section 4.
"""

from mbpo_jax.types import Array, Dynamics, Key, PyTree, TerminationFn, WorldModel


def dynamics(world: WorldModel, belief: PyTree, ends: TerminationFn) -> Dynamics:
    """Returns dynamics that move rows backwards, one version for each elite of the model.

    Args:
      world: a model of `encoding.backward`.
      ends: the task's termination function.
    """

    def step(key: Key, group: Array, obs: Array, action: Array) -> tuple[Array, Array, Array]:
        before, reward = world.sample(key, belief, group, obs, action)
        return before, reward, is_impossible(ends, before, action, obs)

    return Dynamics(step, world.num_groups, backward=True)


def is_impossible(ends: TerminationFn, before: Array, action: Array, obs: Array) -> Array:
    """Returns where no step can have led from `before` [B, O] to `obs`, from which the episode went on; bool [B].

    The episode would have ended at `before`, or with the step itself. A termination function takes a whole step, and
    the one that led to `before` is unknown, so it is given one that stays there. This is right for all that only look
    at where a step leads, as those of `terminations` do.
    """
    return ends(before, action, before) | ends(before, action, obs)
