"""How much memory a run will take: said before it starts, so that too small a machine shows at once; and a way to keep
it from growing.
"""

import ctypes
import math
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax

from mbpo_jax import replay as replay_lib
from mbpo_jax.replay import Replay
from mbpo_jax.types import Key, PyTree

# What compiling and the calls' temporaries leave behind on CPU: measured, 130 MB less if everything was in the compile
# cache, 140 MB more if nothing was.
COMPILATION_BYTES = 500 * 2**20
COPIES_PER_CHECKPOINT = 3  # of the rows in force: on the host, in the writer, and read back


class Prediction(NamedTuple):
    """Bytes at the fullest moment of a run."""

    program: int  # this process before it had any array
    compilation: int
    buffers: int
    networks: int
    checkpoint: int

    @property
    def total(self) -> int:
        """Returns the sum of the parts."""
        return sum(self)

    def text(self) -> str:
        """Returns one line for the user."""
        parts = ", ".join(f"{name} {size / 1e6:.0f}" for name, size in self._asdict().items())
        return f"memory: {self.total / 1e6:.0f} MB expected at peak ({parts})"


def predict(state: PyTree, replay: PyTree, num_steps: int, program: int) -> Prediction:
    """Predicts the memory of a run with these states and real rows of all seeds.

    Args:
      num_steps: environment steps per seed: real rows beyond them are never written out.
      program: `resident()` before the arrays were made.
    """
    buffers = [leaf for leaf in jax.tree.leaves((state, replay), is_leaf=_is_replay) if _is_replay(leaf)]
    all_buffers = sum(map(_nbytes, buffers))
    real = _nbytes(replay)
    filled = min(1.0, num_steps / _capacity(replay))
    saved = all_buffers - real + int(real * filled)
    return Prediction(
        program=program,
        compilation=COMPILATION_BYTES if jax.default_backend() == "cpu" else 0,
        buffers=all_buffers,
        networks=_nbytes((state, replay)) - all_buffers,
        checkpoint=COPIES_PER_CHECKPOINT * saved,
    )


def check_room(init: Callable[[Key], PyTree], num_seeds: int) -> None:
    """Refuses, before anything is allocated, what cannot fit the memory of this machine.

    Args:
      init: makes the arrays of one seed; is traced only.
    Raises:
      ValueError: says how much is needed and how much there is.
    """
    shapes = jax.tree.leaves(jax.eval_shape(init, jax.random.key(0)))
    needed = num_seeds * sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in shapes)
    there = _of_machine()
    if there is not None and jax.default_backend() == "cpu" and needed > there:
        raise ValueError(
            "replay_capacity, rollout_batch, rollout_length_schedule, hidden_units and seeds must fit the memory: they "
            f"ask for {needed / 1e9:.1f} GB, got {there / 1e9:.1f} GB"
        )


def give_back() -> None:
    """Returns unused pages of glibc's heaps to the system; elsewhere it does nothing.

    It keeps freed blocks of up to 32 MB in its heaps. A checkpoint's copies of the buffers are of that size, and come
    and go for the whole run among smaller blocks that stay: the holes that they leave would add up.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def resident() -> int:
    """Returns the bytes of this process that are in memory now."""
    return _status("VmRSS") or peak()


def peak() -> int:
    """Returns the most bytes of this process that were in memory at once."""
    # Not `getrusage` where there is a choice: on Linux it begins with what the parent had.
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return _status("VmHWM") or (most if sys.platform == "darwin" else most * 1024)


def _status(name: str) -> int | None:
    """Returns a number of bytes from Linux's status of this process; None elsewhere."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    kilobytes = next((line.split()[1] for line in lines if line.startswith(f"{name}:")), None)
    return None if kilobytes is None else int(kilobytes) * 1024


def _of_machine() -> int | None:
    """Returns the bytes of memory of this machine; None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _nbytes(tree: PyTree) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def _is_replay(leaf: PyTree) -> bool:
    return isinstance(leaf, Replay)


def _capacity(replay: PyTree) -> int:
    return replay_lib.capacity(jax.tree.leaves(replay, is_leaf=_is_replay)[0])
