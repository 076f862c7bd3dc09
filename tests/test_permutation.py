import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mbpo_jax import permutation

SIZES = (1, 2, 3, 5, 16, 17, 1000, 4097, 65537)
NUM_KEYS = 4000
LEAST_P_VALUE = 1e-4  # keys are fixed, so a test that passes keeps passing


def keys(seed):
    return permutation.round_keys(jax.random.key(seed))


def many_keys(seed):
    return jax.vmap(permutation.round_keys)(jax.random.split(jax.random.key(seed), NUM_KEYS))


def p_value(values, num_bins):
    """That `values` are uniform on range(num_bins)."""
    counts = np.bincount(np.asarray(values).ravel(), minlength=num_bins)
    assert counts.shape == (num_bins,)
    return stats.chisquare(counts).pvalue


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_index_is_hit_once(seed):
    index = jnp.arange(max(SIZES))
    # Longer than needed, so that all sizes share one program; what is too much repeats the last row.
    shuffle = jax.jit(lambda keys, n: permutation.shuffled(keys, jnp.minimum(index, n - 1), n))
    for num_rows in SIZES:
        image = np.asarray(shuffle(keys(seed), jnp.int32(num_rows)))
        assert image.dtype == np.int32
        np.testing.assert_array_equal(np.sort(image[:num_rows]), np.arange(num_rows), err_msg=f"{num_rows} rows")


