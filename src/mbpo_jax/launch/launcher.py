"""Submits training jobs, waits for them, and prints how each ended."""

import argparse
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from mbpo_jax.driver.stop import EXIT_STOPPED, StopRequest
from mbpo_jax.launch import executors
from mbpo_jax.launch.child_process import POLL_SECONDS
from mbpo_jax.launch.command import check_output, complain, say
from mbpo_jax.launch.job import JobFailed, TrainingJob
from mbpo_jax.number_text import short

EXIT_FAILED = 1
SLURM_POLL_SECONDS = 1.0


def launch(arguments: argparse.Namespace, jobs: list[TrainingJob]) -> int:
    """Submits jobs, waits for them, and prints a line as each ends; returns the exit status.

    0 all finished (or, with --detach, were submitted), 1 some failed, 3 stopped.

    Args:
      arguments: the flags of a sweep.
    Raises:
      ValueError: the executor is not installed, or refuses the jobs.
      OSError: nothing can be printed.
    """
    check_output()
    executor = executors.build(arguments)
    if arguments.detach:
        for job, submitted in zip(jobs, _submit(executor, jobs), strict=True):
            say(f"submitted  {job.run_dir}  job {submitted.job_id}")
        return 0
    with StopRequest() as stop:
        return _run(arguments, executor, jobs, stop)


def _run(arguments: argparse.Namespace, executor: Any, jobs: list[TrainingJob], stop: StopRequest) -> int:
    """Keeps as many jobs running as may run at once, until all have ended or a stop is requested."""
    waiting, num_finished = list(jobs), 0
    running: list[tuple[TrainingJob, Any]] = []
    width = executors.num_at_once(arguments, len(jobs))
    while waiting or running:
        if stop.requested:
            if not arguments.is_local:
                complain("mbpo_jax: submitted jobs continue; scancel ends them")
                return EXIT_STOPPED
            waiting = []
            for _, submitted in running:  # repeatedly: a job that has just begun does not handle the signal yet
                os.kill(int(submitted.job_id), signal.SIGTERM)
        num_free = width - len(running)
        batch, waiting = waiting[:num_free], waiting[num_free:]
        if batch:
            running += zip(batch, _submit(executor, batch), strict=True)
        before, running = running, []
        for job, submitted in before:
            if not submitted.done():
                running.append((job, submitted))
                continue
            error = submitted.exception()
            num_finished += error is None
            say(_outcome(job, error, stop.requested))
        time.sleep(POLL_SECONDS if arguments.is_local else SLURM_POLL_SECONDS)
    complain(f"mbpo_jax: {num_finished} of {len(jobs)} jobs finished")
    if num_finished == len(jobs):
        return 0
    return EXIT_STOPPED if stop.requested else EXIT_FAILED


def _submit(executor: Any, jobs: list[TrainingJob]) -> list[Any]:
    """Submits jobs that ignore Ctrl-C and a closing terminal: the launcher passes a stop on, so that they save."""
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGHUP)}
    try:
        submitted: list[Any] = executor.submit_array(jobs)
    except RuntimeError as error:
        raise ValueError(f"the jobs were not accepted: {error}") from error
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return submitted


def _outcome(job: TrainingJob, error: Exception | None, stopped: bool) -> str:
    """Returns the line for a job that has ended: its final returns, or why it failed."""
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
    returns = [f"seed {seed}: final return {short(final['return_mean'])}" for seed, final in finals.items() if final]
    return "  ".join(returns) or "not evaluated"
