"""Films as mp4, written as their pictures come; needs the extra `video`."""

import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np


class Film:
    """An mp4 file that is there once it is whole: use it in a `with` statement.

    Raises:
      ValueError: what writes films is not installed; names what is missing.
    """

    def __init__(self, path: Path, frames_per_second: float) -> None:
        try:
            import imageio_ffmpeg
        except ImportError as error:
            raise ValueError(
                "video needs the package imageio-ffmpeg, which is not installed: pip install 'mbpo-jax[video]'"
            ) from error
        try:
            imageio_ffmpeg.get_ffmpeg_exe()
        except RuntimeError as error:
            raise ValueError(
                "video needs ffmpeg, and this imageio-ffmpeg came without: install ffmpeg, or name it in "
                "IMAGEIO_FFMPEG_EXE"
            ) from error
        self._write_frames = imageio_ffmpeg.write_frames
        self._path, self._rate = path, frames_per_second
        self._temporary = path.with_name(f".{path.stem}.{os.getpid()}.mp4")  # ffmpeg goes by the ending
        self._writer: Any = None  # a generator that takes frames, once the first has come

    def add(self, frame: np.ndarray) -> None:
        """Adds a picture, uint8 [height, width, 3], as large as the first.

        Raises:
          OSError: it cannot be written.
        """
        if self._writer is None:
            height, width, _ = frame.shape
            self._writer = self._write_frames(
                str(self._temporary), (width, height), fps=self._rate, macro_block_size=2, quality=7
            )
            self._writer.send(None)
        try:
            self._writer.send(np.ascontiguousarray(frame))
        except StopIteration as error:
            raise OSError(f"{self._path} cannot be written: ffmpeg ended early") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._writer is None:
            return
        try:
            self._writer.close()
            if kind is None:
                os.replace(self._temporary, self._path)
        finally:
            self._temporary.unlink(missing_ok=True)
