"""Every kind of data set is read number by number, and what is wrong is refused with the reason."""

import subprocess
import sys

import gymnasium
import h5py
import numpy as np
import pytest
from small_sets import ENDS, STARTS, WRITERS, columns, hdf5, marks, minari_set, npz, without, written

from mbpo_jax.data_sets import checks
from mbpo_jax.data_sets.data_set import return_mean
from mbpo_jax.data_sets.read import read


@pytest.mark.parametrize("kind", WRITERS)
def test_every_number_of_every_kind(kind, tmp_path):
    arrays = columns()
    name = written(kind, tmp_path, arrays)
    data_set = read(name)
    assert (data_set.name, data_set.kind, data_set.env_id, data_set.max_episode_steps) == (
        name,
        kind.partition(",")[0],
        None,
        50,
    )
    for field, given in {
        "obs": "observations",
        "action": "actions",
        "reward": "rewards",
        "next_obs": "next_observations",
    }.items():
        assert getattr(data_set, field).dtype == np.float32
        np.testing.assert_array_equal(getattr(data_set, field), arrays[given])
    assert data_set.terminal.dtype == np.float32
    np.testing.assert_array_equal(data_set.terminal, marks(ENDS[0]))
    np.testing.assert_array_equal(data_set.truncated, marks(ENDS[1:]))
    np.testing.assert_array_equal(data_set.first, marks(STARTS))
    assert (data_set.truncated.dtype, data_set.first.dtype) == (bool, bool)
    np.testing.assert_array_equal([data_set.action_low, data_set.action_high], [[-1, -1], [1, 1]])
    assert data_set.has_successor.all() and data_set.notes == ()


@pytest.mark.parametrize("kind", ["D4RL HDF5", "npz"])
def test_without_next_observations_nothing_is_joined_across_an_end(kind, tmp_path):
    arrays = columns()
    data_set = read(written(kind, tmp_path, without(arrays, "next_observations")))
    left = ~marks(ENDS[1:])  # the last row before a time limit and the last of the file have no successor
    np.testing.assert_array_equal(data_set.obs, arrays["observations"][left])
    expected = arrays["next_observations"].copy()
    expected[ENDS[0]] = arrays["observations"][ENDS[0]]  # a terminal without successor
    np.testing.assert_array_equal(data_set.next_obs, expected[left])
    np.testing.assert_array_equal(data_set.action, arrays["actions"][left])
    np.testing.assert_array_equal(data_set.reward, arrays["rewards"][left])
    np.testing.assert_array_equal(np.flatnonzero(data_set.terminal), [39])
    np.testing.assert_array_equal(np.flatnonzero(data_set.first), [0, 40, 69])
    np.testing.assert_array_equal(np.flatnonzero(data_set.truncated), [68, 117])  # rows before those left out
    np.testing.assert_array_equal(np.flatnonzero(~data_set.has_successor), [39])
    assert data_set.max_episode_steps == 50
    assert data_set.notes == (
        "1 row terminal without successor, of use for the value only",
        "2 rows left out at a time limit or the end of the file, without successor",
    )


def test_an_episode_of_one_row_that_timed_out_leaves_nothing_behind(tmp_path):
    arrays = without(columns((60, 1, 60), "llf"), "next_observations")
    data_set = read(npz(tmp_path / "x.npz", arrays))
    np.testing.assert_array_equal(np.flatnonzero(data_set.first), [0, 59])
    np.testing.assert_array_equal(np.flatnonzero(data_set.truncated), [58, 117])
    firsts = data_set.obs[data_set.first]
    assert not any((data_set.next_obs == first).all(axis=1).any() for first in firsts)


def test_stored_successors_that_are_the_next_episodes_first_observation_are_none(tmp_path):
    """As conversions make them that shift the observations by one."""
    arrays = columns((40, 30, 50), "ltf")
    shifted = arrays | {"next_observations": np.roll(arrays["observations"], -1, axis=0)}
    shifted["next_observations"][-1] = arrays["next_observations"][-1]
    data_set = read(npz(tmp_path / "x.npz", shifted))
    left = ~marks(ENDS[0])
    expected = arrays["next_observations"].copy()
    expected[ENDS[1]] = arrays["observations"][ENDS[1]]
    np.testing.assert_array_equal(data_set.next_obs, expected[left])
    np.testing.assert_array_equal(np.flatnonzero(data_set.terminal), [68])
    np.testing.assert_array_equal(np.flatnonzero(~data_set.has_successor), [68])
    assert data_set.notes[0].startswith("2 rows stored with the next episode's first observation")


