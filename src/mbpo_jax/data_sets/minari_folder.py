"""Data sets in Minari's format, read with the minari package: a folder with `data/metadata.json` and the episodes.

Nothing is downloaded. A data set whose metadata lack its spaces is refused, because minari would make the environment
that the file names, and so import whatever a stranger wrote there.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.spaces import Box

from mbpo_jax.data_sets import checks, digest
from mbpo_jax.data_sets.array_file import INSTALL
from mbpo_jax.data_sets.recorded import Recorded, Refused
from mbpo_jax.driver.storage import files

METADATA = "metadata.json"
OWN = "mbpo_jax"  # the key of what `collect` adds to the metadata
INCOMPLETE = "incomplete_episodes"  # there: the numbers of episodes that were recorded only in part
STILL_ENDS = "terminals_without_successor"  # there: how many terminal rows repeat their `obs` for want of a `next_obs`
MOST_METADATA_BYTES = 2**24
ROOT_VARIABLE = "MINARI_DATASETS_PATH"


def root() -> Path:
    """Returns the folder in which minari looks for an id; minari's own function would create it."""
    given = os.environ.get(ROOT_VARIABLE)
    return Path(given) if given is not None else Path.home() / ".minari" / "datasets"


def data_folder(path: Path) -> Path | None:
    """Returns the folder with the metadata of a data set, which is `path` or lies in it; None: it is not a data set."""
    return next((folder for folder in (path / "data", path) if (folder / METADATA).is_file()), None)


def known_ids() -> list[str]:
    """Returns the ids of the data sets on this machine, as minari lists them: without hidden folders."""
    folder = root()
    found = [path.parent.parent for path in folder.glob(f"**/data/{METADATA}")] if folder.is_dir() else []
    relative = [path.relative_to(folder) for path in found]
    return sorted(path.as_posix() for path in relative if not any(part.startswith(".") for part in path.parts))


def read(folder: Path) -> Recorded:
    """Reads a data set.

    Args:
      folder: the folder with the metadata.
    Raises:
      Refused: its observations or actions are not vectors (Box), or it is damaged or incomplete.
    """
    metadata = json.loads(files.read_text(folder / METADATA, MOST_METADATA_BYTES))
    num_rows, num_episodes = _sizes(metadata)
    try:
        import minari
    except ImportError as error:
        raise Refused(f"a Minari data set is read with minari, which must be installed: {INSTALL}") from error
    data_set = minari.MinariDataset(folder)
    low, high, obs_dim = _spaces(data_set.observation_space, data_set.action_space)
    checks.check_room(num_rows, obs_dim, low.size)
    columns = _Columns(num_rows, obs_dim, low.size)
    for episode in data_set.iterate_episodes():
        columns.add(episode)
    if (columns.rows, columns.episodes) != (num_rows, num_episodes):
        raise Refused(
            f"it must have the {num_rows:,} steps of {num_episodes:,} episodes that its metadata say, got "
            f"{columns.rows:,} of {columns.episodes:,}"
        )
    known = _environment(metadata)
    arrays = (columns.obs, columns.action, columns.reward, columns.next_obs, columns.terminal, columns.truncated)
    return Recorded(
        kind="Minari",
        obs=columns.obs,
        action=columns.action,
        reward=columns.reward,
        terminal=columns.terminal,
        truncated=columns.truncated,
        sha256=digest.of_arrays([*arrays, low, high, np.asarray(known["still_ends"])]),
        next_obs=columns.next_obs,
        exact_ends=True,
        incomplete=_incomplete(metadata, columns.terminal | columns.truncated),
        action_low=low,
        action_high=high,
        **known,
    )


