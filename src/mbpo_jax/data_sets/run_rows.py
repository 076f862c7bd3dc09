"""The real rows of a run directory, as a data set: what its agents had seen by a checkpoint."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from mbpo_jax.data_sets import digest
from mbpo_jax.data_sets.recorded import Recorded, Refused
from mbpo_jax.driver.config import StorageFailure
from mbpo_jax.driver.interaction.spaces import Spaces, spaces_from_json
from mbpo_jax.driver.storage import checkpoint, files

MOST_CONFIG_BYTES = 2**20
COLUMNS = ("obs", "action", "reward", "next_obs", "terminal")


def read(run_dir: Path, step: int | None = None, seed: int | None = None) -> Recorded:
    """Reads the rows of a run, which may be training meanwhile; changes nothing there.

    Args:
      step: environment step of the checkpoint; the newest sound one by default.
      seed: seed of the agent; all of them, one after another, by default.
    Raises:
      Refused: it has no such agent, no sound checkpoint, no rows, or learnt from a data set itself.
    """
    config = json.loads(files.read_text(run_dir / files.CONFIG, MOST_CONFIG_BYTES))
    spaces = None if config.get("task") is None else spaces_from_json(config["task"])
    if spaces is not None and (spaces.obs_start, spaces.action_start) != (None, None):
        raise Refused(f"its observations and actions must be Boxes, got {' and '.join(spaces.in_words())}")
    saved, notes = _newest(run_dir) if step is None else (_of_step(run_dir, step), [])
    seeds = sorted(saved.arrays, key=int) if seed is None else [str(seed)]
    if seed is not None and str(seed) not in saved.arrays:
        raise Refused(f"seed must be one of the run's, {', '.join(sorted(saved.arrays, key=int))}, got {seed}")
    if config["run"].get("dataset"):
        raise Refused(
            f"it learnt from a data set and holds no rows of its own: give that data set, {config['run']['dataset']!r}"
        )
    buffers = [saved.arrays[seed]["replay"] for seed in seeds]
    if not any(int(buffer["size"]) for buffer in buffers):
        raise Refused(f"its checkpoint of step {saved.record['step']} must have rows, got none")
    columns, begins, ends = _joined(buffers)
    limit = None if spaces is None else spaces.max_episode_steps
    for name, buffer in zip(seeds, buffers):
        gone = int(buffer["num_added"]) - int(buffer["size"])
        notes += [f"the oldest {gone:,} rows of seed {name} had been replaced"] if gone else []
    if len(seeds) > 1:
        notes.append(f"seeds {', '.join(seeds)}, one after another")
    return Recorded(
        kind="run directory",
        obs=columns["obs"],
        action=columns["action"],
        reward=columns["reward"],
        terminal=columns["terminal"] > 0,
        truncated=ends & (columns["terminal"] == 0),
        sha256=digest.of_arrays([*columns.values(), ends]),
        next_obs=columns["next_obs"],
        exact_ends=True,
        begins=begins,
        incomplete=_incomplete(buffers, ends | (columns["terminal"] > 0), limit),
        action_is_scaled=True,
        env_id=config["run"]["env"],
        notes=tuple(notes),
        **_task(spaces),
    )


def _newest(run_dir: Path) -> tuple[checkpoint.Saved, list[str]]:
    """Returns the newest checkpoint that can be read, and notes on newer ones that cannot."""
    notes: list[str] = []
    for step in reversed(checkpoint.steps(run_dir)):
        try:
            return checkpoint.load(run_dir, step), notes
        except StorageFailure:
            notes.append(f"the checkpoint of step {step:,} is damaged and was passed over")
    raise Refused(f"a run must have a sound checkpoint, got {len(notes) or 'none'}{' damaged ones' * bool(notes)}")


def _of_step(run_dir: Path, step: int) -> checkpoint.Saved:
    try:
        return checkpoint.load(run_dir, step)
    except StorageFailure as error:
        raise Refused(f"step must be that of a sound checkpoint, got {step} ({error})") from error


def _joined(buffers: list[dict[str, Any]]) -> tuple[dict[str, np.ndarray], bool, np.ndarray]:
    """Returns the rows of all seeds, whether the first began an episode, and whether the next row began another."""
    buffers = [buffer for buffer in buffers if int(buffer["size"])]
    sizes = [int(buffer["size"]) for buffer in buffers]
    columns = {
        name: np.concatenate([buffer["rows"][name][:size] for buffer, size in zip(buffers, sizes)]) for name in COLUMNS
    }
    first = np.concatenate([np.asarray(buffer["first"])[:size] for buffer, size in zip(buffers, sizes)])
    ends = np.append(first[1:], True)
    ends[np.cumsum(sizes) - 1] = True
    return columns, bool(first[0]), ends


def _incomplete(buffers: list[dict[str, Any]], ends: np.ndarray, limit: int | None) -> np.ndarray:
    """Returns the first rows [N] of episodes whose beginning is gone, or which a seed was still playing.

    Args:
      ends: [N], last rows of episodes.
      limit: steps of a whole episode that no terminal ends; None: not known.
    """
    incomplete, start = np.zeros(len(ends), bool), 0
    for buffer in buffers:
        size = int(buffer["size"])
        if not size:
            continue
        stop = start + size
        incomplete[start] |= not buffer["first"][0]
        last = max([start, *(start + 1 + np.flatnonzero(ends[start : stop - 1]))])  # first row of the last episode
        running = buffer["rows"]["terminal"][size - 1] == 0 and (limit is None or stop - last < limit)
        incomplete[last] |= running
        start = stop
    return incomplete


def _task(spaces: Spaces | None) -> dict[str, Any]:
    if spaces is None:
        return {}
    return {
        "action_low": spaces.action_low,
        "action_high": spaces.action_high,
        "max_episode_steps": spaces.max_episode_steps,
    }
