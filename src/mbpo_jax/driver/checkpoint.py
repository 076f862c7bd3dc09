"""Checkpoints: everything that the next step reads, through orbax, as plain host arrays and JSON.

Buffers are written by age, oldest first, and only the rows in force; so files stay small, load on any device,
and fit a buffer of another capacity.
"""

import logging
from pathlib import Path
from typing import Any, NamedTuple

import flax.serialization
import jax
import numpy as np
import orbax.checkpoint as ocp

from mbpo_jax import replay as replay_lib
from mbpo_jax.driver.config import StorageFailure
from mbpo_jax.replay import Replay
from mbpo_jax.types import PyTree, Transition

ARRAYS, RECORD = "arrays", "record"


class Saved(NamedTuple):
    """What a checkpoint holds."""

    arrays: dict[str, Any]  # nested dicts of NumPy arrays, as `pack` made them
    record: dict[str, Any]  # JSON: counters, positions, evaluations so far


class Checkpoints:
    """The checkpoints of a run directory."""

    def __init__(self, run_dir: Path, keep: int) -> None:
        logging.getLogger("absl").setLevel(logging.WARNING)  # orbax reports every file at INFO
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=False)
        self._directory = (run_dir / "checkpoints").resolve()
        try:
            self._directory.mkdir(parents=True, exist_ok=True)  # orbax would find out at the first save
            self._manager = ocp.CheckpointManager(self._directory, options=options)
        except OSError as error:
            raise StorageFailure(f"cannot use {self._directory}: {error}") from error

    def save(self, step: int, arrays: dict[str, Any], record: dict[str, Any]) -> None:
        """Writes a checkpoint, whole or not at all; returns once it is on disk. A step is saved once.

        Raises:
          StorageFailure: names the directory; older checkpoints are intact.
        """
        if step in self._manager.all_steps():
            return
        args = ocp.args.Composite(**{ARRAYS: ocp.args.StandardSave(arrays), RECORD: ocp.args.JsonSave(record)})
        try:
            self._manager.save(step, args=args)
        except Exception as error:  # orbax lets through whatever its storage raised
            raise StorageFailure(
                f"cannot save the checkpoint of step {step} in {self._directory} ({_first_line(error)}); "
                "older checkpoints are intact, and the same command continues from the newest"
            ) from error

    def restore_latest(self) -> Saved | None:
        """The newest checkpoint; None if there is none.

        Raises:
          StorageFailure: names the checkpoint that cannot be read.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        args = ocp.args.Composite(**{ARRAYS: ocp.args.StandardRestore(), RECORD: ocp.args.JsonRestore()})
        try:
            restored = self._manager.restore(step, args=args)
        except Exception as error:
            raise StorageFailure(
                f"cannot read checkpoint {self._directory / str(step)} ({_first_line(error)}); remove it to "
                "continue from the one before"
            ) from error
        return Saved(restored[ARRAYS], restored[RECORD])

    def close(self) -> None:
        """Waits for orbax to let go of the directory."""
        self._manager.close()


def pack(tree: PyTree) -> dict[str, Any]:
    """The arrays of one seed as nested dicts on the host, buffers cut to the rows in force."""
    tree = jax.tree.map(lambda leaf: _contents(leaf) if isinstance(leaf, Replay) else leaf, tree, is_leaf=_is_replay)
    return jax.tree.map(np.asarray, flax.serialization.to_state_dict(tree))


def unpack(template: PyTree, packed: dict[str, Any]) -> PyTree:
    """The inverse of `pack`, into freshly initialised arrays of the same structure.

    Raises:
      ValueError: an array is missing or has another shape or type, or a buffer has more rows than fit.
    """
    contents = jax.tree.map(
        lambda leaf: _contents(leaf) if isinstance(leaf, Replay) else leaf, template, is_leaf=_is_replay
    )
    restored = flax.serialization.from_state_dict(contents, packed)

    def place(fresh: Any, saved: Any) -> Any:
        if isinstance(fresh, Replay):
            return _rebuild(fresh, saved)
        if fresh.shape != saved.shape or fresh.dtype != saved.dtype:
            raise ValueError(f"an array is {saved.dtype}{saved.shape} where {fresh.dtype}{fresh.shape} is expected")
        return _put(saved, fresh)

    return jax.tree.map(place, template, restored, is_leaf=_is_replay)


def _put(value: np.ndarray, like: Any) -> Any:
    """On the device of `like`, and bound to it only if `like` is: else every program would be compiled once more."""
    return jax.device_put(value, like.sharding if like.committed else None)


def _is_replay(leaf: Any) -> bool:
    return isinstance(leaf, Replay)


def _contents(buffer: Replay) -> dict[str, Any]:
    """Rows in force, oldest first; one row stands for none, as storage refuses empty arrays."""
    size, head, num_slots = int(buffer.size), int(buffer.head), replay_lib.capacity(buffer)
    slots = np.arange(head - max(size, 1), head) % num_slots
    rows = jax.tree.map(lambda leaf: np.asarray(leaf)[slots], buffer.rows)
    return {"rows": rows, "size": np.asarray(size), "num_added": np.asarray(buffer.num_added)}


def _rebuild(fresh: Replay, saved: dict[str, Any]) -> Replay:
    size, num_slots = int(saved["size"]), replay_lib.capacity(fresh)
    if size > num_slots:
        raise ValueError(f"a buffer of {size} rows does not fit a capacity of {num_slots}")

    def fill(leaf: Any, rows: Any) -> Any:
        expected = (max(size, 1), *leaf.shape[1:])
        if rows.shape != expected or rows.dtype != leaf.dtype:
            raise ValueError(
                f"the rows of a buffer are {rows.dtype}{rows.shape} where {leaf.dtype}{expected} is expected"
            )
        slots = np.zeros(leaf.shape, leaf.dtype)
        slots[:size] = rows[:size]
        return _put(slots, leaf)

    def scalar(value: int, like: Any) -> Any:
        return _put(np.asarray(value, like.dtype), like)

    return Replay(
        rows=Transition(
            **{name: fill(getattr(fresh.rows, name), rows) for name, rows in _fields(saved["rows"]).items()}
        ),
        head=scalar(size % num_slots, fresh.head),
        size=scalar(size, fresh.size),
        num_added=scalar(int(saved["num_added"]), fresh.num_added),
    )


def _fields(rows: Any) -> dict[str, Any]:
    return dict(flax.serialization.to_state_dict(rows))


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
