"""The Dyna maze: 6 x 9 cells, seven of them walls, from a start on the left to a goal in the upper right corner.

Sutton and Barto 2018, Example 8.1. A cell is numbered `row * 9 + column`, rows from the top. An action moves to the
cell above, below, to the right or to the left; where that is a wall or outside, nothing happens. Entering the goal pays
1 and ends the episode; everything else pays 0. The shortest path takes 14 steps.
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded

LAYOUT = (
    ".......#G",
    "..#....#.",
    "S.#....#.",
    "..#......",
    ".....#...",
    ".........",
)
WALL = "#"
MOVES = ((-1, 0), (1, 0), (0, 1), (0, -1))  # up, down, right, left
NUM_ROWS, NUM_COLUMNS = len(LAYOUT), len(LAYOUT[0])
NUM_CELLS, NUM_ACTIONS = NUM_ROWS * NUM_COLUMNS, len(MOVES)
START, GOAL = ("".join(LAYOUT).index(letter) for letter in "SG")


def transitions() -> np.ndarray:
    """Returns the cell that each action leads to from each cell, int64 [54, 4]; from walls and the goal, itself."""
    follows = np.repeat(np.arange(NUM_CELLS)[:, None], NUM_ACTIONS, axis=1)
    for cell in range(NUM_CELLS):
        row, column = divmod(cell, NUM_COLUMNS)
        if cell == GOAL or LAYOUT[row][column] == WALL:
            continue
        for action, (down, right) in enumerate(MOVES):
            new_row, new_column = row + down, column + right
            inside = 0 <= new_row < NUM_ROWS and 0 <= new_column < NUM_COLUMNS
            if inside and LAYOUT[new_row][new_column] != WALL:
                follows[cell, action] = new_row * NUM_COLUMNS + new_column
    return follows


class DynaMaze(gymnasium.Env[int, int]):
    """Reward 1 for entering the goal, which ends the episode; the time limit is set where the id is registered."""

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 (gymnasium declares it this way)

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Discrete(NUM_CELLS)
        self.action_space = gymnasium.spaces.Discrete(NUM_ACTIONS)
        self._transitions = transitions()
        self._cell: int | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        """Goes to the start; returns (its number, {}). There are no options."""
        super().reset(seed=seed, options=options)
        self._cell = START
        return START, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        """Moves; returns (number of the cell, reward, whether it is the goal, False, {}).

        Raises:
          ResetNeeded: before the first `reset`, and after the goal was entered.
          ValueError: there is no such action.
        """
        if self._cell is None:
            raise ResetNeeded("call reset() before step()")
        if not self.action_space.contains(action):
            raise ValueError(f"action must be a whole number in [0, {NUM_ACTIONS - 1}], got {action!r}")
        cell = int(self._transitions[self._cell, action])
        self._cell = None if cell == GOAL else cell
        return cell, float(cell == GOAL), cell == GOAL, False, {}
