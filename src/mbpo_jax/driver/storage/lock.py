"""One process at a time in a run directory."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mbpo_jax.driver.config import StorageFailure

FILE_NAME = ".lock"

_HELD: set[int] = set()  # descriptors


@contextmanager
def locked(run_dir: Path) -> Iterator[str | None]:
    """Locks the directory; the system releases the lock when the process ends, however it ends.

    Yields:
      Why there is no lock, where the file system has none; None if all is well.
    Raises:
      StorageFailure: another process holds it; says which.
    """
    path = run_dir / FILE_NAME
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StorageFailure(f"cannot use run_dir {run_dir}: {error}") from error
    _HELD.add(fd)
    try:
        problem = _take(fd, run_dir)
        yield problem
    finally:
        _HELD.discard(fd)
        os.close(fd)


def _take(fd: int, run_dir: Path) -> str | None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(fd, 200, 0).decode(errors="replace").strip() or "another process"
        raise StorageFailure(
            f"run_dir {run_dir} is in use by {holder}; wait until it ends, stop it, or give another --run_dir"
        ) from None
    except OSError as error:  # some network file systems have none
        return f"{run_dir} cannot be locked ({error}); do not start a second process there"
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    except OSError:  # a full disk: the lock holds without its holder's name
        pass
    return None


def _let_go_in_child() -> None:
    """Closes them in a forked child, such as an environment's: one that outlives the run would keep the lock."""
    while _HELD:
        os.close(_HELD.pop())


os.register_at_fork(after_in_child=_let_go_in_child)