def test_without_timeouts_an_episode_ends_where_the_successor_is_not_the_next_row(tmp_path):
    data_set = read(npz(tmp_path / "x.npz", without(columns(), "timeouts")))
    np.testing.assert_array_equal(data_set.first, marks(STARTS))
    np.testing.assert_array_equal(data_set.truncated, marks(ENDS[1:]))
    assert data_set.notes == ("1 row ended an episode without a mark",)


def test_shuffled_rows_are_suspicious_and_have_no_returns(tmp_path):
    arrays = columns()
    order = np.random.default_rng(0).permutation(120)
    data_set = read(npz(tmp_path / "x.npz", {name: values[order] for name, values in arrays.items()}))
    assert data_set.first.mean() > 0.9 and "in the order in which they were taken?" in data_set.notes[0]
    assert return_mean(data_set) == (None, 0)


def test_one_long_recording_needs_no_timeouts(tmp_path):
    """Its successors are the next rows, and nothing says that it ever ended."""
    arrays = without(columns((120,), "f"), "timeouts")
    data_set = read(npz(tmp_path / "x.npz", arrays))
    np.testing.assert_array_equal(np.flatnonzero(data_set.first), [0])
    assert data_set.notes == ()


def test_an_end_that_leaves_the_observation_as_it_was_has_a_successor_if_one_is_stored(tmp_path):
    arrays = columns()
    arrays["next_observations"][ENDS[0]] = arrays["observations"][ENDS[0]]
    data_set = read(npz(tmp_path / "x.npz", arrays))
    assert data_set.has_successor.all() and data_set.terminal[ENDS[0]] == 1.0


def test_bounds_in_the_file_scale_its_actions(tmp_path):
    arrays = columns()
    bounds = {"action_low": np.array([-2, -1]), "action_high": np.array([2, 3])}  # whole numbers, of floats
    actions = arrays["actions"] * np.float32(2) + np.float32([0, 1])
    for name in (
        npz(tmp_path / "x.npz", arrays | bounds | {"actions": actions}),
        hdf5(tmp_path / "x.hdf5", arrays | bounds | {"actions": actions}),
    ):
        data_set = read(name)
        np.testing.assert_allclose(data_set.action, arrays["actions"], atol=1e-6)
        np.testing.assert_array_equal([data_set.action_low, data_set.action_high], list(bounds.values()))


@pytest.mark.parametrize("stored", ["a link", "a link on the way", "outside", "virtual"])
def test_numbers_that_lie_in_other_files_are_refused(stored, tmp_path):
    """No sum would cover them, and a file of a stranger could read any other."""
    arrays = columns()
    hdf5(tmp_path / "other.hdf5", arrays)
    hdf5(tmp_path / "x.hdf5", without(arrays, "rewards"))
    with h5py.File(tmp_path / "x.hdf5", "a") as file:
        if stored == "a link":
            file["rewards"] = h5py.ExternalLink("other.hdf5", "/rewards")
        elif stored == "a link on the way":
            file["elsewhere"] = h5py.ExternalLink("other.hdf5", "/")
            file["rewards"] = h5py.SoftLink("/elsewhere/rewards")
        elif stored == "outside":
            arrays["rewards"].tofile(tmp_path / "raw")
            file.create_dataset("rewards", (120,), "f4", external=[(str(tmp_path / "raw"), 0, 480)])
        else:
            layout = h5py.VirtualLayout((120,), "f4")
            layout[:] = h5py.VirtualSource(str(tmp_path / "other.hdf5"), "rewards", (120,))
            file.create_virtual_dataset("rewards", layout)
    with pytest.raises(ValueError, match="rewards must be in the file itself, got"):
        read(str(tmp_path / "x.hdf5"))


def test_terminal_and_timed_out_is_terminal(tmp_path):
    arrays = columns()
    arrays["timeouts"] |= arrays["terminals"]
    data_set = read(npz(tmp_path / "x.npz", arrays))
    np.testing.assert_array_equal(data_set.terminal, marks(ENDS[0]))
    assert not data_set.truncated[ENDS[0]]
    assert data_set.notes == ("1 row terminal and timed out: terminal",)


def test_columns_of_one_number_are_columns(tmp_path):
    arrays = columns()
    for name in ("rewards", "terminals", "timeouts"):
        arrays[name] = arrays[name][:, None].astype(np.float64)
    data_set = read(npz(tmp_path / "x.npz", arrays))
    np.testing.assert_array_equal(data_set.reward, columns()["rewards"])
    assert data_set.reward.shape == data_set.terminal.shape == data_set.truncated.shape == (120,)


