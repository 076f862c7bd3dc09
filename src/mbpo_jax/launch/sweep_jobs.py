"""The jobs of a sweep: one for each flagfile and group of seeds, with its run directory and command line."""

import argparse
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mbpo_jax.launch.job import TrainingJob


class Task(NamedTuple):
    """What one job trains, and where."""

    flagfile: Path
    seeds: tuple[int, ...]
    run_dir: Path


def tasks(arguments: argparse.Namespace) -> list[Task]:
    """Returns the tasks of a sweep: by flagfile, then by group of seeds."""
    step = arguments.seeds_per_job
    groups = [tuple(arguments.seeds[i : i + step]) for i in range(0, len(arguments.seeds), step)]
    return [
        Task(flagfile, seeds, arguments.sweep_dir / flagfile.stem / ("seeds_" + "_".join(map(str, seeds))))
        for flagfile, seeds in itertools.product(arguments.flagfiles, groups)
    ]


def training_job(arguments: argparse.Namespace, task: Task, added: Sequence[str] = ()) -> TrainingJob:
    """Returns the job that runs a task's command line, with the flags `added`."""
    command = (sys.executable, "-m", "mbpo_jax.main", f"--flagfile={task.flagfile}", *added, *own_flags(task))
    log = arguments.sweep_dir / "jobs" / f"{task.flagfile.stem}.{task.run_dir.name}.log"
    return TrainingJob(command, task.run_dir, log, arguments.save_seconds, arguments.is_local)


def own_flags(task: Task) -> tuple[str, ...]:
    """Returns the flags that the sweep sets. They come last and win: a flagfile may set --seeds and --run_dir too."""
    return f"--seeds={','.join(map(str, task.seeds))}", f"--run_dir={task.run_dir}"


def plan(arguments: argparse.Namespace, added: Sequence[str] = ()) -> list[TrainingJob]:
    """Returns the jobs of a sweep, in the order of its tasks."""
    return [training_job(arguments, task, added) for task in tasks(arguments)]
