"""Action values in a table, and acting by them: epsilon-greedily, with ties broken at random."""

import jax
import jax.numpy as jnp

from mbpo_jax.types import Array, Key


def greedy(key: Key, values: Array) -> Array:
    """Returns the index of the largest of values [A], int32 []; ties are broken at random."""
    return jax.random.categorical(key, jnp.where(values == jnp.max(values), 0.0, -jnp.inf)).astype(jnp.int32)


def epsilon_greedy(key: Key, values: Array, epsilon: float) -> Array:
    """Returns `greedy`, or with probability `epsilon` a uniformly random action; int32 []."""
    key_greedy, key_whether, key_any = jax.random.split(key, 3)
    anything = jax.random.randint(key_any, (), 0, values.shape[0])
    return jnp.where(jax.random.bernoulli(key_whether, epsilon), anything, greedy(key_greedy, values))


def move(q: Array, state: Array, action: Array, target: Array, rate: Array | float) -> tuple[Array, Array]:
    """Moves one entry of Q [O, A] a fraction `rate` of the way to its target [].

    Returns:
      Q, and the error before the move, target - Q, [].
    """
    error = target - q[state, action]
    return q.at[state, action].add(rate * error), error
