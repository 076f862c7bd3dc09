"""Predicts and measures the memory of a run, so that too small a machine is noticed before training; frees pages."""

import ctypes
import math
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from mbpo_jax import replay as replay_lib
from mbpo_jax.driver import memory_limits
from mbpo_jax.replay import is_replay
from mbpo_jax.types import Key, PyTree

# Memory left behind on CPU by compilation and by temporaries of calls. Measured: 130 MB less if everything was in the
# compile cache, 140 MB more if nothing was.
COMPILATION_BYTES = 500 * 2**20
SIZES = "replay_capacity", "rollout_batch", "rollout_length_schedule", "rollout_length", "retain_rounds"  # knobs
COPIES_PER_CHECKPOINT = 3  # of the stored rows: on the host, in the writer, and read back


class Prediction(NamedTuple):
    """Bytes at the peak of a run."""

    program: int  # this process before it had any arrays
    compilation: int
    buffers: int
    networks: int
    checkpoint: int

    @property
    def total(self) -> int:
        """Returns the sum of all parts."""
        return sum(self)

    def text(self) -> str:
        """Returns the prediction as one line, with a warning if it is more than this process may use."""
        parts = ", ".join(f"{name} {size / 1e6:.0f}" for name, size in self._asdict().items())
        line = f"memory: {self.total / 1e6:.0f} MB expected at peak ({parts})"
        available = _available_bytes()
        if available is None or self.total <= available:
            return line
        return f"{line}, more than the {available / 1e6:.0f} MB that this process may have: it may be killed"


def predict(state: PyTree, replay: PyTree, num_saved: int, program: int) -> Prediction:
    """Predicts the peak of a run.

    Args:
      state: the algorithm's state of all seeds.
      replay: the real rows of all seeds.
      num_saved: most real rows of a seed that are ever saved: its environment steps, or none of a data set.
      program: `resident()` before the arrays were made.
    """
    buffers = [leaf for leaf in jax.tree.leaves((state, replay), is_leaf=is_replay) if is_replay(leaf)]
    all_buffers = sum(map(_nbytes, buffers))
    real = _nbytes(replay)
    filled = min(1.0, num_saved / _capacity(replay))
    saved = all_buffers - real + int(real * filled)
    return Prediction(
        program=program,
        compilation=COMPILATION_BYTES if jax.default_backend() == "cpu" else 0,
        buffers=all_buffers,
        networks=_nbytes((state, replay)) - all_buffers,
        checkpoint=COPIES_PER_CHECKPOINT * saved,
    )


def check_room(init: Callable[[Key], PyTree], num_seeds: int, config: Any) -> None:
    """Refuses, on the CPU, before anything is allocated, arrays that do not fit into the memory this process may use.

    Args:
      init: makes the arrays of one seed; only traced.
      config: of the algorithm, whose knobs the error names.
    Raises:
      ValueError: says how much is needed and how much there is.
    """
    shapes = jax.tree.leaves(jax.eval_shape(init, jax.random.key(0)))
    needed = num_seeds * sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in shapes)
    available = _available_bytes()
    if available is not None and jax.default_backend() == "cpu" and needed > available:
        sizes = [name for name in SIZES if hasattr(config, name)]
        names = f"{', '.join([*sizes, 'hidden_units'])} and seeds"
        raise ValueError(
            f"{names} must fit the memory: they need {needed / 1e9:.1f} GB, got {available / 1e9:.1f} GB"
            f"{_set_by(available)}"
        )


def give_back() -> None:
    """Makes glibc return free pages to the system; does nothing elsewhere.

    glibc keeps freed blocks of up to 32 MB in its heaps. A checkpoint's copies of the buffers are of that size and come
    and go among smaller blocks that stay, so the holes would add up.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def resident() -> int:
    """Returns the resident memory of this process in bytes."""
    return _proc_status("VmRSS") or peak()


def peak() -> int:
    """Returns the peak resident memory of this process in bytes."""
    # `getrusage` only where there is no /proc: on Linux it starts from the parent's value.
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return _proc_status("VmHWM") or (most if sys.platform == "darwin" else most * 1024)


def _proc_status(name: str) -> int | None:
    """Returns a number of bytes from Linux's status of this process; None elsewhere."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    kilobytes = next((line.split()[1] for line in lines if line.startswith(f"{name}:")), None)
    return None if kilobytes is None else int(kilobytes) * 1024


def _available_bytes() -> int | None:
    """Returns the most memory that this process may use, in bytes; None where the system does not say."""
    smallest = memory_limits.smallest()
    return None if smallest is None else smallest[0]


def _set_by(available: int) -> str:
    names = [name for name, size in memory_limits.limits().items() if size == available]
    return f" (the limit of {names[0]})" if names else ""


def _nbytes(tree: PyTree) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def _capacity(replay: PyTree) -> int:
    return replay_lib.capacity(jax.tree.leaves(replay, is_leaf=is_replay)[0])
