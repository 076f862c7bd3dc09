"""The manifest of a checkpoint: its counters, and size and SHA-256 of every file in it.

Storage libraries silently restore a flipped bit, so no file is read as data before its checksum has been compared.
"""

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

from mbpo_jax.driver.storage import files

FILE_NAME = "manifest.json"
FORMAT = 2  # of checkpoints
READABLE = (1, 2)  # see `format_1`
MOST_BYTES = 100 * 2**20  # a larger file is not a manifest


def write(directory: Path, content: dict[str, Any]) -> None:
    """Writes the manifest of all files that are there now, and syncs everything so that it survives a power cut."""
    whole = content | {"format": FORMAT, "files": _checksums(directory)}
    text = json.dumps({"sha256": _digest(whole), "content": whole}, indent=1)
    (directory / FILE_NAME).write_text(text)
    for path in [directory, *directory.rglob("*")]:
        files.sync(path)


def read(directory: Path, with_files: bool = True) -> dict[str, Any]:
    """Reads the content of a manifest, after checking its own checksum and those of the files.

    Args:
      with_files: whether the files are read and checked, every byte of them.
    Raises:
      ValueError, OSError: says which file is damaged, missing or not part of it.
    """
    content = _read_unchecked(directory / FILE_NAME)
    if not with_files:
        return content
    expected, actual = content["files"], _checksums(directory)
    for name in sorted(expected.keys() | actual.keys()):
        if name not in actual:
            raise ValueError(f"{name} is missing")
        if name not in expected:
            raise ValueError(f"{name} is not part of it")
        if expected[name] != actual[name]:
            raise ValueError(f"{name} is damaged")
    return content


def _read_unchecked(path: Path) -> dict[str, Any]:
    """Reads the content of a manifest and checks it against its own checksum only."""
    if path.is_symlink() or not path.is_file():
        raise ValueError(f"{FILE_NAME} is missing")
    try:
        value = json.loads(files.read_text(path, MOST_BYTES))
        content: dict[str, Any] = value["content"]
        sound = value["sha256"] == _digest(content) and isinstance(content["files"], dict)
        version = content["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{FILE_NAME} is damaged") from error
    if not sound:
        raise ValueError(f"{FILE_NAME} is damaged")
    if version not in READABLE:
        raise ValueError(f"it has format {version}, this version reads formats {' and '.join(map(str, READABLE))}")
    return content


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _checksums(directory: Path) -> dict[str, list[Any]]:
    """Returns [bytes, SHA-256] of every file below, except the manifest.

    Raises:
      ValueError: something is neither a plain file nor a folder, so it could lead elsewhere.
    """
    sums: dict[str, list[Any]] = {}
    for folder, folders, names in os.walk(directory, onerror=_raise):
        for name in (*folders, *names):
            path = Path(folder, name)
            mode = path.lstat().st_mode
            relative = path.relative_to(directory).as_posix()
            if stat.S_ISDIR(mode) or relative == FILE_NAME:
                continue
            if not stat.S_ISREG(mode):
                raise ValueError(f"{relative} is not a regular file")
            with path.open("rb") as file:
                sums[relative] = [path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()]
    return sums


def _raise(error: OSError) -> None:
    raise error
