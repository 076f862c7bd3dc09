"""Trains agents, or continues a run: `python -m mbpo_jax.main --flagfile=experiments/halfcheetah.flags`."""

import sys
import time
from typing import TYPE_CHECKING

from mbpo_jax.driver.stop import EXIT_STOPPED, StopRequest
from mbpo_jax.launch import process_exit
from mbpo_jax.launch.command import check_output, complain, exit_status, report_error, say
from mbpo_jax.number_text import short

if TYPE_CHECKING:
    from mbpo_jax.driver.loop import Result


def main(argv: list[str] | None = None) -> int:
    """Parses the flags, trains, and prints a summary; returns the exit status.

    0 done, 2 wrong flags, 3 stopped on request, 4 diverged, 5 the environment failed, 6 a file could not be read or
    written.
    """
    try:
        with StopRequest() as stop:
            return _main(sys.argv[1:] if argv is None else argv, stop)
    except KeyboardInterrupt:
        complain("mbpo_jax: stopped before training began; the same command starts or continues it")
        return EXIT_STOPPED


def _main(argv: list[str], stop: StopRequest) -> int:
    if not any(flag.lstrip("-").split("=")[0] in ("help", "h", "quiet") for flag in argv):
        complain("mbpo_jax: starting")
    try:
        from mbpo_jax.launch import help_text

        stop.raise_if_stopped()
        if help_text.is_asked(argv):
            say(help_text.answer(argv))
            return 0
        from mbpo_jax.launch import processes  # noqa: F401  (imports the rest)
    except (ValueError, OSError) as error:  # from jax, if it cannot read a variable JAX_...; from files
        return report_error(error)
    from mbpo_jax.driver.config import Diverged, EnvironmentFailure, StorageFailure
    from mbpo_jax.launch import flags

    stop.raise_if_stopped()
    try:
        return _run(argv)
    except (ValueError, Diverged, EnvironmentFailure, StorageFailure, OSError) as error:
        return report_error(error, flags.define())


def _run(argv: list[str]) -> int:
    from mbpo_jax.launch import flags, processes

    run, algorithm_config, notes = flags.parse_with_notes(argv)
    for note in notes:
        complain(f"mbpo_jax: {note}")
    if not run.quiet:
        check_output()
    began = time.monotonic()
    result = processes.train(run, algorithm_config)
    if not run.quiet:
        say(summary_text(result, time.monotonic() - began))
    if not result.finished:
        complain("mbpo_jax: stopped and saved; run the same command again to continue")
        return EXIT_STOPPED
    return 0


def summary_text(result: "Result", seconds: float) -> str:
    """Returns the lines that a run prints at its end: the returns of each seed, and the time of each phase."""
    from mbpo_jax.reports import unevaluated

    summary = result.summary
    steps = f"{summary['step']:,} of {summary['num_steps']:,} steps per seed"
    lines = [f"{summary['algorithm']} on {summary['env']}: {steps}"]
    for seed, outcome in summary["seeds"].items():
        if outcome["final"]:
            final, best = outcome["final"], outcome["best"]
            lines.append(
                f"  seed {seed}: final return {short(final['return_mean'])}; best {short(best['return_mean'])} "
                f"at step {best['step']:,}"
            )
        elif outcome.get("last"):
            lines.append(f"  seed {seed}: {unevaluated.in_words(outcome['last'])}")
    rate = f"{summary['env_steps_per_second']:.1f} steps/s per seed"
    lines.append(f"  {rate}, {seconds:.0f} s in this call")
    for name, value in sorted(summary["seconds_per_phase"].items(), key=lambda item: -item[1]):
        lines.append(f"    {name:13} {value:8.1f} s")
    return "\n".join([*lines, f"  {_saved_text(result)}"])


def _saved_text(result: "Result") -> str:
    """Returns a line that names the files that the run left behind; names only files that exist."""
    if any(outcome["final"] for outcome in result.summary["seeds"].values()):
        return f"curve {result.run_dir / 'curves.png'}, policies {result.run_dir / 'policies'}"
    shown = ["curves.png"] * any(outcome.get("last") for outcome in result.summary["seeds"].values())
    left = [result.run_dir / name for name in (*shown, "policies", "checkpoints")]
    there = ", ".join(f"{path.stem} {path}" for path in left if path.exists())
    return f"not evaluated; {there}" if there else "nothing was saved yet"


if __name__ == "__main__":
    sys.exit(process_exit.in_time(exit_status(main)))
