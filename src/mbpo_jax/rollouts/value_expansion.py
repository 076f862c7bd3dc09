"""Critic targets that take a few imagined steps before they bootstrap from a critic.

References: Feinberg et al. 2018, "Model-Based Value Expansion for Efficient Model-Free Reinforcement Learning".
"""

import jax
import jax.numpy as jnp

from mbpo_jax.rollouts import trajectories
from mbpo_jax.rollouts.trajectories import Trajectory
from mbpo_jax.types import Agent, Array, Dynamics, Key, PyTree, Regression, Transition


def expand(
    dynamics: Dynamics,
    agent: Agent,
    num_steps: int,
    discount: float,
    regress_on_imagined: bool,
    key: Key,
    state: PyTree,
    batch: Transition,
) -> Regression:
    """Returns the targets of real rows [B], and of the imagined steps that follow them.

    From every next state of the batch, `num_steps` steps are imagined with the actions of the agent's targets. A row's
    target is the discounted rewards from it to the end of the imagined steps, plus the smallest target critic's value
    there. That value is discounted t times for a row t steps before the end (TD-k); the paper's equation prints the
    same power for all. TD3's targets add their smoothing noise to every imagined action, so that all of a target values
    the same policy.

    With the first five arguments bound, it is a `Learning.regression`.

    Args:
      regress_on_imagined: whether critics also regress on the imagined steps, and so learn where they are evaluated
        (the paper's TD-k trick), or only on the real rows.
      state: of the agent.
    Returns:
      B real rows, then, with `regress_on_imagined`, num_steps * B imagined ones; those after an end have weight 0.
    """
    assert agent.critic is not None
    critic = agent.critic
    key_path, key_last = jax.random.split(key)

    def choose(key: Key, number: Array, obs: Array) -> tuple[Array, Array]:
        return critic.target_action(key, state, obs)

    path = trajectories.unroll(key_path, dynamics, choose, batch.next_obs, num_steps)
    last_action, last_bonus = critic.target_action(key_last, state, path.obs[-1])
    last_q = jnp.min(critic.target_q_values(state, path.obs[-1], last_action), axis=0)
    first_value, targets = values_along(path, last_q + last_bonus, discount)
    own = batch.reward + discount * (1.0 - batch.terminal) * first_value
    usable = (~path.exploded | (batch.terminal > 0)).astype(jnp.float32)  # after a real end the path counts for nothing
    if not regress_on_imagined:
        return Regression(batch.obs, batch.action, own, usable)
    weight = path.alive * (1.0 - batch.terminal) * usable
    return Regression(
        obs=jnp.concatenate([batch.obs, *path.obs[:-1]]),
        action=jnp.concatenate([batch.action, *path.action]),
        target=jnp.concatenate([own, *targets]),
        weight=jnp.concatenate([usable, *weight]),
    )


def values_along(path: Trajectory, last_value: Array, discount: float) -> tuple[Array, Array]:
    """Returns the values along trajectories of H steps, whose `chosen` are the bonuses [H, B] of their actions.

    Args:
      last_value: [B], of the last states, bonus included; used only where a row survives.
    Returns:
      The value [B] of the first states, bonus included, and the target [H, B] of each step's action, without its own
      bonus. A row that has ended has value 0.
    """

    def back(value: Array, step: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        reward, bonus, alive = step
        target = reward + discount * value
        return jnp.where(alive, target + bonus, 0.0), target

    end = jnp.where(path.survives, last_value, 0.0)
    return jax.lax.scan(back, end, (path.reward, path.chosen, path.alive), reverse=True)
