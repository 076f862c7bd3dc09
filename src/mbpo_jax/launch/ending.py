"""The end of a command, which comes whatever an environment has left behind.

Python waits at its end for the threads and for the processes of `multiprocessing` that somebody started, for ever if
they do not end themselves.
"""

import os
import signal
import sys
import threading
import time
from contextlib import suppress

GRACE_S = 3.0  # for what ends by itself


def in_time(status: int) -> int:
    """Returns the exit status of a command; if GRACE_S later something of an environment holds it up, ends the process.

    To be called where the process ends with it.
    """
    threading.Thread(target=_end_late, args=(status,), name="end_in_time", daemon=True).start()
    return status


def _end_late(status: int) -> None:
    time.sleep(GRACE_S)
    multiprocessing = sys.modules.get("multiprocessing")  # not imported here: an environment did, if anybody
    children = multiprocessing.active_children() if multiprocessing else []
    threads = [one for one in threading.enumerate() if not one.daemon and one is not threading.main_thread()]
    if not children and not threads:  # Python is ending by itself, if slowly
        return
    names = [f"process {child.pid}" for child in children] + [f"thread {thread.name}" for thread in threads]
    with suppress(OSError, ValueError):  # a stream that is closed
        print(f"mbpo_jax: ends what the environment left running: {', '.join(names)}", file=sys.stderr)
        sys.stderr.flush()
    for child in children:
        with suppress(OSError):
            os.kill(child.pid, signal.SIGKILL)
    os._exit(status)
