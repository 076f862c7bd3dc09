from typing import Any

import compiled
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs
from flax import struct

from mbpo_jax import replay as replay_lib
from mbpo_jax.driver.seeds import SeedAxis
from mbpo_jax.driver.storage.packing import finite, pack, unpack, without_buffers
from mbpo_jax.types import Spec, Transition

SPEC = Spec(2, 1)


def rows(*numbers):
    """Rows that are recognised by their reward."""
    n = np.float32(numbers)
    return Transition(
        obs=np.stack([n, -n], 1),
        action=n[:, None] / 100,
        reward=n,
        next_obs=np.stack([n + 1, -n - 1], 1),
        terminal=n % 2,
    )


def buffer(capacity, *numbers, limit=None):
    """A buffer to which rows were added one by one."""
    made = replay_lib.init(SPEC, capacity)
    for number in numbers:
        made = compiled.add(made, rows(number), limit=limit)
    return made


def contents(made):
    """The rows in force, oldest first."""
    return tiny_runs.rows_of(made)


def test_a_real_state_comes_back_bit_for_bit(mbpo_run):
    algorithm, spec = tiny_runs.build_mbpo()
    packed = tiny_runs.saved(mbpo_run).arrays["1"]
    (fresh,) = SeedAxis(1, "each").lift(algorithm.init)((jax.random.key(99),))
    state = unpack(fresh, packed["state"])
    assert jax.tree.structure(state) == jax.tree.structure(fresh)
    assert (int(state.imagined.size), int(state.agent.num_updates)) == (192, 101)  # a state that has learnt
    assert bool(jnp.any(state.agent.actor.opt_state[0].nu["_Mlp_0"]["Dense_0"]["kernel"] > 0.0))
    tiny_runs.assert_same_bits(pack(state), packed["state"])
    real = unpack(replay_lib.init(spec, algorithm.replay_capacity, episodes=True), packed["replay"])
    assert (int(real.size), int(real.num_added)) == (100, 160)
    tiny_runs.assert_same_bits(pack(real), packed["replay"])
    # every leaf is from the file: none is left as it was initialised by chance
    again = unpack(jax.tree.map(jnp.ones_like, fresh), packed["state"])
    tiny_runs.assert_same_bits(pack(again), packed["state"])


def test_what_is_packed_is_on_the_host():
    packed = pack({"buffer": buffer(3, 1, 2), "x": jnp.arange(2)})
    assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(packed))
    assert set(packed["buffer"]) == {"rows", "size", "num_added"}


def test_a_buffer_that_has_wrapped_is_packed_by_age():
    made = buffer(5, *range(8))  # slots hold 5, 6, 7, 3, 4
    packed = pack(made)
    assert packed["rows"]["reward"].tolist() == [3, 4, 5, 6, 7]
    assert packed["rows"]["obs"].tolist() == [[n, -n] for n in range(3, 8)]
    assert (int(packed["size"]), int(packed["num_added"])) == (5, 8)


def test_rows_that_are_out_of_force_are_not_packed():
    made = buffer(6, *range(8), limit=3)
    assert pack(made)["rows"]["reward"].tolist() == [5, 6, 7]


@pytest.mark.parametrize("numbers", [(), (1,), (1, 2, 3), tuple(range(5)), tuple(range(8)), tuple(range(23))])
@pytest.mark.parametrize("capacity", [5, 6, 11])
def test_a_buffer_comes_back_with_the_same_rows_by_age_and_goes_on_like_it(numbers, capacity):
    made = buffer(5, *numbers)
    back = unpack(buffer(capacity, 77, 78), pack(made))
    assert replay_lib.capacity(back) == capacity
    assert (int(back.size), int(back.num_added)) == (min(len(numbers), 5), len(numbers))
    tiny_runs.assert_same_bits(contents(back), contents(made))
    if numbers:
        draws = [compiled.sample(jax.random.key(3), b, (4, 2)) for b in (back, made)]
        tiny_runs.assert_same_bits(*draws)
    # the newest row takes the place of the oldest, at whatever limit
    more = [compiled.add(b, rows(100, 101), limit=5) for b in (back, made)]
    tiny_runs.assert_same_bits(*map(contents, more))
    assert contents(more[0]).reward.tolist() == [*map(float, numbers), 100.0, 101.0][-5:]


