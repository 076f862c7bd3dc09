"""Data sets of Minari are found by their ids and read episode by episode, and what is not installed is said."""

import json
import sys

import gymnasium
import h5py
import numpy as np
import pytest
from small_sets import ENDS, STARTS, columns, hdf5, marks, minari_set

from mbpo_jax.data_sets import minari_folder
from mbpo_jax.data_sets.read import read


def test_an_id_is_found_where_minari_finds_it(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "root"))
    minari_set(tmp_path / "root/mujoco/hopper/medium-v0", columns())
    monkeypatch.chdir(tmp_path)
    assert read("mujoco/hopper/medium-v0").kind == "Minari"
    assert minari_folder.known_ids() == ["mujoco/hopper/medium-v0"]
    with pytest.raises(ValueError, match="none in '.*root' .*; there are mujoco/hopper/medium-v0") as caught:
        read("mujoco/hopper/expert-v0")
    assert str(caught.value).startswith("dataset 'mujoco/hopper/expert-v0': it must be a file, a folder, or the id")


def test_looking_for_an_id_makes_no_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "root"))
    for name in ("some/set-v0", "", "https://somewhere/x.hdf5"):
        with pytest.raises(ValueError, match="dataset .* must be"):
            read(name)
    assert not (tmp_path / "root").exists()


def test_environment_and_time_limit_come_from_the_metadata(tmp_path):
    spec = gymnasium.spec("Hopper-v5").to_json()
    name = minari_set(tmp_path / "x", columns())
    metadata = tmp_path / "x/data/metadata.json"
    metadata.write_text(json.dumps(json.loads(metadata.read_text()) | {"env_spec": spec}))
    data_set = read(name)
    assert (data_set.env_id, data_set.max_episode_steps) == ("Hopper-v5", 1000)


def test_metadata_without_spaces_would_import_what_a_stranger_wrote(tmp_path, monkeypatch):
    name = minari_set(tmp_path / "x", columns())
    metadata = tmp_path / "x/data/metadata.json"
    spec = json.loads(gymnasium.spec("Hopper-v5").to_json()) | {"entry_point": "os:abort"}
    content = json.loads(metadata.read_text()) | {"env_spec": json.dumps(spec)}
    del content["action_space"]
    metadata.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="metadata.json must say 'action_space', got None"):
        read(name)


@pytest.mark.parametrize(
    ("space", "reason"),
    [
        (gymnasium.spaces.Discrete(2), r"must have continuous \(Box\) actions, got Discrete\(2\)"),
        (gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32), "actions must have finite bounds"),
        (gymnasium.spaces.Box(-0.5, 0.5, (2,), np.float32), "actions must lie within their bounds"),
    ],
)
def test_actions_that_are_not_served(space, reason, tmp_path):
    arrays = columns()
    name = minari_set(tmp_path / "x", arrays, action_space=space)
    with pytest.raises(ValueError, match=reason):
        read(name)


def test_other_bounds_than_the_data_sets_may_be_given(tmp_path):
    infinite = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    name = minari_set(tmp_path / "x", columns(), action_space=infinite)
    two = np.full(2, 2.0, np.float32)
    np.testing.assert_allclose(read(name, -two, two).action, columns()["actions"] / 2, atol=1e-6)
    with pytest.raises(ValueError, match="actions must have 3 numbers, like their bounds, got 2"):
        read(name, -np.ones(3), np.ones(3))


def test_an_episode_without_a_flag_ends_where_it_ends(tmp_path):
    """Even where the next one begins with the observation that it ended with."""
    arrays = columns(ends="tff")
    arrays["next_observations"][ENDS[1]] = arrays["observations"][STARTS[2]]
    data_set = read(minari_set(tmp_path / "x", arrays))
    np.testing.assert_array_equal(data_set.first, marks(STARTS))
    np.testing.assert_array_equal(data_set.truncated, marks(ENDS[1:]))
    np.testing.assert_array_equal(data_set.next_obs, arrays["next_observations"])
    assert data_set.notes == ()


def spoil_episode(folder, number, **changes):
    with h5py.File(folder / "data/main_data.hdf5", "a") as file:
        for name, values in changes.items():
            del file[f"episode_{number}"][name]
            file[f"episode_{number}"][name] = values


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"observations": np.zeros((40, 3))}, "observations of episode 0 must be 41 for its 40 rewards, got 40"),
        ({"actions": np.zeros((41, 2))}, "actions of episode 0 must be 40"),
        ({"rewards": np.zeros(0)}, "episode 0 must have a step at least, got none"),
        ({"rewards": np.zeros((40, 2))}, r"rewards of episode 0 must be \[40\]"),
        ({"terminations": np.arange(40) == 5}, "episode 0 must end with its first termination or truncation, got one"),
        ({"truncations": np.arange(40) == 5}, "episode 0 must end with its first termination or truncation, got one"),
        ({"rewards": np.full(40, np.nan)}, "rewards must be finite in float32, got nan in row 0, the first of 40"),
    ],
)
def test_episodes_that_are_wrong_are_named(changes, reason, tmp_path):
    name = minari_set(tmp_path / "x", columns())
    spoil_episode(tmp_path / "x", 0, **changes)
    with pytest.raises(ValueError, match=reason):
        read(name)


def test_metadata_that_promise_more_are_refused(tmp_path):
    name = minari_set(tmp_path / "x", columns())
    metadata = tmp_path / "x/data/metadata.json"
    content = json.loads(metadata.read_text())
    metadata.write_text(json.dumps(content | {"total_steps": 121}))
    with pytest.raises(ValueError, match="must have the 121 steps of 3 episodes that its metadata say, got 120 of 3"):
        read(name)
    metadata.write_text(json.dumps(content | {"total_steps": 10**15}))
    with pytest.raises(ValueError, match=r"needs .* GB of memory for 1,000,000,000,000,000 rows"):
        read(name)


def test_what_is_not_installed_is_said(tmp_path, monkeypatch):
    name = minari_set(tmp_path / "x", columns())
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(ValueError, match=r"pip install -e '\.\[offline\]'"):
        read(name)
    name = hdf5(tmp_path / "x.h5", columns())
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ValueError, match=r"pip install -e '\.\[offline\]'"):
        read(name)


@pytest.mark.parametrize("numbers", [[3], [-1], ["0"], [True]])
def test_numbers_of_incomplete_episodes_that_cannot_be_are_refused(numbers, tmp_path):
    name = minari_set(tmp_path / "x", columns(), metadata={"mbpo_jax": {"incomplete_episodes": numbers}})
    with pytest.raises(
        ValueError, match="incomplete_episodes in its metadata.json must be numbers of its episodes, got"
    ):
        read(name)
