"""Checkpoints: everything that the next step reads, as plain host arrays through orbax and JSON, verified twice.

A checkpoint is a folder `checkpoints/<step>`, or `<step>.<n>` where a step was saved again. It is written under another
name, read back, compared with memory and given a manifest of checksums, and only then renamed: whatever has its final
name was intact once. When restoring, whatever is no longer intact is passed over, with a warning.
"""

import functools
import logging
import os
import re
import shutil
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orbax.checkpoint as ocp

from mbpo_jax import options
from mbpo_jax.driver.config import StorageFailure
from mbpo_jax.driver.storage import bundle, files, format_1, manifest

FOLDER, ARRAYS, ARRAY = "checkpoints", "arrays", "array"
WRITING, DELETING = ".writing", ".deleting"
NAME = re.compile(r"(0|[1-9]\d*)(?:\.([1-9]\d*))?")  # step, and number of the save at this step


class Saved(NamedTuple):
    """What a checkpoint holds."""

    arrays: dict[str, Any]  # nested dicts of NumPy arrays, as `packing.pack` made them
    record: dict[str, Any]  # JSON: counters, positions, evaluations so far


def accept(record: dict[str, Any]) -> None:
    """Accepts any record: the default `fits` of `restore_latest`."""


class Checkpoints:
    """The checkpoints of a run directory, which no other process writes meanwhile (`lock.locked`)."""

    def __init__(
        self,
        run_dir: Path,
        keep: int,
        identity: dict[str, Any] | None = None,
        defaults: Mapping[str, Any] = types.MappingProxyType({}),
    ) -> None:
        """Opens the folder, and removes what a killed process left half written or half deleted.

        Args:
          keep: number of newest checkpoints to keep; the one with the best score is kept as well.
          identity: JSON that says which run this is; checkpoints of another are passed over. None: any will do.
          defaults: values for parts of the identity that older checkpoints may lack.
        Raises:
          StorageFailure: the folder cannot be used.
        """
        self._keep, self._identity, self._defaults = keep, identity, defaults
        self._directory = (run_dir / FOLDER).resolve()  # orbax wants absolute paths
        # By name, for the checkpoints of this run that are not known to be damaged.
        self._scores: dict[str, float | None] = {}
        self.passed_over: list[str] = []  # why newer checkpoints were not restored, one line each
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            for path in self._directory.iterdir():
                if path.suffix in (WRITING, DELETING) and NAME.fullmatch(path.stem):
                    shutil.rmtree(path)
        except OSError as error:
            raise StorageFailure(f"cannot use {self._directory}: {error}") from error

    def save(self, step: int, arrays: dict[str, Any], record: dict[str, Any], score: float | None = None) -> None:
        """Writes a checkpoint, whole or not at all; returns once it is on disk and has been read back.

        Args:
          score: highest for the best checkpoint; None: this one is not a candidate.
        Raises:
          StorageFailure: names the directory; older checkpoints are intact.
        """
        name = self._unused_name(step)
        writing = self._directory / (name + WRITING)
        bundled, layout = bundle.bundle(arrays)
        content = {"name": name, "score": score, "identity": self._identity, "layout": layout, "record": record}
        try:
            _check_room(self._directory, bundled)
            writing.mkdir()
            _write_arrays(writing / ARRAYS, bundled)
            _compare(_read_arrays(writing / ARRAYS), bundled)
            manifest.write(writing, content)
            os.rename(writing, self._directory / name)
            files.sync(self._directory)
        except Exception as error:  # orbax lets through whatever its storage raised
            shutil.rmtree(writing, ignore_errors=True)  # room for the next attempt
            raise StorageFailure(
                f"cannot save the checkpoint of step {step} in {self._directory} ({first_line(error)}); "
                "older checkpoints are intact, and the same command continues from the newest of them"
            ) from error
        self._scores[name] = score
        self._delete_old()

    def restore_latest(self, fits: Callable[[dict[str, Any]], None] = accept) -> Saved | None:
        """Returns the newest sound checkpoint; None if there are none at all. `passed_over` says why not a newer one.

        Args:
          fits: raises ValueError or OSError if the rest of the run directory does not fit a record.
        Raises:
          StorageFailure: there are checkpoints, but none is sound.
        """
        self.passed_over, found = [], None
        for name in _names(self._directory):
            try:
                # For those that are not restored, only the manifest is read: thousands of files may have been kept.
                content = _checked(self._directory, name, with_files=found is None)
                self._check_identity(content["identity"])
                if found is None:
                    fits(content["record"])
                    found = _read(self._directory / name, content)
                self._scores[name] = content["score"]
            except Exception as error:  # whatever the storage raises for damaged files
                if found is None:
                    self.passed_over.append(f"checkpoint {self._directory / name} is passed over: {first_line(error)}")
        if found is None and self.passed_over:
            raise StorageFailure(f"no checkpoint can be used. {'; '.join(self.passed_over[:5])}")
        return found

    def _check_identity(self, saved: dict[str, Any] | None) -> None:
        if self._identity is None:
            return
        known = options.with_paths(saved or {}, self._identity)
        differ = options.differences({**self._defaults, **known}, self._identity)
        if saved is None or differ:
            raise ValueError(f"it belongs to another run: {'; '.join(differ.values())}")

    def _unused_name(self, step: int) -> str:
        used = {_place(name)[1] for name in _names(self._directory) if _place(name)[0] == step}
        return f"{step}.{max(used) + 1}" if used else str(step)

    def _delete_old(self) -> None:
        """Deletes sound checkpoints that are neither new nor best; renames each first, so that none is half deleted."""
        newest_first = sorted(self._scores, key=_place, reverse=True)
        scored = [name for name in reversed(newest_first) if self._scores[name] is not None]
        best = max(scored, key=lambda name: self._scores[name] or 0.0, default=None)
        for name in newest_first[self._keep :]:
            if name == best:
                continue
            del self._scores[name]
            deleting = self._directory / (name + DELETING)
            try:
                os.rename(self._directory / name, deleting)
                shutil.rmtree(deleting)
            except OSError as error:
                raise StorageFailure(f"cannot delete the old checkpoint {self._directory / name}: {error}") from error


