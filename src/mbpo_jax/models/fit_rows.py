"""Which rows of the buffer a fit learns from, and in what order: held-out split, bootstrap, minibatches.

All randomness is index arithmetic on the fit's key (`permutation.py`): nothing the size of the buffer is drawn, sorted
or kept, the cost of a minibatch does not depend on the amount of data, and nothing recompiles as it grows.

References: Janner et al. 2019 (MBPO), official code `models/bnn.py`.
"""

import functools

import jax
import jax.numpy as jnp
from flax import struct

from mbpo_jax import ensemble, permutation, replay
from mbpo_jax.models.encoding import Encoding
from mbpo_jax.models.state import GaussianConfig
from mbpo_jax.replay import Replay
from mbpo_jax.types import Array, Key


class Split(struct.PyTreeNode, kw_only=True):
    """Which rows a fit learns from.

    Held-out rows are either the first `num_holdout` of a random order of all rows, or every `one_in`-th row.
    """

    num_rows: Array  # []
    num_holdout: Array  # []
    order: Array | None = None  # round keys of the permutation of range(num_rows); None: held-out rows are fixed
    first: Array | None = None  # [], age of the oldest held-out row, where they are fixed
    one_in: int = struct.field(pytree_node=False, default=0)  # from there on, every one_in-th row is held out

    @property
    def num_train(self) -> Array:
        """Returns the number of training rows."""
        return self.num_rows - self.num_holdout

    def holdout(self, index: Array) -> Array:
        """Returns the ages in the buffer of the held-out rows with these indices [...]; of all rows if none is."""
        if self.first is not None:
            return jnp.where(self.num_holdout > 0, self.first + self.one_in * index, index)
        assert self.order is not None
        return permutation.shuffled(self.order, index, self.num_rows)

    def train(self, index: Array) -> Array:
        """Returns the ages in the buffer of the training rows with these indices [...]."""
        if self.first is not None:
            after = index - self.first  # from there on, each held-out row is followed by one_in - 1 training rows
            return jnp.where(after < 0, index, index + after // (self.one_in - 1) + 1)
        assert self.order is not None
        return permutation.shuffled(self.order, self.num_holdout + index, self.num_rows)


def num_holdout_rows(num_rows: Array, config: GaussianConfig) -> Array:
    """Returns min(holdout_fraction * N, max_holdout_rows), rounded down; of a fixed split, of one in so many rows."""
    if config.fixed_holdout:
        num_holdout = num_rows // _one_in(config)
    else:
        num_holdout = jnp.floor(config.holdout_fraction * num_rows).astype(jnp.int32)
    return jnp.minimum(num_holdout, config.max_holdout_rows)


def _one_in(config: GaussianConfig) -> int:
    return round(1.0 / config.holdout_fraction)


def split_rows(key: Key, num_rows: Array, num_added: Array, config: GaussianConfig) -> Split:
    """Returns the split of a fit over `num_rows` rows: random, or by row number (the count of rows added before it).

    A row's number never changes, so it stays on its side of the split from fit to fit. Where `max_holdout_rows` is
    less than one in `one_in`, only the newest candidates are held out, and older ones become training rows for good.

    Args:
      num_rows: [], valid rows in the buffer.
      num_added: [], rows ever added, including those dropped since.
    """
    num_holdout = num_holdout_rows(num_rows, config)
    if not config.fixed_holdout:
        return Split(num_rows=num_rows, num_holdout=num_holdout, order=permutation.round_keys(key))
    one_in = _one_in(config)
    newest = num_rows - 1 - num_added % one_in  # age of the newest row with the number one_in * i - 1
    first = jnp.where(num_holdout > 0, newest - one_in * (num_holdout - 1), num_rows)
    return Split(num_rows=num_rows, num_holdout=num_holdout, first=first, one_in=one_in)


def num_pass_minibatches(num_train: Array, config: GaussianConfig) -> Array:
    """Returns the number of minibatches in one pass over the training rows; the last one may be shorter."""
    return -(-num_train // config.model_batch_size)


def num_epoch_minibatches(num_train: Array, config: GaussianConfig) -> Array:
    """Returns the number of minibatches between evaluations on held-out rows: one pass, or several if rows are few."""
    return jnp.maximum(num_pass_minibatches(num_train, config), config.fit_epoch_minibatches)


def bootstrap_rows(key: Key, split: Split, epoch: Array, minibatch: Array, config: GaussianConfig) -> Array:
    """Returns the ages [..., M, B] of the rows in minibatches [...] of an epoch.

    Each member draws `num_train` training rows with replacement once per fit, and sees them in a new order in every
    pass. Places beyond the end of a pass repeat its last row; `minibatch_weights` gives them weight 0.
    """
    num_members, batch_size = config.num_members, config.model_batch_size
    key_bootstrap, key_passes = jax.random.split(key)
    streams = permutation.round_keys(key_bootstrap, num_members)
    per_pass = num_pass_minibatches(split.num_train, config)
    passes_per_epoch = -(-num_epoch_minibatches(split.num_train, config) // per_pass)
    pass_number = epoch * passes_per_epoch + minibatch // per_pass
    place = (minibatch % per_pass)[..., None] * batch_size + jnp.arange(batch_size)
    place = jnp.minimum(place, split.num_train - 1)

    def rows_of_minibatch(stream: Array, key_member: Key, number: Array, place: Array) -> Array:
        order = permutation.round_keys(jax.random.fold_in(key_member, number))
        return permutation.draws(stream, permutation.shuffled(order, place, split.num_train), split.num_train)

    def rows_of_member(stream: Array, index: Array) -> Array:
        draw = functools.partial(rows_of_minibatch, stream, jax.random.fold_in(key_passes, index))
        return jnp.vectorize(draw, signature="(),(b)->(b)")(pass_number, place)

    drawn = ensemble.lift(rows_of_member)(streams, jnp.arange(num_members))
    return split.train(jnp.moveaxis(drawn, 0, -2))


def minibatch_weights(split: Split, minibatch: Array, config: GaussianConfig) -> Array:
    """Returns the weights [..., B] of the rows in minibatches [...], summing to one; the last of a pass is shorter."""
    within = minibatch % num_pass_minibatches(split.num_train, config)
    place = within[..., None] * config.model_batch_size + jnp.arange(config.model_batch_size)
    inside = place < split.num_train
    return inside / jnp.maximum(jnp.sum(inside, -1, keepdims=True), 1)


def examples(encoding: Encoding, buffer: Replay, age: Array) -> tuple[Array, Array]:
    """Returns raw inputs [..., I] and targets [..., D] of the buffer's rows with these ages [...]."""
    return encoding.examples(replay.take(buffer, age))
