"""Builds submitit's executors, which run the jobs of a sweep on this machine or on SLURM.

We use submitit rather than Ray because it launches plain command lines, needs no daemon, has SLURM requeue preempted
jobs, and has a local executor with the same interface. It keeps pickled files in `DIR/jobs`. Ours hold nothing but
command lines, but never load such files from strangers: loading a pickle runs code.
"""

import argparse
import os
from pathlib import Path
from typing import Any

MAX_TIMEOUTS = 100  # a job that reaches its time limit saves and is requeued up to this many times


def build(arguments: argparse.Namespace) -> Any:
    """Builds the executor that the flags of a sweep ask for.

    Raises:
      ValueError: submitit or SLURM is not installed.
    """
    try:
        import submitit
    except ImportError as error:
        raise ValueError("a sweep needs the extra 'sweep': pip install -e '.[sweep]'") from error
    folder = arguments.sweep_dir / "jobs"
    return _local(submitit, folder, arguments) if arguments.is_local else _slurm(submitit, folder, arguments)


def num_at_once(arguments: argparse.Namespace, num_jobs: int) -> int:
    """Returns how many jobs run at once: all on SLURM, locally as many as fit the cores, or 1 if they need GPUs.

    This machine's GPUs are not divided among jobs.
    """
    if not arguments.is_local:
        return num_jobs
    return 1 if arguments.gpus_per_job else max(1, (os.cpu_count() or 1) // arguments.cpus_per_job)


def _local(submitit: Any, folder: Path, arguments: argparse.Namespace) -> Any:
    executor = submitit.LocalExecutor(folder, max_num_timeout=MAX_TIMEOUTS)
    executor.update_parameters(
        timeout_min=arguments.timeout_minutes,
        signal_delay_s=arguments.save_seconds,
        gpus_per_node=arguments.gpus_per_job,
    )
    return executor


def _slurm(submitit: Any, folder: Path, arguments: argparse.Namespace) -> Any:
    try:
        executor = submitit.SlurmExecutor(folder, max_num_timeout=MAX_TIMEOUTS)
    except RuntimeError as error:
        raise ValueError(f"--executor=slurm needs SLURM's commands on this machine: {error}") from error
    optional = {
        "partition": arguments.slurm_partition,
        "account": arguments.slurm_account,
        "qos": arguments.slurm_qos,
        "mem": f"{arguments.memory_gb_per_job}GB" if arguments.memory_gb_per_job else None,
        "gpus_per_node": arguments.gpus_per_job or None,
    }
    executor.update_parameters(
        job_name=f"mbpo_jax.{arguments.sweep_dir.name}",
        time=arguments.timeout_minutes,
        signal_delay_s=arguments.save_seconds,
        cpus_per_task=arguments.cpus_per_job,
        additional_parameters={"requeue": True},  # even if the cluster's default is not to
        srun_args=[f"--cpus-per-task={arguments.cpus_per_job}"],  # since SLURM 22.05 srun does not take sbatch's
        **{name: value for name, value in optional.items() if value is not None},
    )
    return executor
