"""Reads a data set of any kind, checks it, and refuses it with the reason if it is wrong; never unpickles."""

import difflib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mbpo_jax.data_sets import array_file, checks, minari_folder, transitions
from mbpo_jax.data_sets.data_set import DataSet
from mbpo_jax.data_sets.recorded import Recorded, Refused
from mbpo_jax.driver.storage import files


def read(name: str, action_low: np.ndarray | None = None, action_high: np.ndarray | None = None) -> DataSet:
    """Reads a data set.

    Args:
      name: a Minari id on this machine, a Minari folder, an HDF5 file in D4RL's layout, an .npz file, or a run
        directory; an existing path takes precedence.
      action_low, action_high: [A], bounds of the environment's actions; None: those that the data set knows, else -1
        and 1.
    Raises:
      ValueError: it does not exist, or is wrong; begins with "dataset", names it, the reason, and what is allowed.
    """
    return assemble(name, lambda: _recorded(name), action_low, action_high)


def sha256(name: str) -> str | None:
    """Returns the sum of the contents of a data set, without checking them; None if there is none of this name here.

    Raises:
      ValueError: it cannot be read; begins with "dataset", names it and the reason.
    """
    try:
        _path(name)
    except Refused:
        return None
    try:
        return _recorded(name).sha256
    except Refused as refused:
        raise ValueError(f"dataset {name!r}: {refused}") from refused


def assemble(
    name: str,
    record: Callable[[], Recorded],
    action_low: np.ndarray | None = None,
    action_high: np.ndarray | None = None,
) -> DataSet:
    """Returns the data set made from what `record` reads; other arguments and errors are those of `read`."""
    try:
        recorded = record()
        checks.finite(recorded)
        rows = transitions.build(recorded)
        checks.enough(len(rows.reward), int(rows.first.sum()))
        action, low, high = _scaled(recorded, rows.action, action_low, action_high)
    except Refused as refused:
        raise ValueError(f"dataset {name!r}: {refused}") from refused
    return DataSet(
        name=name,
        kind=recorded.kind,
        obs=rows.obs,
        action=action,
        reward=rows.reward,
        next_obs=rows.next_obs,
        terminal=rows.terminal,
        truncated=rows.truncated,
        first=rows.first,
        has_successor=rows.has_successor,
        left_out_reward=rows.left_out_reward,
        action_low=low,
        action_high=high,
        max_episode_steps=recorded.max_episode_steps or rows.longest,
        env_id=recorded.env_id,
        sha256=recorded.sha256,
        notes=(*recorded.notes, *rows.notes),
    )


def _recorded(name: str) -> Recorded:
    """Reads the data set `name`, whatever its kind."""
    path = _path(name)
    try:
        if path.is_file():
            return array_file.read(path)
        if (path / files.CONFIG).is_file():
            from mbpo_jax.data_sets import run_rows  # imports jax

            return run_rows.read(path)
        folder = minari_folder.data_folder(path)
        if folder is None:
            raise Refused(
                f"a folder must be a Minari data set (data/{minari_folder.METADATA}) or a run directory "
                f"({files.CONFIG}), got neither in '{path}'"
            )
        return minari_folder.read(folder)
    except Refused:
        raise
    except Exception as error:  # a damaged file: h5py, zipfile, zlib, json and minari each raise their own
        first_line = (str(error).strip().splitlines() or [""])[0][:300]
        raise Refused(f"'{path}' cannot be read ({type(error).__name__}: {first_line})") from error


def _path(name: str) -> Path:
    """Returns where a data set lies."""
    try:
        path = files.local_path(name)
    except ValueError as error:
        raise Refused(str(error)) from error
    if name and path.exists():
        return path
    by_id = minari_folder.root() / name
    if name and by_id.is_dir():
        return by_id
    near = difflib.get_close_matches(name, minari_folder.known_ids(), n=3)
    close = f"; there are {', '.join(near)}" if near else ""
    raise Refused(
        "it must be a file, a folder, or the id of a Minari data set on this machine, got none at that path and none "
        f"in '{minari_folder.root()}' ({minari_folder.ROOT_VARIABLE}){close}"
    )


def _scaled(
    recorded: Recorded, action: np.ndarray, low: np.ndarray | None, high: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns actions in [-1, 1] and their bounds: those given, else those recorded, else -1 and 1."""
    if (low is None) != (high is None):
        raise Refused("action_low and action_high must be given together, got one of them")
    unit = np.ones(action.shape[1], np.float32)
    own_low, own_high = (recorded.action_low, recorded.action_high)
    if own_low is None or own_high is None:
        own_low, own_high = -unit, unit
    given = low is not None and high is not None
    low, high = (np.asarray(low).reshape(-1), np.asarray(high).reshape(-1)) if given else (own_low, own_high)
    checks.bounds(low, high, action.shape[1])
    if recorded.action_is_scaled:
        checks.to_unit(action, -unit, unit)
        if np.array_equal(low, own_low) and np.array_equal(high, own_high):
            return action, low, high
        if recorded.action_low is None:  # an older run, which did not keep its bounds
            return action, low, high
        action = checks.from_unit(action, own_low, own_high)
    try:
        return checks.to_unit(action, low, high), low, high
    except Refused as refused:
        if given or recorded.action_low is not None:
            raise
        raise Refused(
            f"{refused}; these bounds are assumed: give the environment, or action_low and action_high [A] in the file"
        ) from refused
