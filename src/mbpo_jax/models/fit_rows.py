"""Which rows of the buffer a fit learns from, and in what order: held-out split, bootstrap, minibatches.

All its randomness is index arithmetic on the fit's key (`permutation.py`): nothing the size of the buffer is drawn,
sorted or kept, the cost of a minibatch does not depend on how much data there is, and nothing recompiles as it grows.

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

    Either a random order of all rows, of which the first `num_holdout` are held out, or every so many-th row.
    """

    num_rows: Array  # []
    num_holdout: Array  # []
    order: Array | None = None  # round keys of the permutation of range(num_rows); None: the rows held out are fixed
    first: Array | None = None  # [], age of the oldest row held out, where they are fixed
    one_in: int = struct.field(pytree_node=False, default=0)  # from there on, one in so many rows is held out

    @property
    def num_train(self) -> Array:
        """Returns the number of rows learnt from."""
        return self.num_rows - self.num_holdout

    def holdout(self, index: Array) -> Array:
        """Returns ages, in the buffer, of held-out rows [...]."""
        if self.first is not None:
            return self.first + self.one_in * index
        assert self.order is not None
        return permutation.shuffled(self.order, index, self.num_rows)

    def train(self, index: Array) -> Array:
        """Returns ages, in the buffer, of training rows [...]."""
        if self.first is not None:
            after = index - self.first  # there, each held-out row comes before one_in - 1 others
            return jnp.where(after < 0, index, index + after // (self.one_in - 1) + 1)
        assert self.order is not None
        return permutation.shuffled(self.order, self.num_holdout + index, self.num_rows)


def num_holdout_rows(num_rows: Array, config: GaussianConfig) -> Array:
    """Returns min(holdout_fraction * N, max_holdout_rows)."""
    num_holdout = jnp.floor(config.holdout_fraction * num_rows).astype(jnp.int32)
    return jnp.minimum(num_holdout, config.max_holdout_rows)


def split_rows(key: Key, num_rows: Array, num_added: Array, config: GaussianConfig) -> Split:
    """Returns the split of a fit over `num_rows` rows: drawn, or by the number of each row, how many came before it.

    By its number a row keeps its side from one fit to the next. Where `max_holdout_rows` are fewer than one in so many,
    they are the newest of these, and the older ones are learnt from from then on.

    Args:
      num_rows: [], the rows in force.
      num_added: [], the rows that were ever added, these and those that gave way.
    """
    num_holdout = num_holdout_rows(num_rows, config)
    if not config.fixed_holdout:
        return Split(num_rows=num_rows, num_holdout=num_holdout, order=permutation.round_keys(key))
    one_in = round(1.0 / config.holdout_fraction)
    newest = num_rows - 1 - num_added % one_in  # age of the newest row with the number one_in * i - 1
    first = jnp.where(num_holdout > 0, newest - one_in * (num_holdout - 1), num_rows)
    return Split(num_rows=num_rows, num_holdout=num_holdout, first=first, one_in=one_in)


def num_pass_minibatches(num_train: Array, config: GaussianConfig) -> Array:
    """Returns the minibatches of one pass over the training rows; the last of them may be shorter."""
    return -(-num_train // config.model_batch_size)


def num_epoch_minibatches(num_train: Array, config: GaussianConfig) -> Array:
    """Returns the minibatches between two looks at the held-out rows: a pass, or several where rows are few."""
    return jnp.maximum(num_pass_minibatches(num_train, config), config.fit_epoch_minibatches)


def bootstrap_rows(key: Key, split: Split, epoch: Array, minibatch: Array, config: GaussianConfig) -> Array:
    """Returns ages [..., M, B] of the rows of minibatches [...] of an epoch.

    Each member draws, once per fit, `num_train` training rows with replacement, and sees them in a new order in every
    pass. Places beyond the end of a pass repeat its last row; `minibatch_weights` gives them no weight.
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
    """Returns weights [..., B], which sum to one, that average minibatches [...]; the last of a pass is shorter."""
    within = minibatch % num_pass_minibatches(split.num_train, config)
    place = within[..., None] * config.model_batch_size + jnp.arange(config.model_batch_size)
    inside = place < split.num_train
    return inside / jnp.maximum(jnp.sum(inside, -1, keepdims=True), 1)


def examples(encoding: Encoding, buffer: Replay, age: Array) -> tuple[Array, Array]:
    """Returns raw inputs [..., I] and targets [..., D] of the rows of these ages [...] in the buffer."""
    return encoding.examples(replay.take(buffer, age))
