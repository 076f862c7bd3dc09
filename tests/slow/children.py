"""Command lines in processes of their own, seen and hit from outside: what the proofs share."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "driver"))
import tiny_runs

ENDED, STOPPED, STORAGE = 0, 3, 6
COMPLETE = re.compile(r"[0-9.]+")  # the name of a checkpoint that is there


@contextlib.contextmanager
def workshop():
    """A folder that is gone at the end."""
    with tempfile.TemporaryDirectory(prefix="mbpo_jax_proof_") as folder:
        yield Path(folder)


def words(run_dir, cache, knobs=tiny_runs.MBPO, **changes):
    """The arguments of a command line that talks, with a compilation cache."""
    knobs = {name: value for name, value in knobs.items() if name != "quiet"}
    return tiny_runs.argv(run_dir, knobs, **({"compile_cache": cache} | changes))


LIMITED = """
import os, resource, sys
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


def finish(arguments, limit=None):
    """Runs a command line to its end; returns the finished process, its output captured through pipes.

    Args:
      limit: bytes that no file of it can grow beyond.
    """
    command = _command(arguments)
    if limit is not None:  # not in a copy of this process, which has threads
        command = [command[0], "-c", LIMITED, str(limit), *command[1:]]
    return subprocess.run(command, capture_output=True, text=True, errors="replace")


def finish_well(arguments):
    """Runs a command line that has to succeed; returns the seconds that it took."""
    began = time.monotonic()
    process = finish(arguments)
    if process.returncode != ENDED:
        raise SystemExit(
            f"the proof cannot begin: {' '.join(arguments)} ended with {process.returncode}\n{process.stderr}"
        )
    return time.monotonic() - began


class Outcome(NamedTuple):
    """How a process ended that was hit."""

    moment: str  # what was under way
    was_hit: bool  # False: it ended before
    status: int
    seconds: float  # from the signal to the end
    stderr: str


def hit(arguments, run_dir, number, delay, log):
    """Starts a command line and sends it a signal after `delay` seconds, if it is still there."""
    before = _seen(run_dir)
    with log.open("w") as stderr:
        process = subprocess.Popen(_command(arguments), stdout=subprocess.DEVNULL, stderr=stderr)
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return Outcome("ended", False, process.wait(delay), 0.0, log.read_text(errors="replace"))
            if number == signal.SIGKILL:  # held still, so that what is looked at is what was killed
                process.send_signal(signal.SIGSTOP)
            moment = _moment(log, before, _seen(run_dir))
            began = time.monotonic()
            process.send_signal(number)
            status = process.wait(600.0)
        finally:
            process.kill()
            process.wait()
    return Outcome(moment, True, status, time.monotonic() - began, log.read_text(errors="replace"))


def is_finished(run_dir, num_steps):
    """Whether a run has come to its end, by what its directory says."""
    saved = tiny_runs.saved(run_dir) if (Path(run_dir) / "summary.json").exists() else None
    return saved is not None and saved.record["step"] == num_steps


def difference(run_dir, expected_dir):
    """What two runs differ in, in a line; None if they are the same to the last bit, policies included."""
    try:
        tiny_runs.assert_same_run(run_dir, expected_dir)
        names = sorted(path.name for path in (expected_dir / "policies").iterdir())
        assert sorted(path.name for path in (run_dir / "policies").iterdir()) == names, "policies"
        for name in names:
            tiny_runs.assert_same_bits(_arrays(run_dir / "policies" / name), _arrays(expected_dir / "policies" / name))
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return None


def verdict(good, text):
    """Prints the last line of a proof; returns its exit status."""
    print(f"{'HOLDS' if good else 'BROKEN'}: {text}", flush=True)
    return 0 if good else 1


def _command(arguments):
    return [sys.executable, "-m", "mbpo_jax.main", *arguments]


def _arrays(path):
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


class _Seen(NamedTuple):
    config: tuple | None
    summary: tuple | None
    checkpoints: frozenset


def _seen(run_dir):
    folder = run_dir / "checkpoints"
    names = frozenset(os.listdir(folder)) if folder.is_dir() else frozenset()
    return _Seen(_identity(run_dir / "config.json"), _identity(run_dir / "summary.json"), names)


def _identity(path):
    with contextlib.suppress(FileNotFoundError):
        state = path.stat()
        return state.st_ino, state.st_mtime_ns
    return None


def _moment(log, before, now):
    """What a process is doing: config.json is replaced before training begins, summary.json after its end."""
    if "mbpo_jax: starting" not in log.read_text(errors="replace"):
        return "interpreter"
    if now.config == before.config:
        return "start-up"
    if now.summary != before.summary:
        return "ending"
    unfinished = [name for name in now.checkpoints - before.checkpoints if not COMPLETE.fullmatch(name)]
    return "saving" if unfinished else "training"
