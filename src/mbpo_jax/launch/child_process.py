"""Starts and stops a command line, in a process whose signal handlers may need to wait for that command."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

POLL_SECONDS = 0.1
PREEMPTION = getattr(signal, "SIG" + os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2"))  # the name as submitit reads it


class ChildProcess:
    """A running command. No method takes a lock, so a signal handler may `wait` while it interrupts another `wait`.

    (`Popen.wait` takes a lock: a handler that called it inside an interrupted call would wait forever.)
    """

    def __init__(self, command: Sequence[str], log: IO[str]) -> None:
        # In a session of its own, so that Ctrl-C in a terminal reaches it only through `stop`.
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        self._status: int | None = None
        self._stopping = False
        threading.Thread(target=self._follow, daemon=True).start()

    def wait(self, seconds: float) -> int | None:
        """Returns the exit status as soon as there is one; None after `seconds`."""
        deadline = time.monotonic() + seconds
        while self._status is None and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        return self._status

    def stop(self) -> None:
        """Asks the command, once, to save and exit.

        It sends SIGINT: schedulers send SIGTERM to every process of a job, and a second signal of the same kind ends a
        run at once.
        """
        if not self._stopping:
            self._stopping = True
            self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """Ends the command without letting it save."""
        self._process.kill()

    def _follow(self) -> None:
        self._status = self._process.wait()


@contextlib.contextmanager
def deferred(*numbers: signal.Signals) -> Iterator[None]:
    """Defers signals to the end of the block; a process started in it ignores PREEMPTION, which would kill it."""
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
    """Returns the last five lines of the part of a log after `offset` bytes."""
    with log.open(errors="replace") as file:
        file.seek(offset)
        return "\n".join(line.rstrip() for line in file.readlines()[-5:])
