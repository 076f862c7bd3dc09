"""Data sets in one file of named arrays: HDF5 in D4RL's layout, and NumPy's .npz.

`observations` [N, O], `actions` [N, A], `rewards`, `terminals` and `timeouts` [N] or [N, 1], and `next_observations`
[N, O] if they were stored; `action_low` and `action_high` [A], the bounds of actions, if they are not -1 and 1.
Everything else in the file is ignored. Sizes are read from the headers first.
"""

import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mbpo_jax.data_sets import checks, digest
from mbpo_jax.data_sets.recorded import Recorded, Refused
from mbpo_jax.driver.storage import files

NEEDED = ("observations", "actions", "rewards", "terminals")
BOUNDS = ("action_low", "action_high")
KNOWN = (*NEEDED, "timeouts", "next_observations", *BOUNDS)
HDF5_SIGNATURE, ZIP_SIGNATURE = b"\x89HDF\r\n\x1a\n", b"PK\x03\x04"
INSTALL = "pip install -e '.[offline]'"


class Header(NamedTuple):
    """An array that has not been read yet."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[], np.ndarray]


def read(path: Path) -> Recorded:
    """Reads a file of either kind, recognised by its first bytes.

    Raises:
      Refused: it is neither, or not a data set.
    """
    with files.open_regular(path) as file:
        start = file.read(8)
    if start == HDF5_SIGNATURE:
        kind, opened = "D4RL HDF5", _hdf5(path)
    elif start[:4] == ZIP_SIGNATURE:
        kind, opened = "npz", _npz(path)
    else:
        raise Refused("a file must be HDF5 in D4RL's layout or .npz, got neither (pickled data are never loaded)")
    with opened as headers:
        _check(headers)
        return _recorded(kind, headers, digest.of_file(path))


def _check(headers: Mapping[str, Header]) -> None:
    """Refuses what the headers alone show to be wrong, before any array is read."""
    missing = [name for name in NEEDED if name not in headers]
    if missing:
        raise Refused(f"it must have the arrays {', '.join(NEEDED)}, got none named {', '.join(missing)}")
    if "timeouts" not in headers and "next_observations" not in headers:
        raise Refused(
            "it must have timeouts or next_observations, got neither: where a time limit ended an episode, the next "
            "row belongs to another; add timeouts, all 0 if no episode ended that way"
        )
    for name, header in headers.items():
        checks.numbers(name, header.dtype)
    for name in ("observations", "actions"):
        checks.matrix(name, headers[name].shape, headers[name].dtype)
    num_rows = headers["observations"].shape[0]
    if headers["actions"].shape[0] != num_rows:
        raise Refused(
            f"actions must be [{num_rows}, A], with a row for each observation, got {_shape(headers['actions'])}"
        )
    for name in ("rewards", "terminals", "timeouts"):
        if name in headers:
            checks.column(name, headers[name].shape, num_rows)
    successors = headers.get("next_observations", headers["observations"])
    if successors.shape != headers["observations"].shape:
        raise Refused(
            f"next_observations must be {_shape(headers['observations'])}, like observations, got {_shape(successors)}"
        )
    for name in BOUNDS:
        if name in headers and headers[name].shape != headers["actions"].shape[1:]:
            raise Refused(f"{name} must be {list(headers['actions'].shape[1:])}, got {_shape(headers[name])}")
    if len(headers.keys() & set(BOUNDS)) == 1:
        raise Refused("action_low and action_high must be given together, got one of them")
    stored = max(int(np.prod(header.shape)) * header.dtype.itemsize for header in headers.values())
    checks.check_room(num_rows, headers["observations"].shape[1], headers["actions"].shape[1], stored)


def _recorded(kind: str, headers: Mapping[str, Header], sha256: str) -> Recorded:
    """Reads the arrays, one after another."""

    def numbers(name: str) -> np.ndarray:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, which is refused
            return np.asarray(headers[name].read(), np.float32)

    def flags(name: str) -> np.ndarray:
        values = headers[name].read().reshape(-1)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise Refused(f"{name} must be finite, got nan or inf in row {np.flatnonzero(~np.isfinite(values))[0]:,}")
        return checks.flags(name, values)

    def bounds(name: str) -> np.ndarray | None:
        """Returns bounds [A]; integers are those of floats, too, unless the actions themselves are integers."""
        if name not in headers:
            return None
        values = headers[name].read()
        return values.astype(np.float32) if headers["actions"].dtype.kind == "f" else values

    return Recorded(
        kind=kind,
        obs=numbers("observations"),
        action=numbers("actions"),
        reward=numbers("rewards").reshape(-1),
        terminal=flags("terminals"),
        truncated=flags("timeouts") if "timeouts" in headers else None,
        next_obs=numbers("next_observations") if "next_observations" in headers else None,
        action_low=bounds("action_low"),
        action_high=bounds("action_high"),
        sha256=sha256,
    )


@contextmanager
def _hdf5(path: Path) -> Iterator[dict[str, Header]]:
    """Yields the arrays of an HDF5 file, by name."""
    try:
        import h5py
    except ImportError as error:
        raise Refused(f"HDF5 is read with h5py, which must be installed: {INSTALL}") from error
    with h5py.File(path, "r", locking="best-effort") as file:
        for name in KNOWN:
            if isinstance(file.get(name, getlink=True), h5py.ExternalLink):
                raise Refused(
                    f"{name} must be in the file itself, got a link to another file, which no sum would cover"
                )
        found = {name: file.get(name) for name in KNOWN}
        datasets = {name: item for name, item in found.items() if isinstance(item, h5py.Dataset)}
        for name, item in datasets.items():
            if item.external or item.is_virtual or item.file.filename != file.filename:  # the last: linked on the way
                raise Refused(f"{name} must be in the file itself, got one that is stored in other files")
        yield {
            name: Header(tuple(item.shape or ()), item.dtype, lambda item=item: item[()])  # type: ignore[misc]
            for name, item in datasets.items()
        }


@contextmanager
def _npz(path: Path) -> Iterator[dict[str, Header]]:
    """Yields the arrays of an .npz file, by name."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in KNOWN if f"{name}.npy" in archive.namelist()]
        yield {name: _npy(archive, f"{name}.npy") for name in names}


def _npy(archive: zipfile.ZipFile, member: str) -> Header:
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        reads_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if reads_header is None:
            raise Refused(f"{member} must be an array of numbers, got a header of version {version}")
        shape, _, dtype = reads_header(file)
    if dtype.hasobject:
        raise Refused(f"{member} must be numbers, got objects, which only unpickling could read")

    def read_array() -> np.ndarray:
        with archive.open(member) as file:
            array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
            return array

    return Header(shape, dtype, read_array)


def _shape(header: Header) -> list[int]:
    return list(header.shape)
