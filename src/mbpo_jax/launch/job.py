"""A job of a sweep: one command line, run to its end through stops and preemptions; for `mbpo_jax.sweep`."""

import contextlib
import dataclasses
import fcntl
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from mbpo_jax.driver.stop import EXIT_STOPPED

STOPPED = (EXIT_STOPPED, -signal.SIGINT, -signal.SIGTERM)  # the latter two: before it had begun to listen
MAX_RESTARTS = 3  # of a command that was stopped by something other than the scheduler
POLL_SECONDS = 0.1
PREEMPTION = getattr(signal, "SIG" + os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2"))  # the name as submitit reads it


class JobFailed(RuntimeError):
    """A command did not reach its end; the message has its exit status and the last lines that it printed."""


@dataclasses.dataclass
class TrainingJob:
    """Runs one command line to its end; submitit calls it, and its `checkpoint`, in the process of a job."""

    command: tuple[str, ...]
    run_dir: Path
    log: Path  # what the command prints; locked as long as the command runs
    save_seconds: int  # between the scheduler's signal and the end
    is_local: bool
    _child: "_Child | None" = dataclasses.field(default=None, init=False, repr=False)
    _cancelled: bool = dataclasses.field(default=False, init=False, repr=False)

    def __call__(self) -> None:
        """Runs the command, again after a stop that nobody here asked for.

        Raises:
          JobFailed: it ended with another status than 0, or was stopped too often.
        """
        # A function, since what is ignored here would be ignored by the command too.
        signal.signal(signal.SIGINT, lambda number, frame: None)
        signal.signal(signal.SIGTERM, self._on_sigterm)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("a") as log:
            self._lock(log)
            for _ in range(1 + MAX_RESTARTS):
                began = log.seek(0, os.SEEK_END)
                status = EXIT_STOPPED if self._cancelled else self._run(log)
                if status == 0:
                    return
                if status not in STOPPED:
                    break
                if self._cancelled:
                    raise JobFailed("stopped; the same command continues")
        raise JobFailed(f"exit status {status}; the last lines of {self.log}:\n{last_lines(self.log, began)}")

    def checkpoint(self) -> Any:
        """What submitit calls on preemption and before the time limit: stops the command and has the job requeued.

        A command that does not save in time is killed, and continues from the checkpoint before.
        """
        from submitit.helpers import DelayedSubmission

        if self._child is not None:
            self._child.stop()
            if self._child.wait(0.75 * self.save_seconds) is None:
                self._child.kill()
        return DelayedSubmission(dataclasses.replace(self))  # without the child, which cannot be pickled

    def _run(self, log: IO[str]) -> int:
        with _held(signal.SIGTERM, PREEMPTION):  # no moment at which the command runs and cannot be stopped
            self._child = _Child(self.command, log)
        status = self._child.wait(math.inf)
        assert status is not None
        return status

    def _on_sigterm(self, number: int, frame: Any) -> None:
        """SLURM sends it where preemption is imminent, the launcher to end a local job."""
        self._cancelled = self.is_local
        if self._child is not None:
            self._child.stop()

    def _lock(self, log: IO[str]) -> None:
        """Two commands in one run directory would spoil it; the lock is held by what inherits the open file."""
        deadline = time.monotonic() + self.save_seconds  # a job that ends is still saving
        while True:
            try:
                return fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if self._cancelled or time.monotonic() > deadline:
                    raise JobFailed(f"another job is running in {self.run_dir}") from None
            except OSError as error:  # some network file systems have none
                print(f"mbpo_jax: {self.log} cannot be locked ({error}); start no other sweep here", file=sys.stderr)
                return None
            time.sleep(POLL_SECONDS)


class _Child:
    """A command that runs, and that a signal handler can wait for in the middle of another wait: no lock is taken.

    (`Popen.wait` takes one, so that a handler which calls it inside an interrupted call waits for ever.)
    """

    def __init__(self, command: Sequence[str], log: IO[str]) -> None:
        # In a session of its own, so that Ctrl-C in a terminal does not reach it besides `stop`.
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        self._status: int | None = None
        self._stopping = False
        threading.Thread(target=self._follow, daemon=True).start()

    def wait(self, seconds: float) -> int | None:
        """The exit status, as soon as there is one; None if there is none in time."""
        deadline = time.monotonic() + seconds
        while self._status is None and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        return self._status

    def stop(self) -> None:
        """Asks it, once, to save and exit.

        With SIGINT, since schedulers send SIGTERM to all processes of a job, and the second signal of a number ends
        a run at once.
        """
        if not self._stopping:
            self._stopping = True
            self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """Ends it as it is."""
        self._process.kill()

    def _follow(self) -> None:
        self._status = self._process.wait()


@contextlib.contextmanager
def _held(*numbers: signal.Signals) -> Iterator[None]:
    """Delivers signals at the end of a block; a process that begins in it ignores PREEMPTION, which would kill it."""
    late: list[int] = []
    handlers = {number: signal.signal(number, lambda number, frame: late.append(number)) for number in numbers}
    signal.pthread_sigmask(signal.SIG_BLOCK, [PREEMPTION])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [PREEMPTION])
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for late_number in late:
            signal.raise_signal(late_number)


def last_lines(log: Path, offset: int) -> str:
    """The last five lines of a log that begin after `offset` bytes."""
    with log.open(errors="replace") as file:
        file.seek(offset)
        return "\n".join(line.rstrip() for line in file.readlines()[-5:])
