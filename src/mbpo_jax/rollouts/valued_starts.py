"""Start states of rollouts that are drawn by their value.

References: Lai et al. 2020 (BMPO), official code: states of high value more often, as a Boltzmann distribution.
"""

import jax
import jax.numpy as jnp

from mbpo_jax.types import Array, Key

MOST_LOG_RATIO = 10.0  # between the probabilities of the best and the worst state: e^10 is 22,000


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
