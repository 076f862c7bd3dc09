"""Runs a command: `mbpo_jax COMMAND ...`, or `python -m mbpo_jax COMMAND ...`.

A command's module is imported only when the command is called, so that --help is instant. Each command can also be
called as `python -m mbpo_jax.MODULE`.
"""

import contextlib
import difflib
import os
import sys
from typing import NamedTuple

import mbpo_jax
from mbpo_jax.launch import process_exit
from mbpo_jax.launch.command import exit_status, report_error, run, say

HELP_FLAGS = ("--help", "-h", "-help", "--h")


class Command(NamedTuple):
    """A command: its module, whose `main(argv)` returns the exit status, and a line for --help."""

    module: str
    summary: str


COMMANDS = {
    "train": Command("main", "train agents, or continue a run that was stopped"),
    "evaluate": Command("evaluate", "play episodes with a run's policy; --video films them"),
    "collect": Command("collect", "write a data set in Minari's format, from a run or a policy"),
    "plot": Command("plot", "redraw a run's learning curve"),
    "study": Command("study", "run small experiments on trained runs"),
    "sweep": Command("sweep", "launch many runs"),
    "reproduce": Command("reproduce", "train what is missing and compare it with the published results"),
    "check_env": Command("check_env", "check an environment with random actions and report what would go wrong"),
    "doctor": Command("doctor", "check this machine and report what would go wrong"),
}


def main(argv: list[str] | None = None) -> int:
    """Runs a command; returns its exit status, 2 if there is no such command."""
    given = sys.argv[1:] if argv is None else argv
    if given[:1] == ["help"]:
        given = [*given[1:2], "--help"]
    if not given or given[0] in HELP_FLAGS:
        say(help_text())
        return 0 if given else 2
    if given[0] == "--version":
        say(f"mbpo_jax {mbpo_jax.__version__}")
        return 0
    if given[0] not in COMMANDS:
        return report_error(ValueError(_unknown(given[0])))
    return run(COMMANDS[given[0]].module, given[1:])


def console() -> int:
    """Runs a command, as the console script.

    Modules in the working directory can be named, as in `--env=my_env:MyEnv-v0`, just as under `python -m`. The
    directory comes last on the path, so that a file in it cannot replace an installed module of the same name.
    """
    if not sys.flags.safe_path:
        with contextlib.suppress(OSError):  # the working directory is gone
            sys.path.append(os.getcwd())
    return process_exit.in_time(exit_status(main))


def help_text() -> str:
    """Returns what --help prints."""
    width = 2 + max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:{width}}{command.summary}" for name, command in COMMANDS.items())
    return (
        "usage: mbpo_jax COMMAND [--flag=value ...]\n\nModel-based policy optimisation and its family in JAX.\n\n"
        f"commands:\n{commands}\n\n"
        "`mbpo_jax COMMAND --help` lists the flags of a command, `mbpo_jax --version` prints the version.\n"
        "A first run of a few minutes: mbpo_jax train --flagfile=inverted_pendulum"
    )


def _unknown(word: str) -> str:
    """Returns the error message for a word that is not a command; names the nearest one."""
    if word.startswith("-"):
        return f"a command must come first ({', '.join(COMMANDS)}), got {word!r}"
    names = {command.module: name for name, command in COMMANDS.items()} | {name: name for name in COMMANDS}
    near = [names[name] for name in difflib.get_close_matches(word.replace("-", "_").lower(), names, n=1)]
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"command must be one of {', '.join(COMMANDS)}, got {word!r}{hint}"


if __name__ == "__main__":
    sys.exit(process_exit.in_time(exit_status(main)))
