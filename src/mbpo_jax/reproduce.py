"""Trains what is missing and compares our runs with the published ones in a table and a figure.

  python -m mbpo_jax.reproduce --flagfiles=A,B --seeds=0,1 --report_dir=DIR --sweep_dir=RUNS
    [-- --flag=value ...]

Trains what is missing, as `python -m mbpo_jax.sweep` with the same flags would. Keeps every curve
in `DIR/curves/<flagfile>/seed_<seed>.json`, and writes `NAME.md`, `NAME.json` and `NAME.png` to
DIR, where NAME is --report_name; several reports can share the curves in DIR. A seed whose curve
reaches num_steps is not run again. With --report_only nothing is run, and the curves in DIR are
enough. Curves made with flags other than those requested are refused.
"""

if __name__ == "__main__":  # before the imports, because jax may fail in them
    from mbpo_jax.launch import process_exit

    process_exit.run_as_process("reproduce")

import argparse
import re
import shlex
import sys

from mbpo_jax.launch import kept_curves, missing_runs, sweep_flags
from mbpo_jax.launch.command import Parser, make_writable, path, positive, report_error, say
from mbpo_jax.launch.program import as_called
from mbpo_jax.launch.requested_run import read_request
from mbpo_jax.reports import comparison_files, scores

REPORT_FLAGS = ("flagfile", "flagfiles", "seeds", "report_dir", "report_name", "last_step", "score_reference")
"""Flags that say what is reported; the others say how it is run."""


def main(argv: list[str] | None = None) -> int:
    """Runs what is missing and reports; returns the exit status.

    0 done, 1 some jobs failed (the report has the curves that exist), 2 wrong flags or damaged files, 3 stopped, 6 a
    file could not be read or written.
    """
    given = sys.argv[1:] if argv is None else argv
    try:
        arguments, added = sweep_flags.parse(given, parser())
        if arguments.sweep_dir is None and not arguments.report_only:
            raise ValueError(
                "--sweep_dir must be the directory of the runs, got none; it may be left out only with --report_only"
            )
        requests = [read_request(flagfile, added) for flagfile in arguments.flagfiles]
        make_writable(arguments.report_dir, "report_dir")
        if not arguments.report_only:
            make_writable(arguments.sweep_dir, "sweep_dir")
        status = 0 if arguments.report_only else missing_runs.launch(arguments, added, requests)
        experiments = [kept_curves.collect(arguments, request) for request in requests]
        if arguments.report_only and not any(experiment.curves for experiment in experiments):
            places = " or ".join(str(path) for path in (arguments.sweep_dir, arguments.report_dir) if path)
            raise ValueError(
                f"--report_only needs curves, but there are none for these flagfiles and seeds in {places}"
            )
        offline = dict.fromkeys(experiment.env for experiment in experiments if experiment.dataset)
        for env_id, _ in arguments.score_reference:
            if env_id not in offline:
                known = ", ".join(offline) or "none"
                raise ValueError(
                    f"--score_reference must be for an environment of offline runs ({known}), got {env_id!r}"
                )
        where, references = (arguments.report_dir, arguments.report_name), dict(arguments.score_reference)
        say(str(comparison_files.write(experiments, *where, _command(given), references)))
        return status
    except (ValueError, OSError) as error:
        return report_error(error)


def parser() -> Parser:
    """Returns the parser of the command's flags: those of a sweep, and those of the report."""
    parser = sweep_flags.build_parser(
        as_called("python -m mbpo_jax.reproduce"), as_called(__doc__), sweep_dir_required=False
    )
    parser.add_argument("--report_dir", required=True, type=path, help="Directory of the report and the curves.")
    parser.add_argument(
        "--report_name", type=_file_stem, default="report", help="Name of the report's files. Default: report."
    )
    parser.add_argument(
        "--last_step",
        type=positive,
        help="Report evaluations up to this environment step only, to compare runs of different lengths.",
    )
    parser.add_argument(
        "--score_reference",
        type=_reference,
        action="append",
        default=[],
        metavar="ENV=RANDOM,EXPERT",
        help="Add normalised scores to offline results in ENV: 0 and 100 are these two returns, or D4RL's, ENV=d4rl.",
    )
    parser.add_argument("--report_only", action="store_true", help="Run nothing; report the curves that exist.")
    return parser


def _reference(text: str) -> tuple[str, scores.Reference]:
    try:
        return scores.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _file_stem(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", text):
        raise argparse.ArgumentTypeError(f"must be letters, digits, _ and -, got {text!r}")
    return text


def _command(given: list[str]) -> str:
    """Returns the command that recreates the report from the curves next to it, without the flags for launching."""
    split = given.index("--") if "--" in given else len(given)
    arguments, kept = [], False
    for argument in given[:split]:
        if argument.startswith("-"):  # anything else is the value of the flag before it
            kept = argument.lstrip("-").partition("=")[0] in REPORT_FLAGS
        if kept:
            arguments.append(argument)
    return f"python -m mbpo_jax.reproduce {shlex.join([*arguments, '--report_only', *given[split:]])}"
