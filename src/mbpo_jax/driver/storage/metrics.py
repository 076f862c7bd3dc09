"""The metrics of a run: one strict JSON object per line in `metrics.jsonl`, and TensorBoard on request.

A line that cannot be written whole is removed again; only a kill or a power cut can leave a part of one, at the end,
which readers ignore. A resumed run cuts the file back to its length at the checkpoint, so no step is in it twice. The
module does not import jax: reports read run directories without it.
"""

import contextlib
import errno
import json
import math
import operator
import os
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self, SupportsIndex

import numpy as np

from mbpo_jax.driver.storage import files

FILE_NAME = "metrics.jsonl"
NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}  # strict JSON has no word for them


class MetricsWriter:
    """Appends metrics to `<run_dir>/metrics.jsonl`; one process writes, any number may read meanwhile."""

    def __init__(self, run_dir: str | os.PathLike[str], offset: int | None = None, tensorboard: bool = False) -> None:
        """Opens the file and cuts it to `offset` bytes.

        Args:
          run_dir: directory of the run, created if missing.
          offset: bytes to keep: the value of `offset` when the checkpoint was saved; None or 0 starts empty.
          tensorboard: also write scalars to `<run_dir>/tensorboard/seed_<n>`.
        Raises:
          ValueError: the file is shorter than `offset`, or no line ends there, or tensorboardX is missing.
        """
        self._run_dir = Path(run_dir)
        self._summaries = _Summaries(self._run_dir / "tensorboard") if tensorboard else None
        path = self._run_dir / FILE_NAME
        kept = _whole_lines(path, offset or 0)
        self._run_dir.mkdir(parents=True, exist_ok=True)
        self._fd: int | None = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        os.ftruncate(self._fd, offset or 0)
        self._closed_at = 0
        self.crc32 = zlib.crc32(kept)  # of the file so far; a checkpoint stores it beside `offset`

    @property
    def offset(self) -> int:
        """Returns the length of the file in bytes, always the end of a line; a checkpoint stores it."""
        return self._closed_at if self._fd is None else os.fstat(self._fd).st_size

    def write(self, step: SupportsIndex, seed: SupportsIndex, values: Mapping[str, Any]) -> None:
        """Appends one line.

        Args:
          step: real environment steps so far.
          seed: which seed of the run.
          values: name -> Python number, numpy or jax scalar, or 1-D array (becomes a list).
        Raises:
          ValueError: a value is none of these, or is named 'step' or 'seed', or the writer is closed.
          OSError: the line could not be written; the file is as it was before the call.
        """
        if self._fd is None:
            raise ValueError(f"the metrics of {self._run_dir} are closed")
        record: dict[str, Any] = {"step": operator.index(step), "seed": operator.index(seed)}
        for name, value in values.items():
            if name in record:
                raise ValueError(f"a metric must not be named {name!r}: it says where the line belongs")
            record[name] = _plain(name, value)
        plain = {name: _in_words(value) for name, value in record.items()}
        line = (json.dumps(plain, allow_nan=False) + "\n").encode()
        _append_whole(self._fd, line)
        self.crc32 = zlib.crc32(line, self.crc32)
        if self._summaries is not None:
            self._summaries.write(record)

    def sync(self) -> None:
        """Makes the lines so far survive a power cut; call it before a checkpoint stores `offset`."""
        if self._fd is not None:
            os.fsync(self._fd)

    def close(self) -> None:
        """Closes the files; a second call does nothing."""
        if self._fd is not None:
            self._closed_at = self.offset
            fd, self._fd = self._fd, None
            os.close(fd)
        if self._summaries is not None:
            self._summaries.close()

    def __enter__(self) -> Self:
        """Returns the writer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the writer and lets exceptions pass."""
        self.close()


