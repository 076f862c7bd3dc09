"""Steps backwards: which observation was before, as a learned model of what led to an observation tells it.

References: Lai et al. 2020 (BMPO), section 4.
"""

from mbpo_jax.types import Array, Dynamics, Key, PyTree, TerminationFn, WorldModel


def dynamics(world: WorldModel, belief: PyTree, ends: TerminationFn) -> Dynamics:
    """Returns what moves rows backwards; the elites of the model take turns.

    Args:
      world: a model of `encoding.backward`.
      ends: the task's rule of ends.
    """

    def step(key: Key, group: Array, obs: Array, action: Array) -> tuple[Array, Array, Array]:
        before, reward = world.sample(key, belief, group, obs, action)
        return before, reward, is_impossible(ends, before, action, obs)

    return Dynamics(step, world.num_groups, backward=True)


def is_impossible(ends: TerminationFn, before: Array, action: Array, obs: Array) -> Array:
    """Returns where no step can have led from `before` [B, O] to `obs`, from which the episode went on; bool [B].

    An episode would have ended at `before`, or with the step itself. Rules are functions of a step, and none that leads
    to `before` is known, so that they are asked of one that stays there: right for all rules that look at where steps
    lead, as those of `terminations` do.
    """
    return ends(before, action, before) | ends(before, action, obs)
