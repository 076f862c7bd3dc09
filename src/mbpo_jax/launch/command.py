"""Provides what all commands share: exit statuses, printing, the line that reports an error, and the parser."""

import argparse
import contextlib
import importlib
import os
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

from mbpo_jax import options
from mbpo_jax.driver.stop import EXIT_STOPPED
from mbpo_jax.driver.storage import files

EXIT_USAGE, EXIT_STORAGE = 2, 6  # the errors of `driver.config` have their own


def say(text: str) -> None:
    """Prints to standard output, unbuffered. A reader that has closed its end, as `head` does, is not an error.

    Raises:
      OSError: it is closed, or full.
    """
    check_output()
    try:
        print(_encodable(text, sys.stdout), flush=True)
    except BrokenPipeError:
        _silence(sys.stdout)
    except OSError as error:
        _silence(sys.stdout)
        raise OSError(f"standard output cannot be written to: {error}") from error


def check_output() -> None:
    """Refuses a process without standard output, before doing work whose results are printed there.

    Raises:
      OSError: it was closed before the process began.
    """
    if sys.stdout is None:
        raise OSError("standard output is closed; redirect it to /dev/null if nobody is to read it")


def complain(text: str, stream: IO[str] | None = None) -> None:
    """Prints a line to a stream, standard error by default, if anybody reads it."""
    stream = stream or sys.stderr
    if stream is not None:  # closed before the process began
        with contextlib.suppress(OSError, ValueError):  # closed since
            print(_encodable(text, stream), file=stream, flush=True)


def report_error(error: Exception, flags: Iterable[str] = ()) -> int:
    """Prints an error in one line, below the environment's own traceback if it has one; returns the exit status.

    An error without a status of its own counts as a usage error if it is a ValueError, else as a storage failure.

    Args:
      flags: names that are flags of the command; if the message begins with one, it is written as --name.
    """
    if trace := getattr(error, "environment_traceback", None):
        complain(trace.rstrip())
    complain(f"mbpo_jax: error: {with_dashes(' '.join(str(error).split()), flags)}")
    status: int = getattr(error, "exit_status", EXIT_USAGE if isinstance(error, ValueError) else EXIT_STORAGE)
    return status


def with_dashes(message: str, flags: Iterable[str]) -> str:
    """Returns a message of the Python API, with the names of knobs that it begins with written as flags."""
    name = "|".join(sorted(map(re.escape, flags), key=len, reverse=True))
    if not name:
        return message
    first = re.match(rf"(?:(?:{name})(?:, | and | or ))*(?:{name})(?=[ :]|$)", message)
    if first is None:
        return message
    return re.sub(rf"(?<![\w.])(?:{name})(?![\w.])", r"--\g<0>", first[0]) + message[first.end() :]


def run(module: str, argv: list[str] | None = None) -> int:
    """Imports the module of a command, mbpo_jax.MODULE, and calls its `main`; returns the exit status.

    The import is part of the command: it fails if jax cannot parse a variable JAX_..., and this, too, is reported in
    one line.
    """
    try:
        main = importlib.import_module(f"mbpo_jax.{module}").main
    except ValueError as error:
        return report_error(error)
    status: int = main(argv)
    return status


def exit_status(main: Callable[[], int]) -> int:
    """Returns the exit status of a command's `main`; prints no traceback after Ctrl-C, or if nobody reads the output.

    To be called last in a process: what cannot be written to standard output is dropped.
    """
    _occupy_standard_streams()
    try:
        status = main()
    except KeyboardInterrupt:
        complain("mbpo_jax: stopped")
        status = EXIT_STOPPED
    except SystemExit as end:  # argparse, after --help
        status = end.code if isinstance(end.code, int) else 0
    except BrokenPipeError:  # here if PYTHONUNBUFFERED is set, below if not
        _silence(sys.stdout)
        status = 0
    except OSError as error:
        status = report_error(error)
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        _silence(sys.stdout)
    except OSError as error:
        _silence(sys.stdout)
        return status or report_error(OSError(f"standard output cannot be written to: {error}"))
    return status


def _encodable(text: str, stream: IO[str]) -> str:
    """Returns a text with characters that the stream's encoding lacks (an umlaut, in ASCII) written as escapes."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _silence(stream: IO[str]) -> None:
    """Discards what is still in a stream's buffer; Python would otherwise fail on it again at exit."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _occupy_standard_streams() -> None:
    """Keeps files that are opened later from becoming standard output, into which libraries print."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # closed; the lowest free number is this one
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # else it is closed again in child processes


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are exceptions with one-line messages."""

    def error(self, message: str) -> Any:
        """Raises ValueError, where argparse would end the process."""
        raise ValueError(f"{message.removeprefix('argument ')}; --help lists the flags")

    def print_help(self, file: Any = None) -> None:
        """Prints what --help prints.

        Raises:
          OSError: it cannot be written.
        """
        if file is None:
            say(self.format_help().rstrip())
        else:
            super().print_help(file)


def count(text: str, minimum: int = 0) -> int:
    """Parses a whole number, of at most 32 bits as every knob; the type of a flag."""
    if not text.isdecimal() or int(text) < minimum:
        raise argparse.ArgumentTypeError(f"must be a whole number, {minimum} or more, got {text!r}")
    if int(text) > options.MOST:
        raise argparse.ArgumentTypeError(f"must be at most {options.MOST}, got {text!r}")
    return int(text)


def positive(text: str) -> int:
    """Parses a whole number of 1 or more; the type of a flag."""
    return count(text, minimum=1)


def path(text: str) -> Path:
    """Parses a path on this machine, with `~` as the home directory; the type of a flag."""
    if not text:
        raise argparse.ArgumentTypeError("must be a path, got ''")
    try:
        return files.local_path(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def make_writable(directory: Path, flag: str) -> None:
    """Creates the directory that a flag names, before doing work whose results go there.

    Raises:
      ValueError: it cannot be created or written to; names the flag.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--{flag} must be a directory that can be created: {error}") from error
    if not os.access(directory, os.W_OK):
        raise ValueError(f"--{flag} must be a directory that can be written to, got '{directory}'")
