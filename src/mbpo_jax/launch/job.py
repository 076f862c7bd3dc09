"""Runs one job of a sweep: a command line, to its end, across stops and preemptions."""

import dataclasses
import fcntl
import math
import os
import signal
import sys
import time
from pathlib import Path
from typing import IO, Any

from mbpo_jax.driver.stop import EXIT_STOPPED
from mbpo_jax.launch.child_process import POLL_SECONDS, PREEMPTION, ChildProcess, deferred, last_lines

STOPPED = (EXIT_STOPPED, -signal.SIGINT, -signal.SIGTERM)  # the latter two: before the command handled signals
MAX_RESTARTS = 3  # of a command that was stopped by something other than the scheduler


class JobFailed(RuntimeError):
    """A command did not finish; the message has its exit status and the last lines that it printed."""


@dataclasses.dataclass
class TrainingJob:
    """Runs one command line to its end; submitit calls it, and its `checkpoint`, in the process of a job."""

    command: tuple[str, ...]
    run_dir: Path
    log: Path  # what the command prints; locked while the command runs
    save_seconds: int  # between the scheduler's signal and the end
    is_local: bool
    _child: ChildProcess | None = dataclasses.field(default=None, init=False, repr=False)
    _cancelled: bool = dataclasses.field(default=False, init=False, repr=False)

    def __call__(self) -> None:
        """Runs the command, and restarts it after a stop that was not requested through this job.

        Raises:
          JobFailed: it ended with a status other than 0, or was stopped too often.
        """
        # Not SIG_IGN: the command would inherit it.
        signal.signal(signal.SIGINT, lambda number, frame: None)
        signal.signal(signal.SIGTERM, self._on_sigterm)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("a") as log:
            self._lock(log)
            for _ in range(1 + MAX_RESTARTS):
                start = log.seek(0, os.SEEK_END)
                status = EXIT_STOPPED if self._cancelled else self._run(log)
                if status == 0:
                    return
                if status not in STOPPED:
                    break
                if self._cancelled:
                    raise JobFailed("stopped; run the same command again to continue")
        raise JobFailed(f"exit status {status}; the last lines of {self.log}:\n{last_lines(self.log, start)}")

    def checkpoint(self) -> Any:
        """Stops the command and returns the job to requeue; submitit calls it on preemption and before the time limit.

        A command that does not save in time is killed, and continues from its previous checkpoint.
        """
        from submitit.helpers import DelayedSubmission

        if self._child is not None:
            self._child.stop()
            if self._child.wait(0.75 * self.save_seconds) is None:
                self._child.kill()
        return DelayedSubmission(dataclasses.replace(self))  # without the child, which cannot be pickled

    def _run(self, log: IO[str]) -> int:
        with deferred(signal.SIGTERM, PREEMPTION):  # so that the command never runs without our knowing it
            self._child = ChildProcess(self.command, log)
        status = self._child.wait(math.inf)
        assert status is not None
        return status

    def _on_sigterm(self, number: int, frame: Any) -> None:
        """Stops the command: SLURM announces preemption with SIGTERM, and the launcher ends a local job with it."""
        self._cancelled = self.is_local
        if self._child is not None:
            self._child.stop()

    def _lock(self, log: IO[str]) -> None:
        """Keeps a second command out of the run directory; any process that inherits the open log holds the lock."""
        deadline = time.monotonic() + self.save_seconds  # a job that is ending may still be saving
        while True:
            try:
                return fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if self._cancelled or time.monotonic() > deadline:
                    raise JobFailed(f"another job is running in {self.run_dir}") from None
            except OSError as error:  # some network file systems have no locks
                print(
                    f"mbpo_jax: {self.log} cannot be locked ({error}); do not start another sweep here", file=sys.stderr
                )
                return None
            time.sleep(POLL_SECONDS)
