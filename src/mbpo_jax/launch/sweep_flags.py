"""Defines and checks the flags of a sweep: what it launches, and how."""

import argparse
from pathlib import Path

from mbpo_jax.launch import flagfiles
from mbpo_jax.launch.command import Parser, count, path, positive

SLURM_ONLY = ("detach", "slurm_partition", "slurm_account", "slurm_qos", "memory_gb_per_job")
SET_BY_SWEEP = ("seeds", "run_dir")  # on every command line that the sweep runs


def build_parser(prog: str, description: str | None, sweep_dir_required: bool = True) -> Parser:
    """Builds a parser of the flags of a sweep, to which a command may add flags of its own."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog=prog, description=description, formatter_class=raw, allow_abbrev=False)
    add = parser.add_argument
    add("--flagfile", help="Read more of these flags from this file, one per line.")
    add(
        "--flagfiles",
        required=True,
        action="extend",
        type=_paths,
        help="Flagfiles to train, by path or name, separated by commas; may be given several times.",
    )
    add("--seeds", type=_seeds, default=[0], help="Seeds, separated by commas. Default: 0.")
    add("--seeds_per_job", type=positive, default=1, help="Seeds trained in one job and process. Default: 1.")
    add(
        "--sweep_dir",
        required=sweep_dir_required,
        type=path,
        help="Directory of the runs; on a cluster, one that all nodes see.",
    )
    add(
        "--executor",
        choices=("local", "slurm"),
        default="local",
        help="Where jobs run: on this machine (local) or on SLURM. Default: local.",
    )
    limit_help = "Time limit of a job in minutes, after which it is requeued. Default: 1440."
    add("--timeout_minutes", type=positive, default=1440, help=limit_help)
    save_help = "Seconds before the time limit at which a job begins to save. Default: 120."
    add("--save_seconds", type=positive, default=120, help=save_help)
    add("--cpus_per_job", type=positive, default=2, help="Cores per job. Default: 2.")
    add(
        "--gpus_per_job",
        type=count,
        default=0,
        help="GPUs per job; with any, one local job runs at a time. Default: 0.",
    )
    add("--memory_gb_per_job", type=positive, help="Memory per job in GB, on SLURM. Default: the partition's.")
    add("--slurm_partition", help="SLURM's partition. Default: the cluster's.")
    add("--slurm_account", help="SLURM's account. Default: yours.")
    add("--slurm_qos", help="SLURM's quality of service. Default: the cluster's.")
    add("--detach", action="store_true", help="Return once the jobs are submitted, on SLURM.")
    return parser


def parse(argv: list[str], parser: Parser) -> tuple[argparse.Namespace, list[str]]:
    """Parses and checks the flags of a sweep.

    Args:
      argv: without the program's name.
      parser: from `build_parser`.
    Returns:
      The flags before `--`, with `is_local`, and those after it, which are passed to every run of the sweep.
    Raises:
      ValueError: names the flag, its value and what is allowed.
    """
    split = argv.index("--") if "--" in argv else len(argv)
    arguments, added = parser.parse_args(flagfiles.expand(argv[:split])), argv[split + 1 :]
    arguments.is_local = arguments.executor == "local"
    _check(arguments)
    for argument in added:
        if argument.partition("=")[0].lstrip("-") in SET_BY_SWEEP:
            raise ValueError(f"flags after -- must not be --seeds or --run_dir, which the sweep sets, got {argument}")
    return arguments, added


def _check(arguments: argparse.Namespace) -> None:
    for name, values in (("flagfiles", [file.stem for file in arguments.flagfiles]), ("seeds", arguments.seeds)):
        if len(set(values)) < len(values):
            raise ValueError(f"--{name} must differ from one another, got {','.join(map(str, values))}")
    if 60 * arguments.timeout_minutes <= arguments.save_seconds:
        raise ValueError(
            f"--save_seconds must be less than --timeout_minutes={arguments.timeout_minutes} ("
            f"{60 * arguments.timeout_minutes} s), got {arguments.save_seconds}"
        )
    for name in SLURM_ONLY:
        if arguments.is_local and getattr(arguments, name):
            raise ValueError(f"--{name} is not read by --executor=local, got {getattr(arguments, name)}; leave it out")


def _paths(text: str) -> list[Path]:
    try:
        return [flagfiles.flagfile_path(part) for part in text.split(",")]
    except ValueError as error:
        reason = str(error).replace("--flagfile must be a text file that", "must be files that", 1)
        raise argparse.ArgumentTypeError(reason) from error


def _seeds(text: str) -> list[int]:
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        seeds = [-1]
    if not all(0 <= seed <= 2**31 - 1 for seed in seeds):
        raise argparse.ArgumentTypeError(
            f"must be whole numbers in [0, {2**31 - 1}], separated by commas, got {text!r}"
        )
    return seeds
