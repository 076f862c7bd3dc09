"""The command: `python -m mbpo_jax.main --flagfile=experiments/halfcheetah.flags`."""

import os
import signal
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import Self

EXIT_STOPPED, EXIT_DIVERGED, EXIT_ENVIRONMENT, EXIT_STORAGE, EXIT_USAGE = 3, 4, 5, 6, 2


def main(argv: list[str] | None = None) -> int:
    """Parses flags, trains, prints a summary; returns the exit status.

    0 done, 2 wrong flags, 3 stopped on request, 4 diverged, 5 the environment failed, 6 files failed.
    """
    with _Interruption() as interruption:
        try:
            return _main(sys.argv[1:] if argv is None else argv, interruption)
        except BaseException as error:  # before training listens for signals
            if not (interruption.asked or isinstance(error, KeyboardInterrupt)):
                raise
            print(
                "mbpo_jax: stopped before training began; the same command starts or continues it",
                file=sys.stderr,
            )
            return EXIT_STOPPED


class _Interruption:
    """A context in which SIGINT and SIGTERM end what runs; the second ends the process at once.

    They are heeded once everything is imported: some extensions crash where an exception passes through their
    beginning. Even later it may arrive as another one, so `asked` says what happened. And it is no KeyboardInterrupt:
    one that passes through code from a string, as in making a dataclass, has Python end its process with SIGINT, caught
    or not. Training takes the signals over meanwhile.
    """

    def __init__(self) -> None:
        self.asked, self._deferred = False, True
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # only there can handlers be set
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """The handler."""
        del frame
        self.asked = True
        signal.signal(number, signal.SIG_DFL)
        if not self._deferred:
            raise SystemExit(EXIT_STOPPED)

    def heed(self) -> None:
        """Ends what runs if that was asked for, and from now on as soon as it is."""
        self._deferred = False
        if self.asked:
            raise SystemExit(EXIT_STOPPED)


def _main(argv: list[str], interruption: _Interruption) -> int:
    os.environ.setdefault("MUJOCO_GL", "egl")
    if not any(flag.lstrip("-").split("=")[0] in ("help", "h", "quiet") for flag in argv):
        print("mbpo_jax: starting", file=sys.stderr, flush=True)
    from mbpo_jax.driver import flags

    if any(flag in ("--help", "-help", "--h", "-h") for flag in argv):
        print(flags.help_text())
        return 0
    from mbpo_jax.driver import processes  # noqa: F401  (imports the rest)
    from mbpo_jax.driver.config import Diverged, EnvironmentFailure, StorageFailure

    interruption.heed()
    try:
        return _run(argv)
    except (ValueError, Diverged, EnvironmentFailure, StorageFailure, OSError) as error:
        if interruption.asked:
            raise
        text = str(error)
        if trace := getattr(error, "environment_traceback", None):  # that of the process it ran in
            print(trace.rstrip(), file=sys.stderr)
            text = text.partition("\n")[0]  # the rest is the traceback again
        statuses = {ValueError: EXIT_USAGE, Diverged: EXIT_DIVERGED, EnvironmentFailure: EXIT_ENVIRONMENT}
        status = next((status for kind, status in statuses.items() if isinstance(error, kind)), EXIT_STORAGE)
        print(f"mbpo_jax: error: {' '.join(text.split())}", file=sys.stderr)
        return status


def _run(argv: list[str]) -> int:
    from mbpo_jax.driver import flags, processes

    run, algorithm_config = flags.parse(argv)
    began = time.monotonic()
    result = processes.train(run, algorithm_config)
    if not run.quiet:
        print(summary_text(result, time.monotonic() - began))
    if not result.finished:
        print("mbpo_jax: stopped and saved; the same command continues", file=sys.stderr)
        return EXIT_STOPPED
    return 0


def summary_text(result, seconds: float) -> str:  # type: ignore[no-untyped-def]
    """What a run prints at its end."""
    summary = result.summary
    steps = f"{summary['step']:,} of {summary['num_steps']:,} steps per seed"
    lines = [f"{summary['algorithm']} on {summary['env']}: {steps}"]
    for seed, outcome in summary["seeds"].items():
        if outcome["final"]:
            final, best = outcome["final"], outcome["best"]
            lines.append(
                f"  seed {seed}: final return {final['return_mean']:.1f}; best {best['return_mean']:.1f} "
                f"at step {best['step']:,}"
            )
    rate = f"{summary['env_steps_per_second']:.1f} env steps/s per seed"
    lines.append(f"  {rate}, {seconds:.0f} s in this call")
    for name, value in sorted(summary["seconds_per_phase"].items(), key=lambda item: -item[1]):
        lines.append(f"    {name:13} {value:8.1f} s")
    lines.append(f"  curve {result.run_dir / 'curves.png'}, policies {result.run_dir / 'policies'}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
