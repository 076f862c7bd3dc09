"""Humanoid-v4 with the short observation of the MBPO paper.

`Humanoid-v5` leaves quantities out of its observation when asked; `Humanoid-v4` has no such arguments.
"""

from typing import Any

import numpy as np
from gymnasium.envs.mujoco.humanoid_v4 import HumanoidEnv
from gymnasium.spaces import Box


class HumanoidTruncatedObsV4(HumanoidEnv):
    """Gymnasium's Humanoid-v4, but it observes [qpos[2:], qvel]: 45 numbers instead of 376."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        dims = self._get_obs().size
        self.observation_space = Box(-np.inf, np.inf, (dims,), dtype=np.float64)

    def _get_obs(self) -> np.ndarray:
        skipped = 2 if self._exclude_current_positions_from_observation else 0
        return np.concatenate([self.data.qpos[skipped:], self.data.qvel])
