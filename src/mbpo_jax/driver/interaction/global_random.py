"""numpy's and Python's global generators, which some environments draw from although they are given a seed.

They are seeded where an environment is made and where it is reset, so that what is drawn depends on seed, stream and
episode, like everything else. An environment that shares the process with those of other seeds gets generators of its
own, which are swapped in while it runs. That is too costly to do at every step, and keeps seeds from stepping at the
same time, so it is done at every reset, at the first steps, and at every step once an instance of the environment has
been seen to draw from them. A run that is resumed must know that, too: its new instances may draw late.

This is the only file that touches them; nothing else of this package draws from them.
"""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

WATCHED_STEPS = 100  # first steps of an instance that are watched for draws

_LOCK = threading.Lock()  # its holder has the generators
_DRAWING: set[str] = set()  # environments that were seen to draw, by id
_OURS = np.random.MT19937(0)  # replaces the user's bit generator, whatever that is, if there is only one seed


class State(NamedTuple):
    """What the global generators will draw."""

    bits: Any  # numpy's bit generator, which a user may have replaced
    numpy: dict[str, Any]
    python: tuple[Any, ...]


def state() -> State:
    """Returns the state of both."""
    return State(np.random.mtrand.get_bit_generator(), np.random.get_state(legacy=False), random.getstate())


def restore(saved: State) -> None:
    """Restores both to a state."""
    np.random.mtrand.set_bit_generator(saved.bits)
    np.random.set_state(saved.numpy)
    random.setstate(saved.python)


def seed(number: int, bits: np.random.MT19937 = _OURS) -> None:
    """Seeds both; numpy's gets the bit generator `bits`, and the one that was there is left unchanged."""
    np.random.mtrand.set_bit_generator(bits)
    np.random.seed(number)
    random.seed(number)


def draws(env_id: str) -> bool:
    """Returns whether an instance of the environment that has generators of its own was seen to draw."""
    return env_id in _DRAWING


def expect_draws(env_id: str) -> None:
    """Makes all instances of the environment run with generators of their own at every step, as if seen to draw."""
    _DRAWING.add(env_id)


class SeparateGenerators:
    """The global generators as one of several environments sees them, whoever else draws from them meanwhile."""

    def __init__(self, env_id: str) -> None:
        self._env_id = env_id
        self._left = WATCHED_STEPS
        self._bits = np.random.MT19937(0)
        self._state: State | None = None

    def seed(self, number: int) -> None:
        """Seeds the generators of this environment; its next call is watched."""
        with _LOCK:
            before = state()
            seed(number, self._bits)
            self._state = state()
            restore(before)
        self._left = max(self._left, 1)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Swaps them in while the environment runs, if it draws from them or is being watched."""
        if self._state is None or not (draws(self._env_id) or self._left):
            yield
            return
        self._left = max(self._left - 1, 0)
        with _LOCK:
            before, mine = state(), self._state
            restore(mine)
            try:
                yield
            finally:
                self._state = state()
                if not _equal(mine, self._state):
                    expect_draws(self._env_id)
                restore(before)


def _equal(one: State, other: State) -> bool:
    if one.bits is not other.bits or one.python != other.python:
        return False
    keys = [drawn.numpy["state"] for drawn in (one, other)]  # MT19937's
    return keys[0]["pos"] == keys[1]["pos"] and np.array_equal(keys[0]["key"], keys[1]["key"])
