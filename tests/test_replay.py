"""Rows are known by name: row i holds numbers made from i, so a leaf that goes astray shows."""

from collections import deque

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mbpo_jax import replay
from mbpo_jax.types import Spec, Transition

SPEC = Spec(obs_dim=2, action_dim=1)
BYTES_PER_ROW = 4 * (2 + 1 + 1 + 2 + 1)
LEAST_P_VALUE = 1e-4  # keys are fixed, so a test that passes keeps passing

add = jax.jit(replay.add)  # without donation: the buffer before is looked at afterwards
sample = jax.jit(replay.sample, static_argnums=2)


def named(names):
    """Rows [B, ...] with these names."""
    name = np.asarray(names, np.float32)
    return Transition(
        obs=np.stack([name + 0.25, -name], -1),
        action=name[:, None] + 0.5,
        reward=name,
        next_obs=np.stack([name + 0.75, 2.0 * name], -1),
        terminal=name % 2.0,
    )


def names_of(rows):
    """The names [...] of rows [..., ...], every leaf of which must belong to them."""
    names = np.asarray(rows.reward)
    jax.tree.map(
        lambda leaf, expected: np.testing.assert_array_equal(np.asarray(leaf).reshape(expected.shape), expected),
        rows.replace(obs=np.asarray(rows.obs).reshape(-1, 2), next_obs=np.asarray(rows.next_obs).reshape(-1, 2)),
        named(names.reshape(-1)),
    )
    return names.astype(int)


def contents(buffer):
    """Names in force, oldest first, read from memory as the record says they lie there."""
    slots = (int(buffer.head) - int(buffer.size) + np.arange(int(buffer.size))) % buffer.rows.reward.shape[0]
    return names_of(jax.tree.map(lambda leaf: np.asarray(leaf)[slots], buffer.rows)).tolist()


def holding(capacity, names, limit=1000):
    """A buffer that took these names one after another, built without `add`."""
    slots = np.full(capacity, -1000)
    for i, name in enumerate(names):
        slots[i % capacity] = name
    return replay.Replay(
        rows=jax.tree.map(jnp.asarray, named(slots)),
        head=jnp.int32(len(names) % capacity),
        size=jnp.int32(min(len(names), limit, capacity)),
        num_added=jnp.int32(len(names)),
    )


def test_an_empty_buffer_holds_nothing():
    buffer = replay.init(SPEC, 5)
    assert [int(x) for x in (buffer.head, buffer.size, buffer.num_added)] == [0, 0, 0]
    assert contents(buffer) == []
    assert replay.capacity(buffer) == 5
    assert jax.tree.map(jnp.shape, buffer.rows) == Transition(
        obs=(5, 2), action=(5, 1), reward=(5,), next_obs=(5, 2), terminal=(5,)
    )
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(buffer.rows))


def test_the_ring_keeps_the_newest(variant):
    buffer = variant(replay.add)(holding(4, [0, 1, 2, 3]), named([4]))
    assert contents(buffer) == [1, 2, 3, 4]
    assert np.asarray(buffer.rows.reward).tolist() == [4.0, 1.0, 2.0, 3.0]
    assert [int(x) for x in (buffer.head, buffer.size, buffer.num_added)] == [1, 4, 5]


def test_age_zero_is_the_oldest_in_force(variant):
    take = variant(replay.take)
    buffer = holding(4, range(6))
    assert [names_of(take(buffer, jnp.array([age]))).item() for age in range(4)] == [2, 3, 4, 5]
    assert names_of(take(buffer, jnp.array([[3, 0], [1, 1]]))).tolist() == [[5, 2], [3, 3]]
    assert float(take(holding(4, range(2)), jnp.int32(0)).reward) == 0.0


@pytest.mark.parametrize("num_rows", [1, 3, 4, 6, 7])
def test_every_count_at_every_head_position_writes_its_rows_and_no_others(num_rows):
    capacity = 7
    for before in range(2 * capacity):  # half of them on a buffer that is full
        buffer = holding(capacity, range(before))
        slots = np.asarray(buffer.rows.reward).copy()
        for count in range(num_rows + 1):
            new = 100 + np.arange(num_rows)
            after = add(buffer, named(new), jnp.int32(count))
            written = slots.copy()
            written[(before + np.arange(count)) % capacity] = new[:count]
            np.testing.assert_array_equal(after.rows.reward, written)
            assert contents(after) == [*range(before), *new[:count]][-capacity:]
            assert int(after.head) == (before + count) % capacity
            assert int(after.num_added) == before + count