class _Columns:
    """The rows of all episodes, filled from the first one on."""

    def __init__(self, num_rows: int, obs_dim: int, action_dim: int) -> None:
        self.obs, self.next_obs = (np.zeros((num_rows, obs_dim), np.float32) for _ in range(2))
        self.action, self.reward = np.zeros((num_rows, action_dim), np.float32), np.zeros(num_rows, np.float32)
        self.terminal, self.truncated = (np.zeros(num_rows, bool) for _ in range(2))
        self.rows = self.episodes = 0

    def add(self, episode: Any) -> None:
        """Adds one of minari's episodes."""
        where, length = f"episode {episode.id}", len(episode.rewards)
        if length == 0:
            raise Refused(f"{where} must have a step at least, got none")
        given = {"observations": episode.observations, "actions": episode.actions, "rewards": episode.rewards}
        flags = {"terminations": episode.terminations, "truncations": episode.truncations}
        for name, values in (given | flags).items():
            checks.numbers(f"{name} of {where}", np.asarray(values).dtype)
            wanted = length + (name == "observations")
            if len(values) != wanted:
                raise Refused(f"{name} of {where} must be {wanted} for its {length} rewards, got {len(values)}")
        if self.rows + length > len(self.reward):
            raise Refused(f"it must have the {len(self.reward):,} steps that its metadata say, got more in {where}")
        new = slice(self.rows, self.rows + length)
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, which is refused
            obs = np.asarray(episode.observations, np.float32).reshape(length + 1, -1)
            self.obs[new], self.next_obs[new] = obs[:-1], obs[1:]
            self.action[new] = np.asarray(episode.actions, np.float32).reshape(length, -1)
            checks.column(f"rewards of {where}", np.shape(episode.rewards), length)
            self.reward[new] = np.asarray(episode.rewards, np.float32).reshape(-1)
        self.terminal[new], self.truncated[new] = (
            checks.flags(f"{name} of {where}", np.asarray(values)).reshape(-1) for name, values in flags.items()
        )
        early = np.flatnonzero((self.terminal[new] | self.truncated[new])[:-1])
        if early.size:
            raise Refused(f"{where} must end with its first termination or truncation, got one at step {early[0] + 1}")
        self.truncated[new.stop - 1] |= not self.terminal[new.stop - 1]  # the recording ended
        self.rows, self.episodes = new.stop, self.episodes + 1


def _sizes(metadata: dict[str, Any]) -> tuple[int, int]:
    """Returns the numbers of steps and episodes, after checking that minari can read it without an environment."""
    for name in ("observation_space", "action_space", "dataset_id", "minari_version", "data_format"):
        if not isinstance(metadata.get(name), str):
            raise Refused(f"its {METADATA} must say {name!r}, got {metadata.get(name)!r}")
    sizes = [metadata.get(name) for name in ("total_steps", "total_episodes")]
    if not all(type(size) is int and size > 0 for size in sizes):
        raise Refused(f"it must have steps and episodes, got {sizes[0]!r} steps and {sizes[1]!r} episodes")
    return sizes[0], sizes[1]  # type: ignore[return-value]


def _spaces(observations: Any, actions: Any) -> tuple[np.ndarray, np.ndarray, int]:
    """Returns the bounds of actions [A] and the size of observations."""
    if not isinstance(observations, Box) or (observations.dtype == np.uint8 and len(observations.shape) > 1):
        raise Refused(f"it must have vectors (Box) as observations, got {_shown(observations)}")
    if not isinstance(actions, Box):
        raise Refused(f"it must have continuous (Box) actions, got {_shown(actions)}")
    return actions.low.reshape(-1), actions.high.reshape(-1), int(np.prod(observations.shape))


def _shown(space: Any) -> str:
    text = str(space)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _incomplete(metadata: dict[str, Any], ends: np.ndarray) -> np.ndarray:
    """Returns the last rows [N] of the episodes that `collect` knew not to be whole."""
    rows, numbers = np.zeros(len(ends), bool), (metadata.get(OWN) or {}).get(INCOMPLETE) or []
    lasts = np.flatnonzero(ends)
    if not all(type(number) is int and 0 <= number < len(lasts) for number in numbers):
        raise Refused(f"{INCOMPLETE} in its {METADATA} must be numbers of its episodes, got {str(numbers)[:200]}")
    rows[lasts[numbers]] = True
    return rows


def _environment(metadata: dict[str, Any]) -> dict[str, Any]:
    """Returns the id and the time limit of the environment, as far as the metadata say."""
    own = metadata.get(OWN) or {}
    spec = json.loads(metadata["env_spec"]) if metadata.get("env_spec") else {}
    env_id, limit = own.get("env") or spec.get("id"), spec.get("max_episode_steps")
    return {
        "env_id": env_id if isinstance(env_id, str) else None,
        "still_ends": bool(own.get(STILL_ENDS)),
        "notes": (f"rewards of {own['reward_fn']}",) if own.get("reward_fn") else (),
        "max_episode_steps": limit if type(limit) is int and limit > 0 else None,
    }
