"""Converts values to strict JSON, and reads JSON files with errors that name the file."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mbpo_jax.driver.storage import files

MOST_BYTES = 2**24  # a hundred times the size of a curve of a million steps, evaluated every 1,000


def plain(value: Any) -> Any:
    """Returns a value that strict JSON can hold.

    Keys become strings, tuples and arrays become lists, numpy numbers become Python numbers, and nan and the infinities
    become strings, as in metrics; everything else stays as it is.
    """
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def read(path: Path) -> dict[str, Any]:
    """Reads the JSON object in a file.

    Raises:
      ValueError: the file is missing or damaged; names it.
    """
    try:
        value = json.loads(files.read_text(path, MOST_BYTES))
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} is damaged: not an object")
    return value


def within(value: Any, *names: str) -> Any:
    """Returns the entry at a path of names in nested mappings; None where there is none."""
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
