"""Launches a sweep: `python -m mbpo_jax.sweep --flagfiles=A,B --seeds=0,1,2 --sweep_dir=DIR [-- --flag=value ...]`.

Each flagfile and group of seeds is one job: the command line that a person would type, with the run directory
`DIR/<flagfile>/seeds_<seed>[_<seed>...]`. What follows `--` is added to every one of them. A job that is preempted, or
that reaches its time limit, saves, is requeued and continues; the same sweep command continues what has not ended.
"""

import argparse
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import absl.flags

from mbpo_jax.launch import launcher
from mbpo_jax.launch.command import Parser, count, exit_status, failed, positive
from mbpo_jax.launch.job import TrainingJob


class Task(NamedTuple):
    """What one job trains, and where."""

    flagfile: Path
    seeds: tuple[int, ...]
    run_dir: Path


def main(argv: list[str] | None = None) -> int:
    """Submits the jobs, waits, and prints a line as each ends; returns the exit status.

    0 all finished (or, with --detach, were submitted), 1 some failed, 2 wrong flags, 3 stopped, 6 files failed.
    """
    try:
        arguments, added = parse(sys.argv[1:] if argv is None else argv)
        return launcher.launch(arguments, plan(arguments, added))
    except (ValueError, OSError) as error:
        return failed(error)


def plan(arguments: argparse.Namespace, added: Sequence[str] = ()) -> list[TrainingJob]:
    """The jobs of a sweep: by flagfile, then by group of seeds."""
    return [training_job(arguments, task, added) for task in tasks(arguments)]


def tasks(arguments: argparse.Namespace) -> list[Task]:
    """What each job trains, and where."""
    step, found = arguments.seeds_per_job, []
    groups = [tuple(arguments.seeds[i : i + step]) for i in range(0, len(arguments.seeds), step)]
    for flagfile, seeds in itertools.product(arguments.flagfiles, groups):
        run_dir = arguments.sweep_dir / flagfile.stem / ("seeds_" + "_".join(map(str, seeds)))
        found.append(Task(flagfile, seeds, run_dir))
    return found


def training_job(arguments: argparse.Namespace, task: Task, added: Sequence[str] = ()) -> TrainingJob:
    """The command line of a task, as a job."""
    # The last flag wins, so the sweep's own come last: a flagfile may have seeds and a run_dir in it.
    own = (f"--seeds={','.join(map(str, task.seeds))}", f"--run_dir={task.run_dir}")
    command = (sys.executable, "-m", "mbpo_jax.main", f"--flagfile={task.flagfile}", *added, *own)
    log = arguments.sweep_dir / "jobs" / f"{task.flagfile.stem}.{task.run_dir.name}.log"
    return TrainingJob(command, task.run_dir, log, arguments.save_seconds, arguments.is_local)


def parse(argv: list[str], parser: Parser | None = None) -> tuple[argparse.Namespace, list[str]]:
    """The flags of the sweep, checked, and those that every command line gets.

    Args:
      argv: without the program's name.
      parser: one that knows the flags of `add_flags`, and maybe more; that of the sweep if left out.
    Raises:
      ValueError: names the flag, its value and what is allowed.
    """
    split = argv.index("--") if "--" in argv else len(argv)
    try:
        own = absl.flags.FlagValues().read_flags_from_files(argv[:split])
    except (absl.flags.Error, UnicodeDecodeError) as error:
        raise ValueError(f"--flagfile must be a text file that can be read: {error}") from error
    arguments, added = (parser or _parser()).parse_args(own), argv[split + 1 :]
    arguments.is_local = arguments.executor == "local"
    for flagfile in arguments.flagfiles:
        if not flagfile.is_file():
            raise ValueError(f"--flagfiles must be files that can be read, got '{flagfile}'")
    for name, values in (("flagfiles", [file.stem for file in arguments.flagfiles]), ("seeds", arguments.seeds)):
        if len(set(values)) < len(values):
            raise ValueError(f"--{name} must differ from one another, got {','.join(map(str, values))}")
    for argument in added:
        if argument.partition("=")[0].lstrip("-") in ("seeds", "run_dir"):
            raise ValueError(f"what follows -- must not be --seeds or --run_dir, which the sweep sets, got {argument}")
    if 60 * arguments.timeout_minutes <= arguments.save_seconds:
        raise ValueError(
            f"--save_seconds must be less than --timeout_minutes={arguments.timeout_minutes} (in seconds: "
            f"{60 * arguments.timeout_minutes}), got {arguments.save_seconds}"
        )
    for name in ("detach", "slurm_partition", "slurm_account", "slurm_qos", "memory_gb_per_job"):
        if arguments.is_local and getattr(arguments, name):
            raise ValueError(f"--{name} is not read by --executor=local; leave it out")
    return arguments, added


def _parser() -> Parser:
    parser = Parser(
        prog="python -m mbpo_jax.sweep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_flags(parser)
    return parser


def add_flags(parser: Parser, sweep_dir_required: bool = True) -> None:
    """The flags that say what is launched, and how."""
    add = parser.add_argument
    add("--flagfile", help="Read more of these flags from this file, one a line.")
    add(
        "--flagfiles",
        required=True,
        action="extend",
        type=_paths,
        help="Flagfiles of what is trained, separated by commas; given again, it adds more.",
    )
    add("--seeds", type=_seeds, default=[0], help="Seeds, separated by commas. Default: 0.")
    add("--seeds_per_job", type=positive, default=1, help="Seeds that share a job and its process. Default: 1.")
    add(
        "--sweep_dir",
        required=sweep_dir_required,
        type=Path,
        help="Directory of the runs; shared by all machines of a cluster.",
    )
    add("--executor", choices=("local", "slurm"), default="local", help="Where jobs run. Default: local.")
    add(
        "--timeout_minutes",
        type=positive,
        default=1440,
        help="Time limit of a job until it is requeued. Default: 1440.",
    )
    add(
        "--save_seconds",
        type=positive,
        default=120,
        help="What is left of it when a job begins to save. Default: 120.",
    )
    add("--cpus_per_job", type=positive, default=2, help="Cores of a job. Default: 2.")
    add("--gpus_per_job", type=count, default=0, help="GPUs of a job; with any, one local job runs at a time.")
    add("--memory_gb_per_job", type=positive, help="Memory of a job, on SLURM. Default: the partition's.")
    add("--slurm_partition", help="Default: the cluster's.")
    add("--slurm_account", help="Default: yours.")
    add("--slurm_qos", help="Default: the cluster's.")
    add("--detach", action="store_true", help="Return after submission to SLURM.")


def _paths(text: str) -> list[Path]:
    return [Path(part) for part in text.split(",")]


def _seeds(text: str) -> list[int]:
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        seeds = [-1]
    if not all(0 <= seed <= 2**31 - 1 for seed in seeds):
        raise argparse.ArgumentTypeError(f"must be whole numbers of 0 or more separated by commas, got {text!r}")
    return seeds


if __name__ == "__main__":
    sys.exit(exit_status(main))
