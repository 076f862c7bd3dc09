"""Reads files that may be anything, and writes files that are never left half written."""

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import IO

CONFIG, SUMMARY = "config.json", "summary.json"  # names in a run directory

SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|file:")


def local_path(text: str) -> Path:
    """Returns the path that a user gave, with `~` and `~user` as their home directories.

    Raises:
      ValueError: it is a URL, or its home directory is not known; the message begins with "must be".
    """
    if SCHEME.match(text) or "\0" in text:
        raise ValueError(f"must be a path on this machine, got {text!r}")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ValueError(f"must be a path on this machine, got {text!r}, whose home directory is not known") from error


def open_regular(path: str | os.PathLike[str]) -> IO[bytes]:
    """Opens a regular file for reading, and nothing else: a pipe would block, and a device has no end.

    Raises:
      ValueError: it is not a regular file.
      OSError: it cannot be opened.
    """
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise ValueError(f"{os.fspath(path)} is not a regular file")
    return file


def read_text(path: str | os.PathLike[str], most_bytes: int) -> str:
    """Reads the text of a file.

    Raises:
      ValueError: it has more bytes than any file of its kind, or is not text.
      OSError: it cannot be read.
    """
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > most_bytes:
            raise ValueError(f"it has more than {most_bytes} bytes")
        return file.read().decode()


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Writes a temporary file next to `path` with `write`, and renames it to `path` once it is on the disk.

    Raises:
      OSError: it could not be written; what was there before is unchanged.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # one per process, in case two write the same file
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Makes a file, or the names in a directory, survive a power cut."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