@pytest.mark.parametrize("bounded_by", ["the environment", "the data set"])
def test_actions_are_scaled_from_the_bounds_that_were_given_else_known(bounded_by, tmp_path):
    arrays, low, high = columns(), np.array([-2.0, 0.0], np.float32), np.array([2.0, 4.0], np.float32)
    own = arrays["actions"]
    arrays["actions"] = low + (own + 1) / 2 * (high - low)
    if bounded_by == "the environment":
        data_set = read(hdf5(tmp_path / "x.h5", arrays), low, high)
    else:
        data_set = read(minari_set(tmp_path / "x", arrays, action_space=gymnasium.spaces.Box(low, high)))
    np.testing.assert_allclose(data_set.action, own, atol=1e-6)
    np.testing.assert_array_equal(data_set.action_low, low)
    np.testing.assert_array_equal(data_set.action_high, high)


def test_whole_numbers_share_the_unit_interval():
    low, high = np.array([0], np.int64), np.array([3], np.int64)
    actions = np.arange(4, dtype=np.float32)[:, None]
    unit = checks.to_unit(actions, low, high)
    np.testing.assert_allclose(unit[:, 0], [-0.75, -0.25, 0.25, 0.75])
    np.testing.assert_array_equal(checks.from_unit(unit, low, high), actions)


def test_rounding_at_the_bounds_is_clipped_and_more_is_refused(tmp_path):
    arrays = columns()
    arrays["actions"][3] = 1.000001
    assert read(npz(tmp_path / "x.npz", arrays)).action.max() == 1.0
    arrays["actions"][7:9, 1] = 1.5, -3.0
    with pytest.raises(ValueError, match="got 2 numbers outside; the largest is -3 in row 8, where action 1 must be"):
        read(npz(tmp_path / "x.npz", arrays))


def change(**named):
    return lambda arrays: arrays | {name: make(arrays[name]) for name, make in named.items()}


def put(row, value):
    def changed(values):
        values = values.copy()
        values[row] = value
        return values

    return changed


WRONG = {
    "a missing array": (lambda a: without(a, "rewards"), "must have the arrays .*, got none named rewards"),
    "no ends by time": (lambda a: without(a, "timeouts", "next_observations"), "must have timeouts or next_obs"),
    "two rewards": (change(rewards=lambda r: np.stack([r, r], 1)), r"rewards must be \[120\] or .*got \[120, 2\]"),
    "a reward too few": (change(rewards=lambda r: r[1:]), r"rewards must be \[120\] or .*got \[119\]"),
    "an action too few": (change(actions=lambda a: a[1:]), r"actions must be \[120, A\].*got \[119, 2\]"),
    "flat actions": (change(actions=lambda a: a[:, 0]), r"actions must be \[N, A\], got \[120\]; .*A = 1"),
    "images": (change(observations=lambda o: o[:, None]), r"observations must be \[N, O\], got \[120, 1, 3\]"),
    "no numbers": (change(rewards=lambda r: r.astype("S8")), r"rewards must be numbers, got \|S8"),
    "complex": (change(actions=lambda a: a.astype(complex)), "actions must be numbers, got complex128"),
    "nan": (change(observations=put((17, 1), np.nan)), "observations must be finite.*row 17, the first of 1"),
    "inf": (change(rewards=put(119, np.inf)), "rewards must be finite in float32, got inf in row 119"),
    "beyond float32": (
        change(next_observations=lambda o: put(2, 1e40)(o.astype(np.float64))),
        "next observations must be finite in float32.*row 2",
    ),
    "half a terminal": (change(terminals=lambda t: t * 0.5), "terminals must be 0 or 1 everywhere, got 0.5 in row 39"),
    "nan for a flag": (change(timeouts=lambda t: np.where(t, np.nan, 0.0)), "timeouts must be finite"),
    "other successors": (change(next_observations=lambda o: o[:, :2]), r"must be \[120, 3\], like observations, got"),
    "no rows": (
        lambda a: {name: values[:0] for name, values in a.items()},
        "must have at least one row and one column",
    ),
    "few rows": (lambda a: {name: values[:30] for name, values in a.items()}, "got 30 rows in 1 episode$"),
    "raw actions": (
        change(actions=lambda a: 3 * a),
        "actions must lie within their bounds, got .* numbers outside.* give the environment, or action_low and action",
    ),
    "one bound": (lambda a: a | {"action_low": np.full(2, -3.0)}, "action_low and action_high must be given together"),
    "other bounds": (
        lambda a: a | {"action_low": np.full(3, -3.0), "action_high": np.full(3, 3.0)},
        r"action_low must be \[2\], got \[3\]",
    ),
    "no time limits in sight": (
        lambda a: without(a, "timeouts") | {"next_observations": np.roll(a["observations"], -1, axis=0)},
        "must have timeouts, got none, and next_observations that are the next row's observation even after a terminal",
    ),
}


