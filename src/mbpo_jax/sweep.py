"""Launches a sweep of many runs.

  python -m mbpo_jax.sweep --flagfiles=A,B --seeds=0,1,2 --sweep_dir=DIR [-- --flag=value ...]

Each flagfile and group of seeds is one job: an ordinary training command with the run directory
`DIR/<flagfile>/seeds_<seed>[_<seed>...]`. Flags after `--` are added to every job. A job that is
preempted, or that reaches its time limit, saves, is requeued and continues. The same sweep command
continues jobs that have not finished.
"""

if __name__ == "__main__":  # before the imports, because jax may fail in them
    from mbpo_jax.launch import process_exit

    process_exit.run_as_process("sweep")

import sys

from mbpo_jax.launch import launcher, sweep_flags, sweep_jobs
from mbpo_jax.launch.command import Parser, make_writable, report_error
from mbpo_jax.launch.program import as_called


def main(argv: list[str] | None = None) -> int:
    """Submits the jobs, waits for them, and prints a line as each ends; returns the exit status.

    0 all finished (or, with --detach, were submitted), 1 some failed, 2 wrong flags, 3 stopped, 6 a file could not be
    read or written.
    """
    try:
        arguments, added = sweep_flags.parse(sys.argv[1:] if argv is None else argv, parser())
        make_writable(arguments.sweep_dir, "sweep_dir")
        return launcher.launch(arguments, sweep_jobs.plan(arguments, added))
    except (ValueError, OSError) as error:
        return report_error(error)


def parser() -> Parser:
    """Returns the parser of the command's flags."""
    return sweep_flags.build_parser(as_called("python -m mbpo_jax.sweep"), as_called(__doc__))
