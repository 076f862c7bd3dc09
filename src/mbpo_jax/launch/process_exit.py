"""Ends a command, even if an environment has left threads or processes behind.

At exit, Python waits for the threads and the `multiprocessing` processes that somebody started, forever if they do not
end themselves. It leaves other processes alone, and so do we: they may be meant to go on.
"""

import functools
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from mbpo_jax.launch.command import complain, exit_status, run

GRACE_S = 3.0  # for what ends by itself
MOMENT_S = 1.0  # for other processes, which hold nothing up


def run_as_process(module: str) -> NoReturn:
    """Runs a command and exits with its status: what `python -m mbpo_jax.MODULE` does before it imports the rest."""
    sys.exit(in_time(exit_status(functools.partial(run, module))))


def in_time(status: int) -> int:
    """Returns the exit status of a command; if an environment still holds the process up after GRACE_S, ends it.

    To be called last in a process.
    """
    _report_remaining_processes()
    threading.Thread(target=_end_late, args=(status,), name="end_in_time", daemon=True).start()
    return status


def _end_late(status: int) -> None:
    time.sleep(GRACE_S)
    multiprocessing = sys.modules.get("multiprocessing")  # not imported here: only an environment may have
    children = multiprocessing.active_children() if multiprocessing else []
    threads = [one for one in threading.enumerate() if not one.daemon and one is not threading.main_thread()]
    if not children and not threads:  # Python is ending by itself, if slowly
        return
    names = [f"process {child.pid}" for child in children] + [f"thread {thread.name}" for thread in threads]
    complain(f"mbpo_jax: ending what the environment left running: {', '.join(names)}")
    for child in children:
        with suppress(OSError):
            os.kill(child.pid, signal.SIGKILL)
    os._exit(status)


def _report_remaining_processes() -> None:
    """Names processes that were started and keep running; a reader of our output through a pipe waits for them, too."""
    until = time.monotonic() + MOMENT_S
    while (staying := _other_children()) and time.monotonic() < until:
        time.sleep(0.05)
    if staying:
        names = ", ".join(f"process {number} ({command})" for number, command in sorted(staying.items()))
        complain(
            f"mbpo_jax: exiting; these processes were started meanwhile and keep running, and may keep our output "
            f"open: {names}"
        )


def _other_children() -> dict[int, str]:
    """Returns our child processes not from `multiprocessing`, with their commands; none where there is no /proc."""
    multiprocessing, found = sys.modules.get("multiprocessing"), {}
    known = {child.pid for child in multiprocessing.active_children()} if multiprocessing else set()
    with suppress(OSError):
        for path in Path("/proc/self/task").glob("*/children"):
            for number in map(int, path.read_text().split()):
                command = Path(f"/proc/{number}/cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
                if command and number not in known and "multiprocessing." not in command:  # empty: it has ended
                    found[number] = command.strip()[:60]
    return found
