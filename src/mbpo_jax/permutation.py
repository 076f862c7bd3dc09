"""Random permutations by index arithmetic: the cost is per requested element, not per existing element.

A minibatch of a million shuffled rows needs 256 of their indices; sorting the million to find them would make the cost
of a minibatch grow with the buffer.
"""

import jax
import jax.numpy as jnp

from mbpo_jax.types import Array, Key

NUM_ROUNDS = 6


def round_keys(key: Key, num_keys: int = NUM_ROUNDS) -> Array:
    """Draws the 32-bit round keys [num_keys] that the functions below take."""
    return jax.random.bits(key, (num_keys,), jnp.uint32)


def shuffled(keys: Array, index: Array, num_rows: Array | int) -> Array:
    """Returns where a keyed pseudo-random permutation of range(num_rows) sends each index.

    A Feistel network over pairs (left, right) with left * right_size + right = index; the pairs slightly outnumber the
    rows, and an index that lands outside is permuted again until it lands inside.

    Args:
      keys: [NUM_ROUNDS], uint32, from `round_keys`.
      index: [...], int, each in [0, num_rows).
      num_rows: [], int, at most 2^31; may be traced.
    Returns:
      [...], int32, each in [0, num_rows); distinct for distinct indices.
    References: Black and Rogaway 2002, "Ciphers with arbitrary finite domains", method 3.
    """
    return _shuffled(keys, index, jnp.asarray(num_rows, jnp.uint32))


@jax.jit  # so that a program traces it once for all calls of a shape: inlined, it was a third of all that is traced
def _shuffled(keys: Array, index: Array, num_rows: Array) -> Array:
    # With an index out of range, or no rows at all, the walk would never end.
    num_rows = jnp.maximum(num_rows, 1)
    index = jnp.minimum(index.astype(jnp.uint32), num_rows - 1)
    left_size = jnp.ceil(jnp.sqrt(num_rows.astype(jnp.float32))).astype(jnp.uint32)
    left_size = jnp.maximum(left_size, 1)
    right_size = (num_rows + left_size - 1) // left_size

    def walk(x: Array) -> Array:
        return jnp.where(x >= num_rows, _cipher(keys, x, left_size, right_size), x)

    first = _cipher(keys, index, left_size, right_size)
    return jax.lax.while_loop(lambda x: jnp.any(x >= num_rows), walk, first).astype(jnp.int32)


def draws(stream: Array, index: Array, num_rows: Array | int) -> Array:
    """Draws uniformly and independently from range(num_rows), with replacement: draw number `index` of a stream.

    Args:
      stream: uint32, broadcast against index; each is one of `round_keys`.
      index: [...], int, number of the draw.
      num_rows: [], int; may be traced.
    Returns:
      [...], int32, each in [0, num_rows).
    """
    bits = _mix(_mix(index.astype(jnp.uint32) ^ stream) + stream * jnp.uint32(0x9E3779B9))
    return (bits % jnp.asarray(num_rows, jnp.uint32)).astype(jnp.int32)


@jax.jit
def _cipher(keys: Array, x: Array, left_size: Array, right_size: Array) -> Array:
    """Applies the rounds of the network once; a bijection of range(left_size * right_size)."""
    left, right = x // right_size, x % right_size
    for i in range(0, NUM_ROUNDS, 2):
        left = _add_mod(left, _below(_mix(right ^ keys[i]), left_size), left_size)
        right = _add_mod(right, _below(_mix(left ^ keys[i + 1]), right_size), right_size)
    return left * right_size + right


def _mix(x: Array) -> Array:
    """Applies a bijection of words in which each input bit flips every output bit half of the time (murmur3's fmix)."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def _below(bits: Array, size: Array) -> Array:
    """Returns a number below `size` (at most 2^16) from 32 random bits, without a division."""
    return ((bits >> 16) * size) >> 16


def _add_mod(x: Array, y: Array, size: Array) -> Array:
    total = x + y
    return jnp.where(total >= size, total - size, total)
