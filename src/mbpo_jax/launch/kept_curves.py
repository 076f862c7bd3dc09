"""Collects the curves of a reproduction from its runs and from the report's directory, where curves are kept."""

import argparse
import dataclasses
from pathlib import Path

from mbpo_jax.launch import flagfiles, sweep_jobs
from mbpo_jax.launch.requested_run import RequestedRun, check_curve, curve_flags
from mbpo_jax.reports import learning_curves, published
from mbpo_jax.reports.comparison import Experiment
from mbpo_jax.reports.learning_curves import LearningCurve


def collect(arguments: argparse.Namespace, requested: RequestedRun) -> Experiment:
    """Returns a flagfile's curves up to --last_step, and keeps them, uncut, in the report's directory.

    Raises:
      ValueError: a curve is damaged, or does not belong to the requested run.
    """
    flagfile, run = requested.flagfile, requested.run
    run_dirs = {}
    if arguments.sweep_dir is not None:
        tasks = (task for task in sweep_jobs.tasks(arguments) if task.flagfile == flagfile)
        run_dirs = {seed: task.run_dir for task in tasks for seed in task.seeds}
    curves = {seed: longest(arguments, requested, seed, run_dirs.get(seed)) for seed in sorted(arguments.seeds)}
    for seed, curve in curves.items():
        if curve is not None:
            learning_curves.save(learning_curves.path_of(arguments.report_dir, flagfile.stem, seed), curve)
    if arguments.last_step is not None:
        curves = {seed: curve and learning_curves.until(curve, arguments.last_step) for seed, curve in curves.items()}
    return Experiment(
        name=flagfile.stem,
        flagfile=flagfiles.shown(flagfile),
        algorithm=run.algorithm,
        env=run.env,
        curves=tuple(curve for curve in curves.values() if curve is not None),
        missing_seeds=tuple(seed for seed, curve in curves.items() if curve is None),
        as_published=published.is_published_mbpo(run.algorithm, run.env, requested.flags),
        until_step=arguments.last_step,
        dataset=Path(run.dataset).name,
    )


def longest(
    arguments: argparse.Namespace, requested: RequestedRun, seed: int, run_dir: Path | None
) -> LearningCurve | None:
    """Returns the longer of a seed's curves in its run and in the report's directory; None if there is neither.

    Raises:
      ValueError: one of them is damaged, or does not belong to the requested run.
    """
    experiment = requested.flagfile.stem
    path = learning_curves.path_of(arguments.report_dir, experiment, seed)
    kept = learning_curves.load_kept(path, experiment, seed)
    run_curve = None if run_dir is None else learning_curves.read_run(run_dir, experiment, seed)
    if run_curve is not None and run_curve.flags is not None:
        run_curve = dataclasses.replace(run_curve, flags=curve_flags(run_curve.flags))
    for curve, place in ((run_curve, run_dir), (kept, path)):
        if curve is not None:
            check_curve(curve, f"{place}", requested)
    return learning_curves.longer(kept, run_curve)
