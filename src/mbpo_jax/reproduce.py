"""From flagfiles and seeds to the table that sets our runs beside the published ones.

`python -m mbpo_jax.reproduce --flagfiles=A,B --seeds=0,1 --report_dir=DIR --sweep_dir=RUNS [-- --flag=value ...]`

Runs what is missing, as `python -m mbpo_jax.sweep` with the same flags would, keeps every curve in
`DIR/curves/<flagfile>/seed_<seed>.json`, and writes `NAME.md`, `NAME.json` and `NAME.png` there, NAME being
--report_name, so that several reports can share their curves. A seed whose curve reaches num_steps is not run again.
With --report_only nothing is run, and the curves in DIR are enough. Curves of other flags than those that are asked for
are refused.
"""

import argparse
import dataclasses
import json
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any, NamedTuple

from mbpo_jax import options, sweep
from mbpo_jax.driver import flags, launcher
from mbpo_jax.driver.command import Parser, exit_status, failed, positive
from mbpo_jax.driver.config import RESUMABLE_CHANGES, RunConfig, StorageFailure
from mbpo_jax.driver.storage import files, run_directory
from mbpo_jax.reports import comparison, comparison_figure, comparison_text, learning_curves, published
from mbpo_jax.reports.comparison import Experiment
from mbpo_jax.reports.learning_curves import LearningCurve

NOT_OF_A_CURVE = RESUMABLE_CHANGES | {"algorithm", "env", "seeds", "num_processes"}
"""Knobs that do not say which curve it is, or have a place of their own in it."""

OF_A_REPORT = ("flagfile", "flagfiles", "seeds", "report_dir", "report_name", "last_step")
"""Flags that say what is reported; the others say how it is run."""


class Wanted(NamedTuple):
    """What a flagfile asks for."""

    flagfile: Path
    run: RunConfig
    algorithm_config: Any

    @property
    def flags(self) -> dict[str, Any]:
        """Full path of a knob -> value, as the curves have them."""
        return _of_a_curve(run_directory.identity(self.run, self.algorithm_config))

    @property
    def default_flags(self) -> dict[str, Any]:
        """What a curve has been made with where its file does not know a knob: it is older than that knob."""
        return _of_a_curve(run_directory.default_identity(self.run, self.algorithm_config))


def main(argv: list[str] | None = None) -> int:
    """Runs what is missing and reports; returns the exit status.

    0 done, 1 some jobs failed (the report has what there is), 2 wrong flags or damaged files, 3 stopped, 6 files
    failed.
    """
    given = sys.argv[1:] if argv is None else argv
    try:
        arguments, added = sweep.parse(given, _parser())
        if arguments.sweep_dir is None and not arguments.report_only:
            raise ValueError("--sweep_dir must be the directory of the runs, got none; only --report_only needs none")
        wanted = [_wanted(flagfile, added) for flagfile in arguments.flagfiles]
        _check_writable(arguments.report_dir)
        status = 0 if arguments.report_only else _run_missing(arguments, added, wanted)
        experiments = [_collect(arguments, one) for one in wanted]
        if arguments.report_only and not any(experiment.curves for experiment in experiments):
            places = " or ".join(str(path) for path in (arguments.sweep_dir, arguments.report_dir) if path)
            raise ValueError(f"--report_only needs curves, and there are none of these flagfiles and seeds in {places}")
        print(_write_report(arguments, experiments, _command(given)))
        return status
    except (ValueError, OSError) as error:
        return failed(error)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m mbpo_jax.reproduce",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    sweep.add_flags(parser, sweep_dir_required=False)
    parser.add_argument("--report_dir", required=True, type=Path, help="Directory of the report and its curves.")
    parser.add_argument(
        "--report_name", type=_file_stem, default="report", help="Name of the report's files. Default: report."
    )
    parser.add_argument(
        "--last_step",
        type=positive,
        help="Report evaluations up to this environment step only, to compare experiments that ran differently far.",
    )
    parser.add_argument("--report_only", action="store_true", help="Run nothing.")
    return parser


