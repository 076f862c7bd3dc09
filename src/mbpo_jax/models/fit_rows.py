"""Which rows of the buffer a fit learns from, and in what order: held-out split, bootstrap, minibatches.

All its randomness is index arithmetic on the fit's key (`permutation.py`): nothing the size of the buffer is drawn,
sorted or kept, the cost of a minibatch does not depend on how much data there is, and nothing recompiles as it grows.

References: Janner et al. 2019 (MBPO), official code `models/bnn.py`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mbpo_jax import ensemble, permutation, replay
from mbpo_jax.models.gaussian_state import GaussianConfig
from mbpo_jax.replay import Replay
from mbpo_jax.types import Array, Key


class Split(NamedTuple):
    """Which rows a fit learns from: a random order of all rows, of which the first `num_holdout` are held out."""

    order: Array  # round words of the permutation of range(num_rows)
    num_rows: Array
    num_holdout: Array

    @property
    def num_train(self) -> Array:
        """Rows learnt from."""
        return self.num_rows - self.num_holdout

    def holdout(self, index: Array) -> Array:
        """Ages, in the buffer, of held-out rows [...]."""
        return permutation.shuffled(self.order, index, self.num_rows)

    def train(self, index: Array) -> Array:
        """Ages, in the buffer, of training rows [...]."""
        return permutation.shuffled(self.order, self.num_holdout + index, self.num_rows)


def num_holdout_rows(num_rows: Array, config: GaussianConfig) -> Array:
    """min(holdout_fraction * N, max_holdout_rows)."""
    num_holdout = jnp.floor(config.holdout_fraction * num_rows).astype(jnp.int32)
    return jnp.minimum(num_holdout, config.max_holdout_rows)


def split_rows(key: Key, num_rows: Array, config: GaussianConfig) -> Split:
    """The split of a fit over `num_rows` rows."""
    return Split(permutation.words(key), num_rows, num_holdout_rows(num_rows, config))


def bootstrap_rows(key: Key, split: Split, epoch: Array, minibatch: Array, num_members: int, batch_size: int) -> Array:
    """Ages [..., M, B] of the rows of minibatches [...] of an epoch.

    Each member draws, once per fit, `num_train` training rows with replacement, and sees them in a new order every
    epoch. Places beyond the end of the epoch repeat its last row; `minibatch_weights` gives them no weight.
    """
    key_bootstrap, key_epochs = jax.random.split(key)
    streams = permutation.words(key_bootstrap, num_members)
    place = jnp.minimum(minibatch[..., None] * batch_size + jnp.arange(batch_size), split.num_train - 1)

    def rows_of_member(stream: Array, index: Array) -> Array:
        key_epoch = jax.random.fold_in(jax.random.fold_in(key_epochs, index), epoch)
        shuffled = permutation.shuffled(permutation.words(key_epoch), place, split.num_train)
        return permutation.draws(stream, shuffled, split.num_train)

    drawn = ensemble.lift(rows_of_member)(streams, jnp.arange(num_members))
    return split.train(jnp.moveaxis(drawn, 0, -2))


def minibatch_weights(split: Split, minibatch: Array, batch_size: int) -> Array:
    """Weights [..., B] that average minibatches [...], the last, shorter one of an epoch too; they sum to one."""
    inside = minibatch[..., None] * batch_size + jnp.arange(batch_size) < split.num_train
    return inside / jnp.maximum(jnp.sum(inside, -1, keepdims=True), 1)


def inputs_and_targets(buffer: Replay, age: Array) -> tuple[Array, Array]:
    """Raw model inputs [..., O + A] and targets [..., D] of rows of the buffer."""
    rows = replay.take(buffer, age)
    inputs = jnp.concatenate([rows.obs, rows.action], -1)
    return inputs, jnp.concatenate([rows.reward[..., None], rows.next_obs - rows.obs], -1)
