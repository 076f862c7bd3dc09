"""Writes a data set in Minari's format, with the minari package; whole, or nothing that looks like one."""

import importlib.metadata
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from mbpo_jax.data_sets import checks, minari_folder
from mbpo_jax.data_sets.array_file import INSTALL
from mbpo_jax.data_sets.data_set import DataSet, episode_bounds
from mbpo_jax.driver.storage import files

VERSION = re.compile(r"[-\w]+-v\d+")
EPISODE_BYTES = 20_000  # overhead of HDF5 per episode, measured 14,000


def check_free(folder: Path, overwrite: bool) -> None:
    """Refuses a folder that is already in use, before doing work whose result goes there.

    Raises:
      ValueError: a data set is there and may not be replaced, or something else is; or minari is not installed.
    """
    try:
        import minari.dataset._storages.hdf5_storage  # noqa: F401
    except ImportError as error:
        raise ValueError(f"out is written with minari and h5py, which must be installed: {INSTALL}") from error
    if not VERSION.fullmatch(folder.name):
        raise ValueError(
            f"out must be a folder whose name ends in a version, as Minari's ids do (medium-v0), got '{folder}'"
        )
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if minari_folder.data_folder(folder) != folder / "data":
        raise ValueError(f"out must be a new folder, got '{folder}', which holds something other than a data set")
    if not overwrite:
        raise ValueError(f"out must be a new folder, got '{folder}', where a data set exists; --overwrite replaces it")


def dataset_id(folder: Path) -> str:
    """Returns the id by which minari finds a folder, if it lies where minari looks; else the folder's name."""
    root = minari_folder.root().absolute()
    if folder.absolute().is_relative_to(root):
        return folder.absolute().relative_to(root).as_posix()
    return folder.name


def write(folder: Path, data_set: DataSet, metadata: dict[str, Any]) -> None:
    """Writes a data set next to `folder`, and moves it there once it is on the disk.

    Observations are written as float32, unchanged; actions in the bounds of their environment, in its dtype.

    Args:
      folder: will contain `data/`; what was there is replaced.
      metadata: added to minari's own.
    Raises:
      ValueError: rows of an episode do not follow each other.
      OSError: it could not be written; what was there is unchanged.
    """
    writing, old = (folder.with_name(f".{folder.name}.{word}") for word in ("writing", "replaced"))
    shutil.rmtree(writing, ignore_errors=True)  # of a process that was killed
    writing.mkdir(parents=True)
    try:
        _check_room(writing, data_set)
        _write(writing, dataset_id(folder), data_set, metadata)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            os.rename(folder, old)
        os.rename(writing, folder)
        files.sync(folder.parent)
    except BaseException:
        shutil.rmtree(writing, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _check_room(writing: Path, data_set: DataSet) -> None:
    """Raises OSError if it cannot fit: HDF5 crashes the process, now or later, if the disk fills up during writing."""
    arrays = (data_set.obs, data_set.action, data_set.reward, data_set.terminal, data_set.truncated)
    needed = sum(array.nbytes for array in arrays) + EPISODE_BYTES * len(episode_bounds(data_set)[0])
    free = shutil.disk_usage(writing).free
    if free < needed:
        raise OSError(
            f"no room for the data set: it needs {needed / 1e6:.1f} MB, the disk has {free / 1e6:.1f} MB left"
        )
    if hasattr(os, "posix_fallocate"):  # quotas and limits that the free space does not show
        reserved = writing / "reserved"
        with reserved.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, needed)
        reserved.unlink()


def _write(writing: Path, own_id: str, data_set: DataSet, metadata: dict[str, Any]) -> None:
    from minari.dataset.minari_storage import MinariStorage

    low, high = data_set.action_low, data_set.action_high
    anything = np.full(data_set.obs.shape[1], np.inf, np.float32)
    storage = MinariStorage.new(
        writing / "data",
        observation_space=Box(-anything, anything),
        action_space=Box(low, high, dtype=low.dtype.type),
        env_spec=_env_spec(data_set),
    )
    storage.update_metadata({"dataset_id": own_id, "minari_version": importlib.metadata.version("minari")} | metadata)
    storage.update_episodes(_episodes(data_set))
    for path in sorted(writing.rglob("*")):
        files.sync(path)


def _episodes(data_set: DataSet) -> Iterator[Any]:
    """Yields the episodes in minari's form."""
    from minari.data_collector import EpisodeBuffer

    actions = checks.from_unit(data_set.action, data_set.action_low, data_set.action_high)
    actions = np.clip(actions.astype(data_set.action_low.dtype), data_set.action_low, data_set.action_high)
    for start, stop in zip(*episode_bounds(data_set)):
        rows = slice(int(start), int(stop))
        obs, next_obs = data_set.obs[rows], data_set.next_obs[rows]
        if not np.array_equal(obs[1:], next_obs[:-1]):
            raise ValueError(
                f"rows {start:,} to {stop - 1:,} of {data_set.name!r} must follow one another in an episode"
            )
        yield EpisodeBuffer(
            observations=np.concatenate([obs, next_obs[-1:]]),
            actions=actions[rows],
            rewards=data_set.reward[rows],
            terminations=data_set.terminal[rows] > 0,
            truncations=data_set.truncated[rows],
        )


def _env_spec(data_set: DataSet) -> Any:
    """Returns the environment's specification with its time limit; None if it is not registered or not serialisable.

    Only registered ids count: the module of module:Id may come from a stranger's data set.
    """
    known = gymnasium.registry.get((data_set.env_id or "").rpartition(":")[2])
    if known is None:
        return None
    try:
        spec = type(known).from_json(known.to_json())  # a copy, if it can be serialised
    except (TypeError, ValueError):
        return None
    spec.max_episode_steps = data_set.max_episode_steps
    return spec