def read(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Reads a metrics file.

    Returns:
      One dict per line, in the order written, with 'step', 'seed' and the metrics; all floats are floats again. A last
      line without its newline is ignored.
    Raises:
      ValueError: names the file and the number of the first line that is damaged.
      FileNotFoundError: there is no such file.
    """
    records = []
    with files.open_regular(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                break  # being written, or torn by a kill or a power cut; a resumed run cuts it off
            try:
                records.append(_parse(line))
            except ValueError as error:  # JSON and UTF-8 errors are ValueErrors too
                raise ValueError(f"{os.fspath(path)}, line {number} is damaged: {error}") from error
    return records


def check_prefix(run_dir: str | os.PathLike[str], offset: int, crc32: int) -> None:
    """Checks that the file still begins with what it held at a checkpoint.

    Raises:
      ValueError: it does not; names the file.
    """
    path = Path(run_dir) / FILE_NAME
    if zlib.crc32(_whole_lines(path, offset)) != crc32:
        raise ValueError(f"{path} is damaged: its first {offset} bytes are not what the run had written")


def last_step(run_dir: str | os.PathLike[str]) -> int:
    """Returns the greatest step of a readable line; 0 if there is none."""
    path, latest = Path(run_dir) / FILE_NAME, 0
    if path.exists():
        with files.open_regular(path) as file:
            for line in file:
                with contextlib.suppress(ValueError):
                    latest = max(latest, _parse(line)["step"])
    return latest


class _Summaries:
    """TensorBoard event files, one folder per seed.

    tensorboardX's own `SummaryWriter` writes in a thread. If writing fails (a full disk), the thread ends and the next
    call waits for it forever, so here events are written by the caller.
    """

    def __init__(self, root: Path) -> None:
        try:
            from tensorboardX import event_file_writer, summary
            from tensorboardX.proto import event_pb2
        except ImportError as error:
            raise ValueError("TensorBoard output needs tensorboardX: pip install -e '.[tensorboard]'") from error
        self._root, self._open, self._scalar = root, event_file_writer.EventsWriter, summary.scalar
        self._event, self._begin = event_pb2.Event, event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._writers: dict[int, Any] = {}

    def write(self, record: Mapping[str, Any]) -> None:
        """Writes the numbers of a line, except lists. Raises OSError if they cannot be written."""
        step, seed = record["step"], record["seed"]
        writer = self._writers.get(seed) or self._opened(seed, step)
        for name, value in record.items():
            if name not in ("step", "seed") and not isinstance(value, list):
                writer.write_event(self._event(wall_time=time.time(), step=step, summary=self._scalar(name, value)))
        writer.flush()

    def close(self) -> None:
        for writer in self._writers.values():
            with contextlib.suppress(OSError):  # every line was flushed, or its error has been raised
                writer.close()
        self._writers = {}

    def _opened(self, seed: int, step: int) -> Any:
        """Opens an event file, which hides what an interrupted run wrote from this step on."""
        folder = self._root / f"seed_{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        writer = self._writers[seed] = self._open(str(folder / "events"), f".{os.getpid()}")
        writer.write_event(self._event(wall_time=time.time(), step=step, session_log=self._begin))
        return writer


def _plain(name: str, value: Any) -> Any:
    """Returns a metric as a Python number or a flat list of them."""
    array = np.asarray(value)
    if array.ndim > 1:
        raise ValueError(f"metric {name!r} must be a number or a 1-D array, got shape {array.shape}")
    if array.dtype.kind == "f" or array.dtype.name == "bfloat16":
        array = array.astype(np.float64)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"metric {name!r} must be a number or a 1-D array of numbers, got {value!r}")
    return array.tolist()


def _in_words(value: Any) -> Any:
    if isinstance(value, list):
        return [_in_words(item) for item in value]
    return value if not isinstance(value, float) or math.isfinite(value) else str(value)


def _from_words(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_words(item) for item in value]
    return NON_FINITE.get(value, value) if isinstance(value, str) else value


def _parse(line: bytes) -> dict[str, Any]:
    record = json.loads(line, parse_constant=_refuse_constant)
    if not isinstance(record, dict) or not all(type(record.get(key)) is int for key in ("step", "seed")):
        raise ValueError("not an object with whole numbers 'step' and 'seed'")
    return {name: _from_words(value) for name, value in record.items()}


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")


def _whole_lines(path: Path, offset: int) -> bytes:
    """Reads the first `offset` bytes of a file; raises ValueError unless a line ends there."""
    if offset == 0:
        return b""
    size = path.stat().st_size if path.exists() else 0
    if not 0 < offset <= size:
        raise ValueError(f"{path} has {size} bytes, but the checkpoint has seen {offset}: lines are missing")
    with files.open_regular(path) as file:
        kept = file.read(offset)
    if not kept.endswith(b"\n"):
        raise ValueError(f"{path} has no line that ends at byte {offset}: it is not the file of this checkpoint")
    return kept


def _append_whole(fd: int, line: bytes) -> None:
    """Appends a line in one write call, or nothing; only a kill of the process may leave a part of it."""
    size = os.fstat(fd).st_size
    try:
        written = os.write(fd, line)
        if written != len(line):
            raise OSError(errno.EIO, f"only {written} of {len(line)} bytes of a metrics line were written")
    except OSError:
        with contextlib.suppress(OSError):  # the first error is the one to report
            os.ftruncate(fd, size)
        raise