def steps(run_dir: Path) -> list[int]:
    """Returns the environment steps of all checkpoints in a run directory, oldest first; changes nothing there."""
    directory = run_dir / FOLDER
    return sorted({_place(name)[0] for name in _names(directory)}) if directory.is_dir() else []


def load(run_dir: Path, step: int | None = None) -> Saved:
    """Reads one checkpoint of a run, which may be training meanwhile; changes nothing there.

    Args:
      step: environment step of the checkpoint; the newest by default.
    Raises:
      StorageFailure: there is none of that step, or it is damaged; names the directory and the steps that are there.
    """
    directory, found = (run_dir / FOLDER).resolve(), steps(run_dir)  # orbax wants absolute paths
    if not found or (step is not None and step not in found):
        wanted = "no checkpoint" if step is None else f"no checkpoint of step {step}"
        raise StorageFailure(f"{wanted} in {directory}; steps there: {', '.join(map(str, found)) or 'none'}")
    name = next(name for name in _names(directory) if step is None or _place(name)[0] == step)
    try:
        content = _checked(directory, name)
        return _read(directory / name, content)
    except Exception as error:  # whatever the storage raises for damaged files
        raise StorageFailure(f"cannot read the checkpoint {directory / name}: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, cut to 300 characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _names(directory: Path) -> list[str]:
    """Returns the names of all checkpoints, newest first; other files are ignored."""
    return sorted(filter(NAME.fullmatch, os.listdir(directory)), key=_place, reverse=True)


def _checked(directory: Path, name: str, with_files: bool = True) -> dict[str, Any]:
    content = manifest.read(directory / name, with_files)
    if content["name"] != name:
        raise ValueError(f"it was checkpoint {content['name']} when it was written")
    return content


def _read(path: Path, content: dict[str, Any]) -> Saved:
    """Reads the arrays of a checkpoint whose manifest was found sound."""
    arrays = bundle.unbundle(_read_arrays(path / ARRAYS), content["layout"])
    if content["format"] == 1:
        arrays = {seed: format_1.upgrade(mine) for seed, mine in arrays.items()}
    return Saved(arrays, content["record"])


def _place(name: str) -> tuple[int, int]:
    match = NAME.fullmatch(name)
    assert match is not None
    return int(match[1]), int(match[2] or 0)


@functools.cache
def _checkpointer() -> ocp.Checkpointer:
    # Parameters and rows are noise: compressed, they take twice as long and are hardly smaller.
    return ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_compression=False))


@contextmanager
def _silence() -> Iterator[None]:
    """Silences orbax, which reports every file, and prints the traceback of every error besides raising it."""
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        yield
    finally:
        for logger, level in zip(loggers, before):
            logger.setLevel(level)


def _write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes arrays one by one: if several are written at once, one that fails leaves the others hanging."""
    path.mkdir()
    with _silence():
        for name, array in arrays.items():
            _checkpointer().save(path / name, args=ocp.args.PyTreeSave({ARRAY: array}))


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    with _silence():
        names = sorted(folder.name for folder in path.iterdir())
        return {name: _checkpointer().restore(path / name, args=ocp.args.PyTreeRestore())[ARRAY] for name in names}


def _check_room(directory: Path, arrays: dict[str, np.ndarray]) -> None:
    """Raises OSError if the arrays cannot fit: a full disk is easier to explain before writing than during it."""
    needed = sum(array.nbytes for array in arrays.values())
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise OSError(f"no room: it needs {needed / 1e6:.1f} MB, the disk has {free / 1e6:.1f} MB left")


def _compare(read: dict[str, np.ndarray], written: dict[str, np.ndarray]) -> None:
    """Raises ValueError if arrays are not equal bit for bit."""
    for name, array in written.items():
        back = read.get(name, np.zeros(0))
        if (back.dtype, back.shape) != (array.dtype, array.shape) or not np.array_equal(_bytes(back), _bytes(array)):
            raise ValueError(f"{name} was not what had been written when it was read back")


def _bytes(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
