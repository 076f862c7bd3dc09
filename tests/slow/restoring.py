"""What restoring from a run directory comes to, judged in a process of its own: damage may end or hang one."""

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import TimeoutError as TooLong
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from children import tiny_runs

from mbpo_jax.driver.config import StorageFailure

NEWEST, OLDER, REFUSED = "newest, right to the bit", "an older one, right to the bit", "refused"
GOOD = (NEWEST, OLDER, REFUSED)
SECONDS = 120.0
_TRUTH = {}  # of a judging process: step -> Saved


class Judge:
    """Compares what is restored with the truth: step -> Saved."""

    def __init__(self, truth):
        self._truth, self._pool = truth, None

    def __call__(self, run_dir):
        """(verdict, detail) on the newest checkpoint that can be restored."""
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(1, context, initializer=_learn, initargs=(self._truth,))
        try:
            return self._pool.submit(_judge, str(run_dir)).result(SECONDS)
        except TooLong:
            for process in self._pool._processes.values():
                process.kill()
            self._pool = None
            return "HUNG", f"more than {SECONDS:.0f} s"
        except BrokenProcessPool:
            self._pool = None
            return "THE PROCESS DIED", "a signal, or memory"

    def close(self):
        """Ends the process."""
        if self._pool is not None:
            self._pool.shutdown()


def _learn(truth):
    _TRUTH.update(truth)
    sys.stderr = open("/dev/null", "w")


def _judge(run_dir):
    try:
        saved = tiny_runs.saved(Path(run_dir))
    except StorageFailure as error:
        return REFUSED, " ".join(str(error).split())
    except BaseException as error:
        return "ANOTHER ERROR", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    if saved is None:
        return "FORGOTTEN", "no checkpoint was found: the run would start over"
    return _compare(saved)


def _compare(saved):
    step = saved.record.get("step") if isinstance(saved.record, dict) else None
    if step not in _TRUTH:
        return "SILENTLY WRONG", f"step {step!r}"
    try:
        tiny_runs.assert_same_bits(saved.arrays, _TRUTH[step].arrays)
        assert saved.record == _TRUTH[step].record, "record"
    except Exception as error:
        return "SILENTLY WRONG", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return (NEWEST if step == max(_TRUTH) else OLDER), f"step {step}"