@pytest.mark.parametrize("num_rows", [1_000_000, 16_777_217, 2**31 - 1, 2**31])
def test_huge_ranges_keep_indices_distinct_and_inside(variant, num_rows):
    index = jnp.concatenate([jnp.arange(3000), num_rows - 1 - jnp.arange(3000, dtype=jnp.uint32).astype(jnp.int32)])
    shuffle = variant(lambda keys, index: permutation.shuffled(keys, index, num_rows))
    image = np.asarray(shuffle(keys(3), index)).astype(np.int64)
    assert len(np.unique(image)) == index.size
    assert 0 <= image.min() < image.max() < num_rows
    assert p_value(image * 20 // num_rows, 20) > LEAST_P_VALUE


def test_the_order_of_asking_does_not_matter(variant):
    shuffle = variant(lambda index: permutation.shuffled(keys(0), index, 1000))
    whole = np.asarray(shuffle(jnp.arange(1000)))
    some = jnp.array([[7, 999], [0, 7]])
    np.testing.assert_array_equal(shuffle(some), whole[np.asarray(some)])


def test_keys_differ_and_move_almost_everything():
    one, other, again = (np.asarray(permutation.shuffled(keys(s), jnp.arange(1000), 1000)) for s in (0, 1, 0))
    np.testing.assert_array_equal(one, again)
    # Two random orders agree in one place on average.
    assert np.sum(one == other) < 8
    assert np.sum(one == np.arange(1000)) < 8
    # Neighbours are parted: among 999 pairs about two stay neighbours.
    assert np.sum(np.abs(np.diff(one)) == 1) < 12


def test_round_keys_are_as_many_as_asked_for_and_differ():
    assert permutation.round_keys(jax.random.key(0)).shape == (permutation.NUM_ROUNDS,)
    many = np.asarray(permutation.round_keys(jax.random.key(1), 50))
    assert many.dtype == np.uint32
    assert len(np.unique(many)) == 50


OUT_OF_RANGE = """
import jax.numpy as jnp
from mbpo_jax import permutation
keys = jnp.arange(1, 7, dtype=jnp.uint32) * jnp.uint32(2654435761)
for num_rows in (1, 2, 3, 5, 1000, 65537):
    image = permutation.shuffled(keys, jnp.array([-1, num_rows, num_rows + 1, 10 * num_rows, 2**31 - 1]), num_rows)
    assert 0 <= int(image.min()) <= int(image.max()) < num_rows, (num_rows, image)
print(permutation.shuffled(keys, jnp.array([-1, 0, 1, 2**31 - 1]), 0).tolist())
"""


def test_an_index_out_of_range_and_no_rows_at_all_come_to_an_end():
    # In a process of its own, since what this guards against is a loop without end.
    done = subprocess.run(
        [sys.executable, "-c", OUT_OF_RANGE], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[0] == "[0, 0, 0, 0]"


@pytest.mark.parametrize("num_rows", [2, 3, 7, 20, 64])
def test_the_place_of_each_element_is_uniform_over_keys(num_rows):
    keys = many_keys(num_rows)
    elements = jnp.array([0, num_rows // 2, num_rows - 1])
    shuffle = jax.jit(jax.vmap(lambda keys: permutation.shuffled(keys, elements, num_rows)))
    for places in np.asarray(shuffle(keys)).T:
        assert p_value(places, num_rows) > LEAST_P_VALUE


def test_the_distance_between_two_elements_is_uniform_over_keys():
    shuffle = jax.jit(jax.vmap(lambda keys: permutation.shuffled(keys, jnp.array([0, 1, 500]), 1001)))
    places = np.asarray(shuffle(many_keys(5)))
    for other in (1, 2):
        distance = (places[:, other] - places[:, 0]) % 1001 - 1  # 0 to 999
        assert p_value(distance // 50, 20) > LEAST_P_VALUE


def test_one_trace_serves_all_sizes_vmapped_or_not():
    traces = []

    @jax.jit
    def shuffle(keys, num_rows):
        traces.append(num_rows)
        return jax.vmap(lambda keys: permutation.shuffled(keys, jnp.arange(30), num_rows))(keys)

    alone = jax.jit(lambda keys, num_rows: permutation.shuffled(keys, jnp.arange(30), num_rows))
    three = jnp.stack([keys(seed) for seed in range(3)])
    for num_rows in (30, 31, 45, 1000, 123_456):
        batched = np.asarray(shuffle(three, jnp.int32(num_rows)))
        for i in range(3):
            np.testing.assert_array_equal(batched[i], alone(three[i], jnp.int32(num_rows)))
    assert len(traces) == 1


def test_sizes_may_differ_within_one_batch():
    sizes = jnp.array([1, 5, 17, 1000])
    index = jnp.minimum(jnp.arange(1000)[None], sizes[:, None] - 1)
    batched = jax.jit(jax.vmap(permutation.shuffled, (None, 0, 0)))(keys(0), index, sizes)
    for image, num_rows in zip(np.asarray(batched), sizes.tolist()):
        np.testing.assert_array_equal(np.sort(image[:num_rows]), np.arange(num_rows))


def test_draws_are_uniform(variant):
    for word in permutation.round_keys(jax.random.key(0), 4):
        drawn = variant(permutation.draws)(word, jnp.arange(20_000), jnp.int32(10))
        assert drawn.dtype == jnp.int32
        assert p_value(drawn, 10) > LEAST_P_VALUE


def test_draws_repeat_themselves_as_often_as_chance_does(variant):
    word = permutation.round_keys(jax.random.key(1), 1)[0]
    drawn = variant(permutation.draws)(word, jnp.arange(1000), 1000)
    # 1000 draws from 1000 rows leave out a share of 1/e: 632 different ones, give or take 10.
    assert 592 < len(np.unique(np.asarray(drawn))) < 672
    assert p_value(np.asarray(drawn) // 50, 20) > LEAST_P_VALUE


def test_draws_of_different_streams_are_independent():
    keys = jnp.append(permutation.round_keys(jax.random.key(2), 3), jnp.array([7, 8], jnp.uint32))  # neighbours, too
    drawn = np.asarray(permutation.draws(keys[:, None], jnp.arange(20_000)[None, :], 10))
    assert drawn.shape == (5, 20_000)
    for i in range(5):
        for j in range(i):
            assert p_value(10 * drawn[i] + drawn[j], 100) > LEAST_P_VALUE
    assert p_value(10 * drawn[:, :-1] + drawn[:, 1:], 100) > LEAST_P_VALUE  # nor does a draw tell the next


def test_streams_draw_other_rows_not_the_same_ones_in_another_order():
    # Words that differ in their last bits only, and as many draws as those bits can tell apart.
    keys = jnp.array([[7], [8], [12]], jnp.uint32)
    drawn = np.asarray(permutation.draws(keys, jnp.arange(1024)[None, :], 1000))
    rows = [set(stream.tolist()) for stream in drawn]
    for i in range(3):
        for j in range(i):
            # Each holds a random 64 % of the rows, so two have about 41 % in common.
            assert len(rows[i] & rows[j]) < 500


def test_a_draw_depends_on_its_stream_its_number_and_nothing_else(variant):
    keys = permutation.round_keys(jax.random.key(3), 2)
    draw = variant(permutation.draws)
    batched = np.asarray(draw(keys[:, None], jnp.arange(50)[None, :], 1000))
    for i in range(2):
        for j in (0, 17, 49):
            assert int(draw(keys[i], jnp.int32(j), 1000)) == batched[i, j]


@pytest.mark.parametrize("num_rows", [1, 2, 3, 1000, 2**31 - 1])
def test_draws_stay_in_range(variant, num_rows):
    drawn = np.asarray(variant(permutation.draws)(jnp.uint32(12345), jnp.arange(3000), jnp.int32(num_rows)))
    assert 0 <= drawn.min() <= drawn.max() < num_rows
    if num_rows < 10:
        assert len(np.unique(drawn)) == num_rows


def test_draws_from_a_growing_range_trace_once():
    traces = []

    @jax.jit
    def draw(num_rows):
        traces.append(num_rows)
        return permutation.draws(jnp.uint32(1), jnp.arange(10), num_rows)

    assert all(int(draw(jnp.int32(num_rows)).max()) < num_rows for num_rows in (1, 10, 999))
    assert len(traces) == 1