@pytest.mark.parametrize(("before", "count"), [(0, 3), (5, 3), (5, 0), (6, 1), (2, 2)])
def test_eager_and_jitted_add_agree(variant, before, count):
    after = variant(replay.add)(holding(7, range(before)), named([100, 101, 102]), count)
    assert contents(after) == [*range(before), *[100, 101, 102][:count]][-7:]


def test_all_rows_count_unless_told_otherwise(variant):
    assert contents(variant(replay.add)(holding(7, range(6)), named([10, 11, 12]))) == [
        2,
        3,
        4,
        5,
        10,
        11,
        12,
    ]


def test_rows_as_many_as_the_capacity_replace_everything(variant):
    assert contents(variant(replay.add)(holding(4, range(3)), named([10, 11, 12, 13]))) == [10, 11, 12, 13]


@pytest.mark.parametrize("name", ["obs", "action", "reward", "next_obs", "terminal"])
def test_rows_of_another_shape_are_refused(name):
    """A column [B, 1] of observations would silently be written to each of them."""
    rows = named([1, 2, 3])
    narrow = getattr(rows, name).reshape(3, -1)[:, :1]
    wrong = narrow[:, 0] if name == "action" else narrow
    with pytest.raises(AssertionError, match="shape"):
        replay.add(holding(4, range(2)), rows.replace(**{name: wrong}))


def test_adding_none_changes_nothing(variant):
    buffer = holding(4, range(6))
    after = variant(replay.add)(buffer, named([99, 98]), 0)
    jax.tree.map(np.testing.assert_array_equal, after, buffer)


def test_more_rows_than_the_capacity_are_refused(variant):
    with pytest.raises(ValueError, match="5 rows at once do not fit a buffer of 4"):
        variant(replay.add)(replay.init(SPEC, 4), named(range(5)), 1)


def test_the_limit_keeps_the_newest_and_what_left_does_not_come_back(variant):
    def step(buffer, names, limit, count=None):
        return variant(replay.add)(
            buffer, named(names), jnp.int32(len(names) if count is None else count), jnp.int32(limit)
        )

    buffer = step(replay.init(SPEC, 7), [0, 1, 2], 4)
    assert contents(buffer) == [0, 1, 2]
    buffer = step(buffer, [3, 4, 5], 4)
    assert contents(buffer) == [2, 3, 4, 5]
    buffer = step(buffer, [6], 7)  # the limit grows: 0 and 1 are still in memory, and stay out
    assert contents(buffer) == [2, 3, 4, 5, 6]
    buffer = step(buffer, [99], 2, count=0)  # it shrinks, though nothing is added
    assert contents(buffer) == [5, 6]
    buffer = step(buffer, [99], 7, count=0)
    assert contents(buffer) == [5, 6]
    buffer = step(buffer, [7, 8], 100)  # more than there is room for
    assert contents(buffer) == [5, 6, 7, 8]
    buffer = step(buffer, [9, 10, 11, 12], 100)
    assert contents(buffer) == [6, 7, 8, 9, 10, 11, 12]
    assert int(buffer.num_added) == 13


def test_a_limit_below_the_rows_of_one_add_keeps_the_last_of_them(variant):
    after = variant(replay.add)(holding(7, range(5)), named([10, 11, 12]), None, jnp.int32(2))
    assert contents(after) == [11, 12]


def reference(window, capacity, names, limit):
    """What `add` does, on a deque."""
    window.extend(names)
    while len(window) > min(limit, capacity):
        window.popleft()


