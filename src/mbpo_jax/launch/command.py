"""What all commands share: exit statuses, the line that reports an error, and the parser of flags."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mbpo_jax.driver.stop import EXIT_STOPPED

EXIT_USAGE, EXIT_STORAGE = 2, 6  # the errors of `driver.config` have their own


def report_error(error: Exception) -> int:
    """Prints an error in one line, below the environment's own traceback if it has one; returns the exit status.

    An error without a status of its own counts as wrong usage if it is a ValueError, else as a failure of files.
    """
    if trace := getattr(error, "environment_traceback", None):
        print(trace.rstrip(), file=sys.stderr)
    print(f"mbpo_jax: error: {' '.join(str(error).split())}", file=sys.stderr)
    status: int = getattr(error, "exit_status", EXIT_USAGE if isinstance(error, ValueError) else EXIT_STORAGE)
    return status


def exit_status(main: Callable[[], int]) -> int:
    """Returns the exit status of a command's `main`; EXIT_STOPPED, without a traceback, after Ctrl-C."""
    try:
        return main()
    except KeyboardInterrupt:
        print("mbpo_jax: stopped", file=sys.stderr)
        return EXIT_STOPPED


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are exceptions of one line."""

    def error(self, message: str) -> Any:
        """Raises ValueError, where argparse would end the process."""
        raise ValueError(f"{message.removeprefix('argument ')}; --help lists the flags")


def count(text: str, minimum: int = 0) -> int:
    """Parses a whole number; the type of a flag."""
    if not text.isdecimal() or int(text) < minimum:
        raise argparse.ArgumentTypeError(f"must be a whole number, {minimum} or more, got {text!r}")
    return int(text)


def positive(text: str) -> int:
    """Parses a whole number of 1 or more; the type of a flag."""
    return count(text, minimum=1)


def make_writable(directory: Path, flag: str) -> None:
    """Makes the directory that a flag names, before work is done whose results go there.

    Raises:
      ValueError: it cannot be made or written to; names the flag.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--{flag} must be a directory that can be made: {error}") from error
    if not os.access(directory, os.W_OK):
        raise ValueError(f"--{flag} must be a directory that can be written to, got '{directory}'")
