"""A data set in memory."""

from typing import NamedTuple

import numpy as np

COLUMNS = ("obs", "action", "reward", "next_obs", "terminal", "truncated", "first", "has_successor", "left_out_reward")


class DataSet(NamedTuple):
    """Previously recorded transitions, in the order in which they were taken."""

    name: str  # what --dataset was
    kind: str  # "Minari", "D4RL HDF5", "npz" or "run directory"
    obs: np.ndarray  # [N, O], float32
    action: np.ndarray  # [N, A], float32, in [-1, 1]
    reward: np.ndarray  # [N], float32
    next_obs: np.ndarray  # [N, O], float32
    terminal: np.ndarray  # [N], float32: 1.0 where the MDP ended
    truncated: np.ndarray  # [N], bool: where the episode ended otherwise (time limit, or the recording ended)
    first: np.ndarray  # [N], bool: whether the row began an episode
    has_successor: np.ndarray  # [N], bool: whether `next_obs` was recorded, without which no model learns from a row.
    # The last row before a terminal has none in files that store no next observations. It is kept, with `next_obs`
    # equal to `obs`, since a value needs only its reward and the fact that it is terminal.
    left_out_reward: np.ndarray  # [N], float32: of the row after this one if that ended the episode and was left out,
    # else 0; nan somewhere in an episode: its return is not known, as that of an incomplete one. Only returns need it.
    action_low: np.ndarray  # [A], bounds of the actions as recorded, from which they were scaled to [-1, 1]
    action_high: np.ndarray
    max_episode_steps: int  # of the recorded environment, else the longest episode
    env_id: str | None  # of the environment that it was recorded in, if the data set says
    sha256: str  # of the file's bytes; for a Minari folder and a run directory, of the rows
    notes: tuple[str, ...] = ()  # what reading left out or decided, a few words each


def episode_bounds(data_set: DataSet) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first row of every episode and the row after its last one, each [E]."""
    starts = np.flatnonzero(data_set.first)
    if starts.size == 0 or starts[0] != 0:  # the oldest rows of a run may be gone
        starts = np.concatenate([[0], starts])
    return starts, np.append(starts[1:], len(data_set.first))


def episode_returns(data_set: DataSet) -> tuple[np.ndarray, np.ndarray]:
    """Returns the undiscounted return of every episode [E], float64, and whether the whole episode is there [E], bool.

    An episode is not whole if its beginning or a reward is missing, or if the recording ended before it did.
    """
    starts, stops = episode_bounds(data_set)
    returns = np.add.reduceat(data_set.reward.astype(np.float64) + data_set.left_out_reward, starts)
    whole = data_set.first[starts] & np.isfinite(returns)
    num_steps = stops[-1] - starts[-1] + (data_set.left_out_reward[-1] != 0)
    whole[-1] &= bool(data_set.terminal[-1] > 0) or bool(num_steps >= data_set.max_episode_steps)
    return returns, whole


def return_mean(data_set: DataSet) -> tuple[float | None, int]:
    """Returns the mean return of the whole episodes, None if there are none, and how many there are."""
    returns, whole = episode_returns(data_set)
    return (float(np.mean(returns[whole])) if whole.any() else None), int(whole.sum())
