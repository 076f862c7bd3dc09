"""The five lines of a data set, with numbers worked out by hand."""

import numpy as np
import pytest
from small_sets import columns, npz, without

from mbpo_jax.data_sets.data_set import DataSet, episode_returns
from mbpo_jax.data_sets.describe import constant_dimensions, describe, duplicate_share
from mbpo_jax.data_sets.read import read


def small(**changes):
    """Episodes of 2, 3 and 1 rows: a terminal, a time limit, and one that the recording cut off."""
    obs = np.float32([[0, 7], [1, 7], [2, 7], [3, 7], [4, 7], [5, 7]])
    fields = {
        "name": "hand.npz",
        "kind": "npz",
        "obs": obs,
        "action": np.float32([[-1], [1], [0], [0.5], [0.25], [0]]),
        "reward": np.float32([1, 2, 3, 4, 5, 6]),
        "next_obs": obs + np.float32([1, 0]),
        "terminal": np.float32([0, 1, 0, 0, 0, 0]),
        "truncated": np.array([0, 0, 0, 0, 1, 1], bool),
        "first": np.array([1, 0, 1, 0, 0, 1], bool),
        "has_successor": np.ones(6, bool),
        "left_out_reward": np.zeros(6, np.float32),
        "action_low": np.float32([-2]),
        "action_high": np.float32([2]),
        "max_episode_steps": 3,
        "env_id": "Walk-v0",
        "sha256": "0123456789abcdef",
    }
    return DataSet(**(fields | changes))


def test_the_five_lines():
    assert describe(small()) == [
        "data set: hand.npz (npz, Walk-v0): 6 rows, 2 observations, 1 actions",
        "episodes: 3, 1 ended by a terminal, 2 otherwise; 1 to 3 rows, mean 2.0",
        "returns: mean 7.50, from 3.00 to 12.00 over 2 whole episodes; rewards from 1 to 6",
        "actions: bounds -2 to 2, 33.3% at a bound; observations: sd 0 to 1.71, 1 constant",
        "duplicates: 0.00% of rows; sha256 0123456789ab; nothing suspicious",
    ]


def test_an_episode_is_whole_if_it_is_there_from_its_beginning_to_its_end():
    returns, whole = episode_returns(small())
    np.testing.assert_array_equal(returns, [3, 12, 6])
    np.testing.assert_array_equal(whole, [True, True, False])
    begun_before = small(first=np.array([0, 0, 1, 0, 0, 1], bool))
    np.testing.assert_array_equal(episode_returns(begun_before)[1], [False, True, False])
    np.testing.assert_array_equal(episode_returns(small(max_episode_steps=1))[1], [True, True, True])
    lost = small(left_out_reward=np.float32([0, 10, 0, 0, np.nan, 0]))
    np.testing.assert_array_equal(episode_returns(lost)[0], [13, np.nan, 6])
    np.testing.assert_array_equal(episode_returns(lost)[1], [True, False, False])
    # The last episode has 1 of 2 rows; the other one counts only if it was there and left out.
    for left_out, is_whole in ((0, False), (5, True)):
        last = small(max_episode_steps=2, left_out_reward=np.float32([0, 0, 0, 0, 0, left_out]))
        assert episode_returns(last)[1][-1] == is_whole
    no_whole = small(first=np.zeros(6, bool))
    assert describe(no_whole)[2].startswith("returns: no whole episode; ")
    assert "one episode only" in describe(no_whole)[4]


@pytest.mark.parametrize("changed", ["obs", "action", "reward", "next_obs"])
def test_rows_are_duplicates_if_they_are_equal_to_the_bit(changed):
    twice = {name: np.concatenate([value, value]) for name, value in small()._asdict().items() if name in small_columns}
    assert duplicate_share(small(**twice)) == 0.5
    values = twice[changed].copy()
    values[-1] = np.nextafter(values[-1], np.float32(9))
    assert duplicate_share(small(**(twice | {changed: values}))) == pytest.approx(5 / 12)


small_columns = ("obs", "action", "reward", "next_obs")


def test_constant_dimensions():
    assert constant_dimensions(np.float32([[1, 2, 3], [1, 4, 3]])) == [0, 2]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"reward": np.ones(6, np.float32)}, "all rewards are equal"),
        ({"action": np.full((6, 1), 0.5, np.float32)}, "action 0 is constant"),
        ({"action": np.float32([[1], [-1], [1], [1], [-1], [0]])}, "most numbers in actions are at a bound"),
        ({"reward": np.float32([1, 2, 3, 4, 5, 3e9])}, "numbers as large as 3e+09"),
        ({"notes": ("1 row left out",)}, "1 row left out"),
    ],
)
def test_what_is_suspicious_is_said(changes, said):
    lines = describe(small(**changes))
    assert len(lines) == 5 and said in lines[4]


def test_what_reading_left_out_is_said(tmp_path):
    lines = describe(read(npz(tmp_path / "x.npz", without(columns(), "next_observations"))))
    assert lines[1].startswith("episodes: 3, 1 ended by a terminal, 2 otherwise; 29 to 49 rows")
    assert "2 rows left out at a time limit or the end of the file" in lines[4]
    assert "1 row terminal without successor, of use for the value only" in lines[4]
