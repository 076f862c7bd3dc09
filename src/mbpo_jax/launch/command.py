"""What the commands have in common: how they end, how they say what is wrong, and numbers as flags."""

import argparse
import sys
from collections.abc import Callable
from typing import Any

from mbpo_jax.driver.stop import EXIT_STOPPED

EXIT_USAGE, EXIT_STORAGE = 2, 6  # the errors of `driver.config` have their own


def failed(error: Exception) -> int:
    """Says what is wrong in one line, an environment's own traceback above it; returns the exit status.

    An error that has none of its own is one of usage if it is a ValueError, and one of files if not.
    """
    if trace := getattr(error, "environment_traceback", None):
        print(trace.rstrip(), file=sys.stderr)
    print(f"mbpo_jax: error: {' '.join(str(error).split())}", file=sys.stderr)
    status: int = getattr(error, "exit_status", EXIT_USAGE if isinstance(error, ValueError) else EXIT_STORAGE)
    return status


def exit_status(main: Callable[[], int]) -> int:
    """What a command's `main` returns; EXIT_STOPPED, without a traceback, after Ctrl-C."""
    try:
        return main()
    except KeyboardInterrupt:
        print("mbpo_jax: stopped", file=sys.stderr)
        return EXIT_STOPPED


class Parser(argparse.ArgumentParser):
    """One that raises what is wrong in one line."""

    def error(self, message: str) -> Any:
        """Raises ValueError, where argparse would end the process."""
        raise ValueError(f"{message.removeprefix('argument ')}; --help lists the flags")


def count(text: str, minimum: int = 0) -> int:
    """A whole number, as the type of a flag."""
    if not text.isdecimal() or int(text) < minimum:
        raise argparse.ArgumentTypeError(f"must be a whole number, {minimum} or more, got {text!r}")
    return int(text)


def positive(text: str) -> int:
    """A whole number of 1 or more, as the type of a flag."""
    return count(text, minimum=1)
