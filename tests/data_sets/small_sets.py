"""Small data sets whose every number is known, as files of each kind."""

import functools
import itertools

import gymnasium
import h5py
import numpy as np
from minari.data_collector.episode_buffer import EpisodeBuffer
from minari.dataset.minari_storage import MinariStorage

OBS_DIM, ACTION_DIM = 3, 2
LENGTHS = (40, 30, 50)  # the ends are a terminal, a time limit, and the end of the file
ENDS = np.cumsum(LENGTHS) - 1
STARTS = np.cumsum([0, *LENGTHS[:-1]])


def columns(lengths=LENGTHS, ends="tlf", seed=0):
    """Named arrays in D4RL's layout, with next observations; all numbers differ.

    Args:
      ends: of each episode: t a terminal, l a time limit, f the file's.
    """
    rng = np.random.default_rng(seed)
    episodes = [rng.normal(size=(length + 1, OBS_DIM)).astype(np.float32) for length in lengths]
    num_rows = sum(lengths)
    last = np.cumsum(lengths) - 1
    terminals, timeouts = np.zeros(num_rows, bool), np.zeros(num_rows, bool)
    terminals[[row for row, end in zip(last, ends) if end == "t"]] = True
    timeouts[[row for row, end in zip(last, ends) if end == "l"]] = True
    return {
        "observations": np.concatenate([obs[:-1] for obs in episodes]),
        "next_observations": np.concatenate([obs[1:] for obs in episodes]),
        "actions": rng.uniform(-1, 1, (num_rows, ACTION_DIM)).astype(np.float32),
        "rewards": rng.normal(size=num_rows).astype(np.float32),
        "terminals": terminals,
        "timeouts": timeouts,
    }


def without(arrays, *names):
    return {name: values for name, values in arrays.items() if name not in names}


def hdf5(path, arrays):
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values
    return str(path)


def npz(path, arrays):
    np.savez(path, **arrays)
    return str(path)


def minari_set(
    folder, arrays, lengths=LENGTHS, action_space=None, observation_space=None, metadata=None, data_format="hdf5"
):
    """Writes them with minari itself; the ends are those that the flags say."""
    (folder / "data").mkdir(parents=True)
    infinite = np.full(OBS_DIM, np.inf, np.float32)
    storage = MinariStorage.new(
        folder / "data",
        observation_space or gymnasium.spaces.Box(-infinite, infinite),
        action_space or gymnasium.spaces.Box(-1, 1, (ACTION_DIM,), np.float32),
        data_format=data_format,
    )
    starts = np.cumsum([0, *lengths])
    storage.update_metadata({"dataset_id": "some/set-v0", "minari_version": "0.5.4"} | (metadata or {}))
    for start, stop in itertools.pairwise(starts):
        rows = slice(start, stop)
        storage.update_episodes(
            [
                EpisodeBuffer(
                    observations=np.concatenate(
                        [arrays["observations"][rows], arrays["next_observations"][stop - 1 : stop]]
                    ),
                    actions=arrays["actions"][rows],
                    rewards=arrays["rewards"][rows],
                    terminations=arrays["terminals"][rows],
                    truncations=arrays["timeouts"][rows],
                )
            ]
        )
    return str(folder)


WRITERS = {
    "D4RL HDF5": (hdf5, "x.hdf5"),
    "npz": (npz, "x.npz"),
    "Minari": (minari_set, "x"),
    "Minari, Arrow": (functools.partial(minari_set, data_format="arrow"), "x"),
}


def written(kind, tmp_path, arrays, **more):
    write, name = WRITERS[kind]
    return write(tmp_path / name, arrays, **more)


def marks(rows):
    return np.isin(np.arange(sum(LENGTHS)), rows)