def _file_stem(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", text):
        raise argparse.ArgumentTypeError(f"must be letters, digits, _ and -, got {text!r}")
    return text


def _wanted(flagfile: Path, added: list[str]) -> Wanted:
    try:
        return Wanted(flagfile, *flags.parse([f"--flagfile={flagfile}", *added]))
    except ValueError as error:
        raise ValueError(f"{flagfile}: {error}") from error


def _run_missing(arguments: argparse.Namespace, added: list[str], wanted: list[Wanted]) -> int:
    """Runs, or continues, the jobs of seeds whose curves do not reach num_steps; returns the sweep's status."""
    of_flagfile = {one.flagfile: one for one in wanted}
    missing = []
    for task in sweep.tasks(arguments):
        one = of_flagfile[task.flagfile]
        _check_same_run(one, task, added)
        if not _is_complete(arguments, one, task):
            missing.append(sweep.training_job(arguments, task, added))
    return launcher.launch(arguments, missing) if missing else 0


def _is_complete(arguments: argparse.Namespace, one: Wanted, task: sweep.Task) -> bool:
    """Whether every curve of a task reaches num_steps, and its run, if that is where they come from, has ended well."""
    try:
        ran = [learning_curves.read_run(task.run_dir, one.flagfile.stem, seed) for seed in task.seeds]
        ended = learning_curves.step_of_summary(task.run_dir)
    except ValueError:  # damaged; the run mends what it can, and if it cannot, says so
        return False
    curves = [_curve(arguments, one, seed, task.run_dir) for seed in task.seeds]
    if any(curve is None or curve.last_step < one.run.num_steps for curve in curves):
        return False
    reached = any(curve is not None and curve.last_step >= one.run.num_steps for curve in ran)
    return not reached or ended >= one.run.num_steps


def _check_writable(report_dir: Path) -> None:
    """Makes the directory of the report, before anything is trained for it.

    Raises:
      ValueError: it cannot be made or written to.
    """
    try:
        report_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--report_dir must be a directory that can be made: {error}") from error
    if not os.access(report_dir, os.W_OK):
        raise ValueError(f"--report_dir must be a directory that can be written to, got '{report_dir}'")


def _check_same_run(one: Wanted, task: sweep.Task, added: list[str]) -> None:
    """Refuses to report a run with other flags as if it were the one that is asked for.

    Raises:
      ValueError: names the flags that differ.
    """
    try:
        saved = run_directory.read_config(task.run_dir)
    except StorageFailure:  # no run yet, or one of an older version; if it has to go on, it says what is wrong
        return
    run, config = flags.parse(
        [f"--flagfile={one.flagfile}", *added, f"--seeds={','.join(map(str, task.seeds))}", f"--run_dir={task.run_dir}"]
    )
    run_directory.check_same(saved, run, config)


def _collect(arguments: argparse.Namespace, one: Wanted) -> Experiment:
    """The curves of an experiment, kept whole in the report's directory; of them what is reported."""
    run_dirs = {}
    if arguments.sweep_dir is not None:
        tasks = (task for task in sweep.tasks(arguments) if task.flagfile == one.flagfile)
        run_dirs = {seed: task.run_dir for task in tasks for seed in task.seeds}
    curves = {seed: _curve(arguments, one, seed, run_dirs.get(seed)) for seed in arguments.seeds}
    for seed, curve in curves.items():
        if curve is not None:
            learning_curves.save(learning_curves.path_of(arguments.report_dir, one.flagfile.stem, seed), curve)
    if arguments.last_step is not None:
        curves = {seed: curve and learning_curves.until(curve, arguments.last_step) for seed, curve in curves.items()}
    found = tuple(curve for _, curve in sorted(curves.items()) if curve is not None)
    missing = tuple(seed for seed, curve in sorted(curves.items()) if curve is None)
    return Experiment(
        one.flagfile.stem,
        str(one.flagfile),
        one.run.algorithm,
        one.run.env,
        found,
        missing,
        published.is_published_mbpo(one.run.algorithm, one.run.env, one.flags),
        arguments.last_step,
    )


def _curve(arguments: argparse.Namespace, one: Wanted, seed: int, run_dir: Path | None) -> LearningCurve | None:
    """A seed's curve, from its run or its file.

    Raises:
      ValueError: one of them is damaged, or is not of what the flagfile asks for.
    """
    path = learning_curves.path_of(arguments.report_dir, one.flagfile.stem, seed)
    kept = learning_curves.load_kept(path, one.flagfile.stem, seed)
    ran = None if run_dir is None else learning_curves.read_run(run_dir, one.flagfile.stem, seed)
    if ran is not None and ran.flags is not None:
        ran = dataclasses.replace(ran, flags=_of_a_curve(ran.flags))
    for curve, place in ((ran, run_dir), (kept, path)):
        if curve is not None:
            _check_asked_for(curve, f"{place}", one)
    return learning_curves.longer(kept, ran)


def _check_asked_for(curve: LearningCurve, place: str, one: Wanted) -> None:
    """Refuses a curve of another algorithm, environment or flags; one whose flags were not recorded is believed.

    Raises:
      ValueError: names the place, and each knob with its old and new value.
    """
    if (curve.algorithm, curve.env) != (one.run.algorithm, one.run.env):
        raise ValueError(
            f"{place} holds {curve.algorithm} on {curve.env}, but {one.flagfile} asks for {one.run.algorithm} on "
            f"{one.run.env}"
        )
    if curve.flags is None:
        return
    known = options.with_paths(curve.flags, one.flags)
    differ = options.differences(one.default_flags | known, one.flags)
    if differ:
        raise ValueError(
            f"{place} was made with other flags than {one.flagfile} and what follows -- ask for: "
            f"{'; '.join(differ.values())}. Give the old values, or other directories to start anew"
        )


def _of_a_curve(knobs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in knobs.items() if name not in NOT_OF_A_CURVE}


def _write_report(arguments: argparse.Namespace, experiments: list[Experiment], command: str) -> Path:
    """Writes picture, numbers and text; returns the path of the text."""
    paths = {suffix: arguments.report_dir / f"{arguments.report_name}.{suffix}" for suffix in ("png", "json", "md")}
    comparison_figure.draw(experiments, paths["png"])
    numbers = json.dumps(comparison.to_json(experiments), indent=1, allow_nan=False) + "\n"
    files.write_whole(paths["json"], lambda file: file.write(numbers.encode()))
    text = comparison_text.report(experiments, command, paths["png"].name)
    files.write_whole(paths["md"], lambda file: file.write(text.encode()))
    return paths["md"]


def _command(given: list[str]) -> str:
    """What makes the report again from the curves beside it: the flags as they were given, but those of launching."""
    split = given.index("--") if "--" in given else len(given)
    words, kept = [], False
    for word in given[:split]:
        if word.startswith("-"):  # anything else is the value of the flag before it
            kept = word.lstrip("-").partition("=")[0] in OF_A_REPORT
        if kept:
            words.append(word)
    return f"python -m mbpo_jax.reproduce {shlex.join([*words, '--report_only', *given[split:]])}"


if __name__ == "__main__":
    sys.exit(exit_status(main))
