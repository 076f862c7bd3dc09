"""Hopper and Walker2d that only the time limit ends; staying up is rewarded through their height.

BMPO's HopperNT and Walker2dNT (Lai et al. 2020), on Gymnasium's v5.
"""

from typing import Any

import numpy as np
from gymnasium.envs.mujoco.hopper_v5 import HopperEnv
from gymnasium.envs.mujoco.mujoco_env import MujocoEnv
from gymnasium.envs.mujoco.walker2d_v5 import Walker2dEnv

BONUS = 1.0  # per step
CONTROL_COST = 0.1
HEIGHT_COST = 3.0  # times the squared distance (m) from the height below
TARGET_HEIGHT = 1.3  # m


def reward(speed: np.ndarray, height: np.ndarray, action: np.ndarray) -> np.ndarray:
    """Returns v + 1 - 0.1 |a|^2 - 3 (z - 1.3)^2 [...] of speeds, heights [...] before steps, and actions [..., A]."""
    control = CONTROL_COST * np.sum(np.square(action), axis=-1)
    return speed + BONUS - control - HEIGHT_COST * np.square(height - TARGET_HEIGHT)


class _Unterminated(MujocoEnv):
    """What the environments below have in common: the reward above, and no termination."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(terminate_when_unhealthy=False, **kwargs)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Steps; the reward is of the state before, as in BMPO's code; Gymnasium's reward terms stay in `info`."""
        paid = float(reward(self.data.qvel[0], self.data.qpos[1], np.asarray(action)))
        obs, _, terminal, truncated, info = super().step(action)
        return obs, paid, terminal, truncated, info


class HopperNT(_Unterminated, HopperEnv):
    """Gymnasium's Hopper-v5 with the reward above, without termination."""


class Walker2dNT(_Unterminated, Walker2dEnv):
    """Gymnasium's Walker2d-v5 with the reward above, without termination."""