@pytest.mark.parametrize("seed", range(4))
def test_random_sequences_agree_with_a_deque(seed):
    rng = np.random.default_rng(seed)
    capacity = 13
    buffer, window, num_added = replay.init(SPEC, capacity), deque(), 0
    for _ in range(150):
        names = num_added + np.arange(rng.choice([1, 2, 5, 13]))
        count, limit = rng.integers(len(names) + 1), rng.choice([rng.integers(1, 13), 13, 20])
        buffer = add(buffer, named(names), jnp.int32(count), jnp.int32(limit))
        reference(window, capacity, names[:count].tolist(), limit)
        num_added += int(count)
        assert contents(buffer) == list(window)
        assert int(buffer.num_added) == num_added


@pytest.mark.parametrize("shape", [(), (6,), (2, 3), (2, 0)])
def test_a_sample_has_the_shape_asked_for(variant, shape):
    rows = variant(replay.sample, static_argnums=2)(jax.random.key(0), holding(4, range(6)), shape)
    assert rows.reward.shape == shape
    assert rows.obs.shape == (*shape, 2)
    assert set(names_of(rows).ravel()) <= {2, 3, 4, 5}


@pytest.mark.parametrize(
    ("num_added", "limit", "in_force"),
    [(3, 8, [0, 1, 2]), (8, 8, range(8)), (11, 8, range(3, 11)), (11, 5, range(6, 11)), (9, 2, [7, 8])],
)
def test_a_sample_is_uniform_over_the_rows_in_force_and_them_alone(num_added, limit, in_force):
    buffer = holding(8, range(num_added), limit=limit)
    names = names_of(sample(jax.random.key(1), buffer, (8000,)))
    values, counts = np.unique(names, return_counts=True)
    assert values.tolist() == list(in_force)
    assert stats.chisquare(counts).pvalue > LEAST_P_VALUE


def test_a_sample_is_with_replacement_and_its_rows_are_independent():
    pairs = names_of(sample(jax.random.key(2), holding(5, range(5)), (10_000, 2)))
    counts = np.bincount(5 * pairs[:, 0] + pairs[:, 1], minlength=25)
    assert stats.chisquare(counts).pvalue > LEAST_P_VALUE


def test_the_key_decides():
    buffer = holding(50, range(50))
    first, again, other = (names_of(sample(jax.random.key(seed), buffer, (100,))) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.mean(first == other) < 0.2


def test_the_same_rows_elsewhere_in_memory_are_drawn_by_the_same_key():
    """Rows are addressed by age: a buffer rebuilt with another capacity or head goes on as before."""
    buffers = [
        holding(4, range(3, 7)),
        holding(4, range(7)),
        holding(9, range(3, 7)),
        holding(9, range(7), limit=4),
    ]
    assert len({(int(b.head), replay.capacity(b)) for b in buffers}) == 4
    draws = [names_of(sample(jax.random.key(3), buffer, (50,))) for buffer in buffers]
    for names in draws[1:]:
        np.testing.assert_array_equal(names, draws[0])


def test_one_trace_serves_a_growing_buffer():
    traces = []

    @jax.jit
    def step(key, buffer, rows, count, limit):
        traces.append(count)
        buffer = replay.add(buffer, rows, count, limit)
        return buffer, replay.sample(key, buffer, (4,))

    buffer = replay.init(SPEC, 10)
    for i in range(12):
        rows = named([2 * i, 2 * i + 1])
        buffer, drawn = step(jax.random.key(i), buffer, rows, jnp.int32(1 + i % 2), jnp.int32(3 + i))
        assert set(names_of(drawn)) <= set(contents(buffer))
    assert len(traces) == 1


def test_a_donated_add_works_in_place(optimised):
    buffer = replay.init(SPEC, 50_000)
    num_bytes = 50_000 * BYTES_PER_ROW
    donated = jax.jit(replay.add, donate_argnums=0, compiler_options=optimised)
    args = (named(range(100)), jnp.int32(60), jnp.int32(40_000))
    compiled = donated.lower(buffer, *args).compile()
    assert compiled.memory_analysis().alias_size_in_bytes >= num_bytes
    assert compiled.memory_analysis().temp_size_in_bytes < num_bytes / 20
    before = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(buffer.rows)]
    buffer = donated(buffer, *args)
    assert [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(buffer.rows)] == before
    assert contents(buffer) == list(range(60))