def test_a_buffer_that_is_too_small_is_refused():
    with pytest.raises(ValueError, match="a buffer of 5 rows does not fit a capacity of 4"):
        unpack(buffer(4), pack(buffer(5, *range(5))))


def test_arrays_that_do_not_fit_are_refused():
    fresh = {"w": jnp.zeros((2, 3)), "n": jnp.int32(0), "buffer": buffer(4)}
    packed = pack({"w": jnp.ones((2, 3)), "n": jnp.int32(5), "buffer": buffer(4, 1, 2)})
    tiny_runs.assert_same_bits(pack(unpack(fresh, packed)), packed)

    def with_rows(**changes):
        return packed | {"buffer": packed["buffer"] | {"rows": packed["buffer"]["rows"] | changes}}

    wrong = {
        r"float32\(3, 2\) where float32\(2, 3\)": packed | {"w": np.ones((3, 2), np.float32)},
        r"float32\(1, 3\) where float32\(2, 3\)": packed | {"w": np.ones((1, 3), np.float32)},  # would broadcast
        r"float32\(\) where int32\(\)": packed | {"n": np.float32(5)},
        r"float64\(2, 3\) where float32": packed | {"w": np.ones((2, 3))},
        r"float32\(1,\) where float32\(2,\)": with_rows(reward=np.ones(1, np.float32)),  # would broadcast
        r"float32\(2, 1\) where float32\(2, 2\)": with_rows(obs=np.ones((2, 1), np.float32)),
        r"int32\(2,\) where float32\(2,\)": with_rows(terminal=np.ones(2, np.int32)),
        "w": {name: value for name, value in packed.items() if name != "w"},
    }
    for message, damaged in wrong.items():
        with pytest.raises(ValueError, match=message):
            unpack(fresh, damaged)


def test_what_is_not_finite_is_found_by_name_in_buffers_too():
    tree = {"w": jnp.ones((2, 3)), "n": jnp.int32(7), "deep": {"best": jnp.float32(np.inf)}, "buffer": buffer(4, 1, 2)}
    is_finite = finite(pack(tree))
    assert {name for name, value in is_finite.items() if not value} == {"deep/best"}
    assert {"w", "deep/best", "buffer/rows/obs", "buffer/rows/reward"} <= is_finite.keys()
    assert "n" not in is_finite  # whole numbers always are
    for bad in (np.nan, np.inf, -np.inf):
        assert not finite(pack({"w": jnp.ones((2, 3)).at[1, 2].set(bad)}))["w"]
        made = buffer(4, 1, 2, 3)
        odd = made.rows.replace(reward=made.rows.reward.at[1].set(bad))
        assert not finite(pack({"buffer": made.replace(rows=odd)}))["buffer/rows/reward"]
    assert finite(without_buffers(tree)).keys() == {"w", "deep/best"}


def test_which_rows_began_an_episode_comes_back_by_age():
    made = replay_lib.init(SPEC, 4, episodes=True)
    for number in range(6):  # slots hold 4, 5, 2, 3
        made = compiled.add(made, rows(number), first=jnp.array([number % 3 == 0]))
    packed = pack(made)
    assert packed["first"].tolist() == [False, True, False, False]  # rows 2 to 5
    back = unpack(replay_lib.init(SPEC, 6, episodes=True), packed)
    assert back.first.tolist() == [False, True, False, False, False, False]
    tiny_runs.assert_same_bits(pack(back), packed)
    with pytest.raises(ValueError, match="first"):
        unpack(made, {name: value for name, value in packed.items() if name != "first"})


class Optional(struct.PyTreeNode):
    """Arrays of which one may be absent."""

    kept: dict[str, Any]


def test_what_is_none_is_not_saved_and_is_none_again_and_files_from_before_it_was_there_are_read():
    tree = Optional({"there": jnp.arange(2.0), "absent": None})
    packed = pack(tree)
    assert packed["kept"].keys() == {"there"}
    back = unpack(tree, packed)
    assert back.kept["absent"] is None
    assert back.kept["there"].tolist() == [0.0, 1.0]
