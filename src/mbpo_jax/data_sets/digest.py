"""SHA-256 sums of data sets, in one pass over their bytes."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from mbpo_jax.driver.storage import files

BLOCK_BYTES = 2**22


def of_file(path: Path) -> str:
    """Returns the sum of a file's bytes, as `sha256sum` prints it."""
    total = hashlib.sha256()
    with files.open_regular(path) as file:
        while block := file.read(BLOCK_BYTES):
            total.update(block)
    return total.hexdigest()


def of_arrays(arrays: Iterable[np.ndarray]) -> str:
    """Returns the sum of the types, shapes and contents of arrays."""
    total = hashlib.sha256()
    for array in arrays:
        total.update(f"{array.dtype.str} {array.shape}\n".encode())
        total.update(np.ascontiguousarray(array).data.cast("B"))
    return total.hexdigest()
