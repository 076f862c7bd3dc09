"""An actor loss whose gradient goes through the model, along the trajectories imagined from the actor's actions.

References: Clavera et al. 2020 (MAAC); Amos et al. 2021 (SAC-SVG); Heess et al. 2015 (SVG).
"""

import jax
import jax.numpy as jnp

from mbpo_jax.rollouts import trajectories, value_expansion
from mbpo_jax.types import Agent, Array, Dynamics, Key, PyTree, Transition


def actor_loss(
    dynamics: Dynamics,
    agent: Agent,
    num_steps: int,
    discount: float,
    key: Key,
    actor: PyTree,
    state: PyTree,
    batch: Transition,
) -> tuple[Array, Array]:
    """Returns minus the mean value [] of a batch's states, and the log-probability [B] of the first actions there.

    The value sums the rewards and bonuses of `num_steps` imagined steps of the actor, and the smallest critic's value
    after them, unless the row has ended before. With 0 steps it is SAC's own loss.

    With the first four arguments bound, it is a `Learning.actor_loss`.

    Args:
      actor: whose loss it is.
      state: of the agent, whose critics and temperature are used without change.
    """
    assert agent.draw is not None and agent.critic is not None
    draw, critic = agent.draw, agent.critic

    def choose(key: Key, number: Array, obs: Array) -> tuple[Array, tuple[Array, Array]]:
        action, bonus, log_prob = draw(key, state, actor, obs)
        return action, (bonus, log_prob)

    key_path, key_last = jax.random.split(key)
    path = trajectories.unroll(key_path, dynamics, choose, batch.obs, num_steps)
    last_action, last_bonus, last_log_prob = draw(key_last, state, actor, path.obs[-1])
    last_q = jnp.min(critic.q_values(state, path.obs[-1], last_action), axis=0)
    bonus, log_prob = path.chosen
    value, _ = value_expansion.values_along(path.replace(chosen=bonus), last_q + last_bonus, discount)
    usable = (~path.exploded).astype(jnp.float32)
    first_log_prob = log_prob[0] if num_steps else last_log_prob
    return -jnp.sum(usable * value) / jnp.maximum(jnp.sum(usable), 1.0), first_log_prob
