"""What a fit computes over all rows, block by block: scales of inputs and targets, held-out errors, magnitudes."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mbpo_jax import backends, ensemble, health, normalizer, replay
from mbpo_jax.models import fit_rows
from mbpo_jax.models.encoding import Encoding
from mbpo_jax.models.fit_rows import Split
from mbpo_jax.models.member import Member
from mbpo_jax.models.state import Belief
from mbpo_jax.normalizer import Normalizer
from mbpo_jax.replay import Replay
from mbpo_jax.types import Array, PyTree


def stored_magnitude(buffer: Replay) -> Array:
    """Returns the `health.magnitude` of a buffer's rows, in one pass over blocks of them in memory order."""
    num_slots = replay.capacity(buffer)
    block_rows = min(backends.choices().block_rows, num_slots)

    def add_block(i: Array, largest: Array) -> Array:
        start = jnp.minimum(i * block_rows, num_slots - block_rows)
        rows = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, block_rows), buffer.rows)
        return jnp.maximum(largest, health.magnitude(rows))

    # Rows fill the slots from the first on, so all slots below the size hold valid rows.
    return jax.lax.fori_loop(0, -(-buffer.size // block_rows), add_block, jnp.zeros(()))


def training_moments(encoding: Encoding, split: Split, buffer: Replay, use_targets: bool = False) -> Normalizer:
    """Returns mean and standard deviation of the training rows' inputs, or targets, in passes over blocks of rows.

    Both are computed from differences, not from the values themselves, so that the variance of a constant dimension is
    exactly 0: sums of the values would carry rounding errors, which would look like variance.
    """
    block_rows = backends.choices().block_rows

    def values(index: Array) -> Array:
        return fit_rows.examples(encoding, buffer, split.train(index))[1 if use_targets else 0]

    first = values(jnp.zeros(1, jnp.int32))  # [1, I]

    def average(fn: Callable[[Array], Array]) -> Array:
        def add_block(i: Array, total: Array) -> Array:
            index = i * block_rows + jnp.arange(block_rows)
            x = values(jnp.minimum(index, split.num_train - 1))
            return total + jnp.sum(jnp.where((index < split.num_train)[:, None], fn(x), 0.0), 0)

        num_blocks = -(-split.num_train // block_rows)
        return jax.lax.fori_loop(0, num_blocks, add_block, jnp.zeros_like(first[0])) / split.num_train

    mean = first[0] + average(lambda x: x - first)
    return normalizer.from_moments(mean, average(lambda x: jnp.square(x - mean[None])))


def holdout_mse(member: Member, encoding: Encoding, split: Split, buffer: Replay, belief: Belief) -> Array:
    """Returns each member's squared error [M] on the held-out rows, averaged over rows and (scaled) target dimensions.

    Without held-out rows (`holdout_fraction` 0), the training rows are used instead.
    """
    num_rows = _num_scored(split)

    def add_block(x: Array, y: Array, valid: Array, total: Array) -> Array:
        error = jnp.mean(_squared_errors(member, belief, belief.params, x, y), -1)
        return total + jnp.sum(jnp.where(valid, error, 0.0), -1)

    num_members = jax.tree.leaves(belief.params)[0].shape[0]
    return _over_scored(encoding, split, buffer, belief, add_block, jnp.zeros(num_members)) / num_rows


def explained_shares(member: Member, encoding: Encoding, split: Split, buffer: Replay, belief: Belief) -> Array:
    """Returns 1 - squared error / variance [D] of each target on the held-out rows, the error averaged over elites.

    1 is perfect, 0 no better than the mean of these rows, and negative is worse. A constant target counts as 1.
    """
    num_rows, elites = _num_scored(split), ensemble.member(belief.params, belief.elites)
    _, first = fit_rows.examples(encoding, buffer, split.holdout(jnp.zeros((), jnp.int32)))
    first = normalizer.normalize(belief.targets, first)  # [D], see training_moments

    def add_block(x: Array, y: Array, valid: Array, total: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        errors = jnp.mean(_squared_errors(member, belief, elites, x, y), 0)
        parts = errors, y - first, jnp.square(y - first)
        return jax.tree.map(lambda sums, part: sums + jnp.sum(jnp.where(valid[:, None], part, 0.0), 0), total, parts)

    sums = _over_scored(encoding, split, buffer, belief, add_block, (jnp.zeros_like(first),) * 3)
    mse, mean, mean_square = (part / num_rows for part in sums)
    variance = mean_square - jnp.square(mean)
    return jnp.where(variance > 0.0, 1.0 - mse / jnp.where(variance > 0.0, variance, 1.0), 1.0)


def _num_scored(split: Split) -> Array:
    return jnp.where(split.num_holdout > 0, split.num_holdout, split.num_train)


def _squared_errors(member: Member, belief: Belief, params: PyTree, x: Array, y: Array) -> Array:
    """Returns squared errors [M, B, D] of networks [M, ...] at scaled inputs x [B, I]."""
    predict = ensemble.lift(lambda p, x: member.predict(p, belief.shared, x)[0], (0, None))
    return jnp.square(predict(params, x) - y[None])


def _over_scored(
    encoding: Encoding,
    split: Split,
    buffer: Replay,
    belief: Belief,
    add_block: Callable[[Array, Array, Array, PyTree], PyTree],
    total: PyTree,
) -> PyTree:
    """Accumulates (scaled inputs [B, I] and targets [B, D], valid [B], total) -> total over the held-out rows."""
    num_rows, block_rows = _num_scored(split), backends.choices().block_rows

    def add(i: Array, total: PyTree) -> PyTree:
        index = i * block_rows + jnp.arange(block_rows)
        age = split.holdout(jnp.minimum(index, num_rows - 1))
        x, y = fit_rows.examples(encoding, buffer, age)
        scaled = normalizer.normalize(belief.inputs, x), normalizer.normalize(belief.targets, y)
        return add_block(*scaled, index < num_rows, total)

    return jax.lax.fori_loop(0, -(-num_rows // block_rows), add, total)
