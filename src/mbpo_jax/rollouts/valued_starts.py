"""Start states of rollouts, drawn by their value.

References: Lai et al. 2020 (BMPO), official code: a Boltzmann distribution, which favours states of high value.
"""

import jax
import jax.numpy as jnp

from mbpo_jax.types import Agent, Array, Key, PyTree

MOST_LOG_RATIO = 10.0  # between the probabilities of the best and the worst state: e^10 is 22,000


def value(agent: Agent, key: Key, state: PyTree, obs: Array) -> Array:
    """Returns the value [B] that starts are drawn by: the critics' mean at the agent's action plus their targets' mean.

    This is twice a value, as in the official code, whose betas assume that scale.
    """
    assert agent.critic is not None
    action = agent.act(key, agent.actor(state), obs, True)
    critics = agent.critic.q_values, agent.critic.target_q_values
    return jnp.sum(jnp.stack([jnp.mean(q_values(state, obs, action), axis=0) for q_values in critics]), axis=0)


def values(agent: Agent, key: Key, state: PyTree, obs: Array, block_rows: int) -> Array:
    """Returns `value` of obs [B, O], in blocks of rows so that not all hidden layers are in memory at once."""

    def one(row: tuple[Key, Array]) -> Array:
        return value(agent, row[0], state, row[1][None])[0]

    return jax.lax.map(one, (jax.random.split(key, obs.shape[0]), obs), batch_size=block_rows)


def probabilities(value: Array, beta: Array | float) -> Array:
    """Returns probabilities [B] proportional to exp(beta * value), for values [B].

    beta is capped where the best state is e^10 times as likely as the worst. 0 is the uniform distribution.
    """
    spread = jnp.max(value) - jnp.min(value)
    held = jnp.minimum(beta, MOST_LOG_RATIO / jnp.maximum(spread, jnp.finfo(jnp.float32).tiny))
    return jax.nn.softmax(held * (value - jnp.max(value)))  # a difference, because held * value may be infinite


def draw(key: Key, value: Array, beta: Array | float, num_draws: int) -> Array:
    """Draws indices [num_draws] of states with these values [B], with replacement."""
    return jax.random.choice(key, value.shape[0], (num_draws,), p=probabilities(value, beta))