@pytest.mark.parametrize("kind", ["D4RL HDF5", "npz"])
@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_refused_with_the_reason(kind, what, tmp_path):
    spoil, reason = WRONG[what]
    name = written(kind, tmp_path, spoil(columns()))
    with pytest.raises(ValueError, match=reason) as caught:
        read(name)
    assert str(caught.value).startswith(f"dataset {name!r}: ")
    assert len(str(caught.value).splitlines()) == 1


def test_objects_are_never_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return pytest.fail, ("unpickled",)

    np.savez(tmp_path / "x.npz", **columns() | {"rewards": np.array([Trap()] * 120, object)})
    with pytest.raises(ValueError, match="rewards.npy must be numbers, got objects, which only unpickling could read"):
        read(str(tmp_path / "x.npz"))
    (tmp_path / "x.pkl").write_bytes(b"\x80\x04cos\nsystem\n.")
    with pytest.raises(ValueError, match="pickled data are never loaded"):
        read(str(tmp_path / "x.pkl"))


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("damage", ["cut off", "noise"])
def test_damaged_files_are_one_line(kind, damage, tmp_path):
    name = written(kind, tmp_path, columns())
    inside = {"Minari": "x/data/main_data.hdf5", "Minari, Arrow": "x/data/1/*.arrow"}.get(kind, WRITERS[kind][1])
    (file,) = tmp_path.glob(inside)
    content = file.read_bytes()
    half = len(content) // 2
    file.write_bytes(content[:half] if damage == "cut off" else content[:8] + b"\x55" * half)
    with pytest.raises(ValueError, match="cannot be read|must") as caught:
        read(name)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("kind", WRITERS)
def test_what_is_larger_than_memory_is_refused_before_it_is_read(kind, tmp_path, monkeypatch):
    name = written(kind, tmp_path, columns())
    monkeypatch.setattr("mbpo_jax.driver.memory_limits.smallest", lambda: (9000, "ulimit -v"))
    for reader in ("numpy.lib.format.read_array", "h5py.Dataset.__getitem__", "pyarrow.dataset.dataset"):
        monkeypatch.setattr(reader, lambda *args, **named: pytest.fail("it was read"))
    with pytest.raises(ValueError, match=r"needs 0.01\d+ MB .* 120 rows, which must fit the 0.009 MB that ulimit -v"):
        read(name)


def test_the_sum_of_minari_s_data_is_that_of_their_rows(tmp_path):
    """When and where the same rows were recorded again, in which of minari's formats: none of this changes the sum."""
    one = read(minari_set(tmp_path / "a", columns(), metadata={"description": "on Monday"})).sha256
    assert one == read(minari_set(tmp_path / "b", columns(), metadata={"description": "on Tuesday"})).sha256
    assert one == read(minari_set(tmp_path / "c", columns(), data_format="arrow")).sha256
    wider = gymnasium.spaces.Box(-2, 2, (2,), np.float32)
    assert one != read(minari_set(tmp_path / "d", columns(), action_space=wider)).sha256
    for number, name in enumerate(("observations", "actions", "rewards")):
        arrays = columns()
        arrays[name][7] += 0.25 * np.sign(-arrays[name][7])  # stays within the bounds
        assert one != read(minari_set(tmp_path / str(number), arrays)).sha256
    assert one != read(minari_set(tmp_path / "e", columns(ends="ttf"))).sha256


def test_the_same_data_have_the_same_sum_wherever_they_lie(tmp_path):
    for kind in WRITERS:
        (tmp_path / kind / "there").mkdir(parents=True)
        one = read(written(kind, tmp_path / kind, columns())).sha256
        assert len(one) == 64
        other = written(kind, tmp_path / kind / "there", columns(seed=1))
        assert read(other).sha256 != one
    npz(tmp_path / "a.npz", columns())
    (tmp_path / "b.npz").write_bytes((tmp_path / "a.npz").read_bytes())
    assert read(str(tmp_path / "a.npz")).sha256 == read(str(tmp_path / "b.npz")).sha256
    (tmp_path / "Minari/x").rename(tmp_path / "moved")
    moved = read(str(tmp_path / "moved")).sha256
    assert read(str(tmp_path / "moved/data")).sha256 == moved


def test_a_folder_of_something_else(tmp_path):
    with pytest.raises(ValueError, match="a folder must be a Minari data set .* or a run directory .*, got neither"):
        read(str(tmp_path))


def test_reading_imports_no_jax():
    code = "import sys, mbpo_jax.data_sets.read, mbpo_jax.data_sets.data_set; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
