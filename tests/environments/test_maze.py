"""The Dyna maze against what is known of it."""

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env

from mbpo_jax.environments import maze

DYNA_MAZE = "mbpo_jax.environments:mbpo_jax/DynaMaze-v0"


def cell(row, column):
    return row * 9 + column


def test_it_meets_the_gymnasium_interface():
    check_env(gymnasium.make(DYNA_MAZE).unwrapped, skip_render_check=True)


def test_the_layout_is_the_textbooks():
    walls = {(1, 2), (2, 2), (3, 2), (4, 5), (0, 7), (1, 7), (2, 7)}
    assert (maze.START, maze.GOAL, maze.NUM_CELLS) == (cell(2, 0), cell(0, 8), 54)
    follows = maze.transitions()
    entered = {divmod(number, 9) for number in range(54) if (np.delete(follows, number, 0) == number).any()}
    assert entered == {(row, column) for row in range(6) for column in range(9)} - walls


def test_actions_move_or_bump():
    follows = maze.transitions()
    assert follows[cell(4, 4)].tolist() == [cell(3, 4), cell(5, 4), cell(4, 4), cell(4, 3)]  # a wall to the right
    assert follows[cell(5, 0)].tolist() == [cell(4, 0), cell(5, 0), cell(5, 1), cell(5, 0)]  # a corner


def test_the_shortest_path_has_fourteen_steps():
    follows, reached, steps = maze.transitions(), {maze.START}, 0
    while maze.GOAL not in reached:
        reached, steps = reached | {int(after) for number in reached for after in follows[number]}, steps + 1
    assert steps == 14


def test_a_random_walk_takes_as_long_as_linear_algebra_says():
    """868.73 steps: what the mean of first episodes with random ties must come to."""
    follows = maze.transitions()
    cells = [number for number in range(54) if number != maze.GOAL and (follows[number] != number).any()]
    place = {number: i for i, number in enumerate(cells)}
    stays = np.zeros((len(cells), len(cells)))
    for number in cells:
        for after in follows[number].tolist():
            if after != maze.GOAL:
                stays[place[number], place[after]] += 0.25
    steps = np.linalg.solve(np.eye(len(cells)) - stays, np.ones(len(cells)))
    assert steps[place[maze.START]] == pytest.approx(868.73, abs=0.005)


def test_the_goal_pays_once_and_ends_the_episode():
    env = gymnasium.make(DYNA_MAZE).unwrapped
    with pytest.raises(ResetNeeded):
        env.step(0)
    assert env.reset() == (cell(2, 0), {})
    right, up, down = 2, 0, 1
    path = [down, down, right, right, right, right, up, right, right, right, right, up, up, up]
    outcomes = [env.step(action) for action in path]
    assert [reward for _, reward, *_ in outcomes] == [0.0] * 13 + [1.0]
    assert [ended for _, _, ended, *_ in outcomes] == [False] * 13 + [True]
    assert outcomes[-1][0] == maze.GOAL
    with pytest.raises(ResetNeeded):
        env.step(0)
    env.reset()
    with pytest.raises(ValueError, match=r"a whole number in \[0, 3\], got 4"):
        env.step(4)