def test_adds_inside_a_loop_work_in_place_too(optimised):
    buffer = replay.init(SPEC, 50_000)
    rows = jax.tree.map(jnp.asarray, named(range(100)))

    def loop(buffer):
        return jax.lax.fori_loop(0, 30, lambda i, buffer: replay.add(buffer, rows, 2 * i), buffer)

    memory = jax.jit(loop, donate_argnums=0).lower(buffer).compile(optimised).memory_analysis()
    assert memory.alias_size_in_bytes >= 50_000 * BYTES_PER_ROW
    assert memory.temp_size_in_bytes < 50_000 * BYTES_PER_ROW / 20


def test_seeds_in_one_batch_keep_their_own_heads_and_windows():
    buffers = [holding(5, range(3)), holding(5, range(8))]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *buffers)
    rows = jax.tree.map(lambda *leaves: jnp.stack(leaves), named([10, 11]), named([20, 21]))
    after = jax.jit(jax.vmap(replay.add))(stacked, rows, jnp.array([2, 1]), jnp.array([4, 5]))
    assert replay.capacity(after) == 5
    one, other = (jax.tree.map(lambda leaf, i=i: leaf[i], after) for i in range(2))
    assert contents(one) == [1, 2, 10, 11]
    assert contents(other) == [4, 5, 6, 7, 20]


def test_which_rows_began_an_episode_is_kept_with_them(variant):
    buffer = replay.init(SPEC, 4, episodes=True)
    for names, first in (([0, 1], [True, False]), ([2, 3, 4], [False, True, False])):
        buffer = variant(replay.add)(buffer, named(names), first=jnp.array(first))
    assert contents(buffer) == [1, 2, 3, 4]
    assert buffer.first.tolist() == [False, False, False, True]  # slots hold 4, 1, 2, 3
    buffer = variant(replay.add)(buffer, named([5, 6]), 1, first=jnp.array([True, True]))
    assert buffer.first.tolist() == [False, True, False, True]  # and row 6 was not written


def test_draws_do_not_depend_on_whether_episodes_are_kept():
    plain, kept = replay.init(SPEC, 5), replay.init(SPEC, 5, episodes=True)
    plain, kept = add(plain, named(range(4))), add(kept, named(range(4)), first=jnp.zeros(4, bool))
    drawn = [names_of(sample(jax.random.key(3), buffer, (20,))).tolist() for buffer in (plain, kept)]
    assert drawn[0] == drawn[1]


def test_buffers_that_keep_episodes_ask_for_them_and_others_refuse_them():
    with pytest.raises(ValueError, match="first must be given"):
        replay.add(replay.init(SPEC, 4, episodes=True), named([1]))
    with pytest.raises(ValueError, match="first must be given"):
        replay.add(replay.init(SPEC, 4), named([1]), first=jnp.array([True]))
    with pytest.raises(AssertionError):
        replay.add(replay.init(SPEC, 4, episodes=True), named([1, 2]), first=jnp.array([True]))


def test_sequences_are_consecutive_and_never_cross_an_episode(variant):
    """Rows 3 to 9 are in force, in a buffer that has wrapped; episodes began at rows 0, 5 and 8."""
    buffer = replay.init(SPEC, 7, episodes=True)
    for names in ([0, 1, 2, 3], [4, 5, 6], [7, 8, 9]):
        buffer = variant(replay.add)(buffer, named(names), first=jnp.array([name in (0, 5, 8) for name in names]))
    rows, inside = variant(replay.sequences, static_argnums=(2, 3))(jax.random.key(0), buffer, (40, 5), 3)
    names, inside = names_of(rows), np.asarray(inside)
    assert names.shape == inside.shape == (3, 40, 5)
    kept = {tuple(names[inside[:, i, j], i, j]) for i in range(40) for j in range(5)}
    assert kept == {(3, 4), (4,), (5, 6, 7), (6, 7), (7,), (8, 9), (9,)}
    assert inside[0].all()


def test_sequences_need_a_buffer_that_keeps_episodes():
    with pytest.raises(ValueError, match="sequences need"):
        replay.sequences(jax.random.key(0), add(replay.init(SPEC, 4), named([1])), (2,), 2)
