"""Submits training jobs to this machine or to SLURM, waits for them, and tells how each ended.

Jobs go through submitit and not Ray: it launches plain command lines, needs no daemon, has SLURM requeue what was
preempted, has a local executor with the same interface, and is one small dependency. It keeps pickled files of its own
in `DIR/jobs`; ours hold nothing but command lines, but never load such files from strangers: a pickle runs code.
"""

import argparse
import itertools
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from mbpo_jax.driver.stop import EXIT_STOPPED, StopRequest
from mbpo_jax.launch.job import POLL_SECONDS, JobFailed, TrainingJob

EXIT_FAILED = 1
MAX_TIMEOUTS = 100  # a job gets its time limit so many times more, saving in between
SLURM_POLL_SECONDS = 1.0


def launch(arguments: argparse.Namespace, jobs: list[TrainingJob]) -> int:
    """Submits jobs, waits, and prints a line as each ends; returns the exit status: 0, 1 some failed, 3 stopped.

    Args:
      arguments: the flags of a sweep.
    Raises:
      ValueError: the executor is not there, or refuses the jobs.
    """
    executor = _executor(arguments)
    with StopRequest() as stop:
        return _launch(arguments, executor, jobs, stop)


def _launch(arguments: argparse.Namespace, executor: Any, jobs: list[TrainingJob], stop: StopRequest) -> int:
    waiting, num_finished = list(jobs), 0
    running: list[tuple[TrainingJob, Any]] = []
    width = _num_at_once(arguments, len(jobs))
    while waiting or running:
        if stop.requested:
            if not arguments.is_local:
                print("mbpo_jax: jobs that were submitted go on; scancel ends them", file=sys.stderr)
                return EXIT_STOPPED
            waiting = []
            for _, submitted in running:  # again and again, as it is lost on one that has just begun
                os.kill(int(submitted.job_id), signal.SIGTERM)
        batch, waiting = waiting[: width - len(running)], waiting[width - len(running) :]
        if batch:
            running += zip(batch, _submit(executor, batch), strict=True)
        if arguments.detach:
            for job, submitted in running:
                print(f"submitted  {job.run_dir}  job {submitted.job_id}")
            return 0
        ended = [submitted.done() for _, submitted in running]
        for job, submitted in itertools.compress(running, ended):
            error = submitted.exception()
            num_finished += error is None
            print(_outcome(job, error, stop.requested), flush=True)
        running = [pair for pair, has_ended in zip(running, ended, strict=True) if not has_ended]
        time.sleep(POLL_SECONDS if arguments.is_local else SLURM_POLL_SECONDS)
    print(f"mbpo_jax: {num_finished} of {len(jobs)} jobs finished", file=sys.stderr)
    if num_finished == len(jobs):
        return 0
    return EXIT_STOPPED if stop.requested else EXIT_FAILED


def _submit(executor: Any, jobs: list[TrainingJob]) -> list[Any]:
    """Submits, with Ctrl-C and the terminal's end for the launcher alone: it tells local jobs itself, and they save."""
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGHUP)}
    try:
        submitted: list[Any] = executor.submit_array(jobs)
    except RuntimeError as error:
        raise ValueError(f"the jobs were not accepted: {error}") from error
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return submitted


def _num_at_once(arguments: argparse.Namespace, num_jobs: int) -> int:
    """All on SLURM; on this machine as many as its cores allow, and one if it needs GPUs, which are not shared out."""
    if not arguments.is_local:
        return num_jobs
    return 1 if arguments.gpus_per_job else max(1, (os.cpu_count() or 1) // arguments.cpus_per_job)


def _outcome(job: TrainingJob, error: Exception | None, stopped: bool) -> str:
    """The line of a job that ended, with what it said if it failed."""
    if error is None:
        return f"finished  {job.run_dir}  {_final_returns(job.run_dir)}"
    name = f"{JobFailed.__module__}.{JobFailed.__qualname__}: "
    _, found, reason = str(error).partition(name)  # submitit has the traceback as text
    reason = reason.partition("\n----")[0].strip() if found else str(error).partition("\n")[0]
    return f"{'stopped ' if stopped else 'failed  '}  {job.run_dir}  {reason}"


def _final_returns(run_dir: Path) -> str:
    try:
        outcomes = json.loads((run_dir / "summary.json").read_text())["seeds"]
        finals = {seed: outcome["final"] for seed, outcome in outcomes.items()}
    except (OSError, ValueError, KeyError, TypeError):
        return "no summary.json"
    return "  ".join(f"seed {seed}: final return {final['return_mean']:.1f}" for seed, final in finals.items() if final)


def _executor(arguments: argparse.Namespace) -> Any:
    try:
        import submitit
    except ImportError as error:
        raise ValueError("a sweep needs the extra 'sweep': pip install -e '.[sweep]'") from error
    folder, gpus = arguments.sweep_dir / "jobs", arguments.gpus_per_job
    if arguments.is_local:
        local = submitit.LocalExecutor(folder, max_num_timeout=MAX_TIMEOUTS)
        local.update_parameters(
            timeout_min=arguments.timeout_minutes, signal_delay_s=arguments.save_seconds, gpus_per_node=gpus
        )
        return local
    try:
        slurm = submitit.SlurmExecutor(folder, max_num_timeout=MAX_TIMEOUTS)
    except RuntimeError as error:
        raise ValueError(f"--executor=slurm needs SLURM's commands on this machine: {error}") from error
    optional = {
        "partition": arguments.slurm_partition,
        "account": arguments.slurm_account,
        "qos": arguments.slurm_qos,
        "mem": f"{arguments.memory_gb_per_job}GB" if arguments.memory_gb_per_job else None,
        "gpus_per_node": gpus or None,
    }
    slurm.update_parameters(
        job_name=f"mbpo_jax.{arguments.sweep_dir.name}",
        time=arguments.timeout_minutes,
        signal_delay_s=arguments.save_seconds,
        cpus_per_task=arguments.cpus_per_job,
        additional_parameters={"requeue": True},  # also where the cluster's default is not to
        srun_args=[f"--cpus-per-task={arguments.cpus_per_job}"],  # since SLURM 22.05 srun does not take sbatch's
        **{name: value for name, value in optional.items() if value is not None},
    )
    return slurm
