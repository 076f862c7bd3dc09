"""Writes mp4 videos frame by frame; needs the extra `video`."""

import os
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np


class Film:
    """An mp4 file that appears once it is complete; use it in a `with` statement.

    Raises:
      ValueError: what writes videos is not installed; names what is missing.
    """

    def __init__(self, path: Path, frames_per_second: float) -> None:
        self._ffmpeg = _ffmpeg()
        self._path, self._rate = path, frames_per_second
        self._temporary = path.with_name(f".{path.stem}.{os.getpid()}.mp4")  # ffmpeg goes by the extension
        self._writer: subprocess.Popen[bytes] | None = None  # started once the first frame shows the size
        self._messages = tempfile.TemporaryFile()

    def add(self, frame: np.ndarray) -> None:
        """Adds a frame, uint8 [height, width, 3], of the same size as the first.

        Raises:
          OSError: it cannot be written.
        """
        if self._writer is None:
            self._writer = self._begin(*frame.shape[:2])
        assert self._writer.stdin is not None
        try:
            self._writer.stdin.write(np.ascontiguousarray(frame).tobytes())
        except BrokenPipeError as error:
            self._writer.wait()
            raise self._failure() from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if self._writer is not None:
                self._end(self._writer, whole=kind is None)
        finally:
            self._messages.close()
            self._temporary.unlink(missing_ok=True)

    def _begin(self, height: int, width: int) -> subprocess.Popen[bytes]:
        command = [self._ffmpeg, "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24"]
        command += ["-s", f"{width}x{height}", "-r", str(self._rate), "-i", "-", "-an", "-c:v", "libx264"]
        # Players expect this pixel format, which requires even sizes.
        command += ["-pix_fmt", "yuv420p", "-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", str(self._temporary)]
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._messages,
            start_new_session=True,  # Ctrl-C reaches us only, and we end it
        )

    def _end(self, writer: subprocess.Popen[bytes], whole: bool) -> None:
        assert writer.stdin is not None
        try:
            writer.stdin.close()
        except BrokenPipeError:  # it has already ended; its status says why
            pass
        status = writer.wait()
        if whole and status != 0:
            raise self._failure()
        if whole:
            os.replace(self._temporary, self._path)

    def _failure(self) -> OSError:
        self._messages.seek(0)
        lines = self._messages.read().decode(errors="replace").split("\n")
        return OSError(f"{self._path} cannot be written: {next(iter(lines), '')}")


def _ffmpeg() -> str:
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise ValueError(
            "--video needs the package imageio-ffmpeg, which is not installed: pip install -e '.[video]'"
        ) from error
    try:
        path: str = imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise ValueError(
            "--video needs ffmpeg, and this imageio-ffmpeg came without it: install ffmpeg, or set "
            "IMAGEIO_FFMPEG_EXE to its path"
        ) from error
    return path
