"""Launches the runs of a reproduction that no curve covers yet."""

import argparse

from mbpo_jax.launch import kept_curves, launcher, sweep_jobs
from mbpo_jax.launch.requested_run import RequestedRun, check_run
from mbpo_jax.reports import learning_curves


def launch(arguments: argparse.Namespace, added: list[str], requests: list[RequestedRun]) -> int:
    """Runs or continues the jobs of seeds whose curves do not reach num_steps; returns the sweep's exit status.

    Raises:
      ValueError: a run directory or a curve is damaged, or has flags other than those requested.
    """
    request_of = {request.flagfile: request for request in requests}
    jobs = []
    for task in sweep_jobs.tasks(arguments):
        request = request_of[task.flagfile]
        check_run(request, task, added)
        if not _is_complete(arguments, request, task):
            jobs.append(sweep_jobs.training_job(arguments, task, added))
    return launcher.launch(arguments, jobs) if jobs else 0


def _is_complete(arguments: argparse.Namespace, requested: RequestedRun, task: sweep_jobs.Task) -> bool:
    """Returns whether every curve of a task reaches num_steps; a run that reached it must also have finished."""
    flagfile, num_steps = requested.flagfile, requested.run.num_steps
    try:
        run_curves = [learning_curves.read_run(task.run_dir, flagfile.stem, seed) for seed in task.seeds]
        ended = learning_curves.step_of_summary(task.run_dir)
    except ValueError:  # damaged; the run repairs what it can, and otherwise says so
        return False
    curves = [kept_curves.longest(arguments, requested, seed, task.run_dir) for seed in task.seeds]
    if any(curve is None or curve.last_step < num_steps for curve in curves):
        return False
    run_reached = any(curve is not None and curve.last_step >= num_steps for curve in run_curves)
    return not run_reached or ended >= num_steps
