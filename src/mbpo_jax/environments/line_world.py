"""A point on a line, to be brought to 0: a task of seconds that tells a planner from random actions.

The task of mbrl-lib's own test (facebookresearch/mbrl-lib, `tests/algorithms/test_algorithms.py`).
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded

COST = 0.001  # of the squared distance from 0, each step


class LineWorld(gymnasium.Env[np.ndarray, np.ndarray]):
    """Observes [x, v], at first [1, 0]; an action in [-1, 1] adds to v, then v to x.

    Two steps can bring it to rest at 0. It ends only at the time limit. Doing nothing for 30 steps returns -0.03.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 (gymnasium declares it this way)

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), dtype=np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), dtype=np.float32)
        self._state: np.ndarray | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Returns ([1, 0], {}). There are no options."""
        super().reset(seed=seed, options=options)
        self._state = np.array([1.0, 0.0], np.float32)
        return self._state.copy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Moves the point; returns ([x, v], -0.001 x^2, False, False, {}).

        Raises:
          ResetNeeded: before the first `reset`.
          ValueError: the action is not a finite number.
        """
        if self._state is None:
            raise ResetNeeded("call reset() before step()")
        push = np.asarray(action).item()
        if not np.isfinite(push):
            raise ValueError(f"action must be finite, got {push}")
        speed = self._state[1] + np.float32(np.clip(push, -1.0, 1.0))
        self._state = np.array([self._state[0] + speed, speed], np.float32)
        return self._state.copy(), -COST * float(self._state[0]) ** 2, False, False, {}
