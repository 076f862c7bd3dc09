"""A ring buffer of transitions as a pytree.

Rows are addressed by age, 0 being the oldest valid row, never by their place in memory: a buffer that was saved and
restored, or rebuilt with another capacity, draws the same rows from the same key.
"""

import chex
import jax
import jax.numpy as jnp
from flax import struct

from mbpo_jax.types import Array, Key, PyTree, Spec, Transition


class Replay(struct.PyTreeNode, kw_only=True):
    """The newest `size` rows before `head`, wrapping around at the capacity N."""

    rows: Transition  # [N, ...]
    head: Array  # [], int32, where the next row goes
    size: Array  # [], int32, number of valid rows
    num_added: Array  # [], int32, rows ever added
    first: Array | None = None  # [N], bool, whether a row began an episode; None if that is not kept


def init(spec: Spec, capacity: int, episodes: bool = False) -> Replay:
    """Returns an empty buffer of `capacity` rows, allocated in full so that a lack of memory shows at once.

    Args:
      episodes: whether it keeps which rows began an episode.
    """

    def zeros(*shape: int) -> Array:
        return jnp.zeros((capacity, *shape), jnp.float32)

    rows = Transition(
        obs=zeros(spec.obs_dim),
        action=zeros(spec.action_dim),
        reward=zeros(),
        next_obs=zeros(spec.obs_dim),
        terminal=zeros(),
    )
    # Three separate zeros: one array shared by three leaves could not be donated.
    return Replay(
        rows=rows,
        head=jnp.zeros((), jnp.int32),
        size=jnp.zeros((), jnp.int32),
        num_added=jnp.zeros((), jnp.int32),
        first=jnp.zeros(capacity, bool) if episodes else None,
    )


def is_replay(leaf: PyTree) -> bool:
    """Returns whether a node of a tree is a buffer; the `is_leaf` of tree functions that treat buffers as leaves."""
    return isinstance(leaf, Replay)


def capacity(replay: Replay) -> int:
    """Returns the number of rows that the buffer has room for."""
    return replay.rows.reward.shape[-1]


def add(
    replay: Replay,
    rows: Transition,
    count: Array | int | None = None,
    limit: Array | int | None = None,
    first: Array | None = None,
) -> Replay:
    """Adds the first `count` of `rows` [B, ...]; the oldest rows are dropped to make room.

    Args:
      rows: at most as many as the capacity.
      count: [], int, may be traced; all rows by default. The others are not written.
      limit: [], int, may be traced; most valid rows afterwards, the capacity by default.
      first: [B], bool, whether a row began an episode; only for buffers that keep this.
    """
    num_rows, num_slots = rows.reward.shape[0], capacity(replay)
    for new, slots in zip(jax.tree.leaves(rows), jax.tree.leaves(replay.rows)):
        chex.assert_shape(new, (num_rows, *slots.shape[1:]))  # [B, 1] would be broadcast to every column
    if (first is None) != (replay.first is None):
        raise ValueError("first must be given where the buffer keeps which rows began an episode, and only there")
    if first is not None:
        chex.assert_shape(first, (num_rows,))
    if num_rows > num_slots:
        raise ValueError(f"{num_rows} rows at once do not fit a buffer of {num_slots}")
    count = jnp.asarray(num_rows if count is None else count, jnp.int32)
    limit = jnp.asarray(num_slots if limit is None else limit, jnp.int32)
    place = jnp.arange(num_rows)
    slot = jnp.where(place < count, (replay.head + place) % num_slots, num_slots)  # past the end: dropped

    def write(slots: Array, new: Array) -> Array:
        return slots.at[slot].set(new, mode="drop", unique_indices=True)

    return Replay(
        rows=jax.tree.map(write, replay.rows, rows),
        head=(replay.head + count) % num_slots,
        size=jnp.minimum(replay.size + count, jnp.minimum(limit, num_slots)),
        num_added=replay.num_added + count,
        first=None if replay.first is None or first is None else write(replay.first, first),
    )


def take(replay: Replay, age: Array) -> Transition:
    """Returns the rows of the given ages [...], each in [0, size); 0 is the oldest valid row."""
    slot = (replay.head - replay.size + age) % capacity(replay)
    return jax.tree.map(lambda leaf: leaf[slot], replay.rows)


def sample(key: Key, replay: Replay, shape: tuple[int, ...]) -> Transition:
    """Draws rows [*shape, ...] uniformly, with replacement, from the valid ones."""
    return take(replay, jax.random.randint(key, shape, 0, replay.size))


def sequences(key: Key, replay: Replay, shape: tuple[int, ...], length: int) -> tuple[Transition, Array]:
    """Draws sequences of `length` consecutive rows, with replacement; any valid row may be their first.

    Returns:
      Rows [length, *shape, ...], and which of them belong to the same episode as the first, bool [length, *shape]. Rows
      after the end of that episode, or after the newest row, do not, and are meaningless.
    Raises:
      ValueError: the buffer does not keep which rows began an episode.
    """
    if replay.first is None:
        raise ValueError("sequences need a buffer that keeps which rows began an episode")
    start = jax.random.randint(key, shape, 0, replay.size)
    age = start[None] + jnp.arange(length).reshape(-1, *[1] * len(shape))
    inside = age < replay.size
    age = jnp.minimum(age, replay.size - 1)
    begins = replay.first[(replay.head - replay.size + age) % capacity(replay)].at[0].set(False)
    return take(replay, age), inside & (jnp.cumsum(begins, axis=0) == 0)


def newest_episode(replay: Replay, length: int) -> tuple[Transition, Array, Array]:
    """Returns the newest finished episode, up to `length` rows of it; the running one does not count.

    Returns:
      Rows [length, ...]; which of them belong to the episode, bool [length]; and the number [] of its first row among
      all rows ever added, -1 if there is no such episode.
    Raises:
      ValueError: the buffer does not keep which rows began an episode.
    """
    if replay.first is None:
        raise ValueError("episodes need a buffer that keeps which rows began one")
    age = replay.size - 1 - jnp.arange(2 * length + 1)  # far enough back for a running episode and the one before
    begins = replay.first[(replay.head - replay.size + age) % capacity(replay)] & (age >= 0)
    num_begun = jnp.cumsum(begins)
    running, start = age[jnp.argmax(num_begun == 1)], age[jnp.argmax(num_begun == 2)]
    known = num_begun[-1] >= 2
    inside = known & (start + jnp.arange(length) < running)
    rows = take(replay, jnp.minimum(start + jnp.arange(length), replay.size - 1))
    return rows, inside, jnp.where(known, replay.num_added - replay.size + start, -1)
