"""What was recorded, as the readers of each kind of data set return it."""

from typing import NamedTuple

import numpy as np


class Refused(ValueError):
    """A data set that cannot be used: why, and what is allowed; `read` puts the name of the data set in front."""


class Recorded(NamedTuple):
    """Rows in the order in which they were taken, with actions in the bounds of their environment."""

    kind: str
    obs: np.ndarray  # [N, O], float32
    action: np.ndarray  # [N, A], float32
    reward: np.ndarray  # [N], float32
    terminal: np.ndarray  # [N], bool
    truncated: np.ndarray | None  # [N], bool; None: not stored
    sha256: str
    next_obs: np.ndarray | None = None  # [N, O], float32; None: not stored
    exact_ends: bool = False  # whether `next_obs` of an episode's last row is its own, by the format
    still_ends: bool = False  # whether terminal rows with `next_obs` equal to `obs` have none: `DataSet.has_successor`
    begins: bool = True  # whether row 0 began an episode
    incomplete: np.ndarray | None = None  # [N], bool, rows of episodes that are known not to be whole; one is enough
    action_low: np.ndarray | None = None  # [A]; None: not known
    action_high: np.ndarray | None = None
    action_is_scaled: bool = False  # whether actions are in [-1, 1] already, and their bounds were as above
    max_episode_steps: int | None = None
    env_id: str | None = None
    notes: tuple[str, ...] = ()
