"""Start states of rollouts that are drawn by their value.

References: Lai et al. 2020 (BMPO), official code: states of high value more often, as a Boltzmann distribution.
"""

import jax
import jax.numpy as jnp

from mbpo_jax.types import Agent, Array, Key, PyTree

MOST_LOG_RATIO = 10.0  # between the probabilities of the best and the worst state: e^10 is 22,000


def value(agent: Agent, key: Key, state: PyTree, obs: Array) -> Array:
    """Returns what starts are drawn by [B]: the mean of the critics at the agent's action, plus that of their targets.

    It is a value twice over, as in the official code, whose betas go with it.
    """
    assert agent.critic is not None
    action = agent.act(key, agent.actor(state), obs, True)
    judges = agent.critic.q_values, agent.critic.target_q_values
    return jnp.sum(jnp.stack([jnp.mean(q_values(state, obs, action), axis=0) for q_values in judges]), axis=0)


def values(agent: Agent, key: Key, state: PyTree, obs: Array, block_rows: int) -> Array:
    """Returns `value` of obs [B, O] in blocks of rows: the hidden layers of all need not be kept at once."""

    def one(row: tuple[Key, Array]) -> Array:
        return value(agent, row[0], state, row[1][None])[0]

    return jax.lax.map(one, (jax.random.split(key, obs.shape[0]), obs), batch_size=block_rows)


def probabilities(value: Array, beta: Array | float) -> Array:
    """Returns probabilities [B] proportional to exp(beta * value), for values [B].

    beta is held below that at which the best state is e^10 times as likely as the worst. 0 is the uniform distribution.
    """
    spread = jnp.max(value) - jnp.min(value)
    held = jnp.minimum(beta, MOST_LOG_RATIO / jnp.maximum(spread, jnp.finfo(jnp.float32).tiny))
    return jax.nn.softmax(held * (value - jnp.max(value)))  # a difference, for held * value may be infinite


def draw(key: Key, value: Array, beta: Array | float, num_draws: int) -> Array:
    """Draws numbers [num_draws] of states with these values [B], with replacement."""
    return jax.random.choice(key, value.shape[0], (num_draws,), p=probabilities(value, beta))
