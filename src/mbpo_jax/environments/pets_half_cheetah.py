"""PETS's half-cheetah: `HalfCheetah-v5` that also observes its speed over the last step (Chua et al. 2018).

Task: dmbrl/env/half_cheetah.py of kchua/handful-of-trials@e1a62f2. There the body has a model file of its own; here it
is Gymnasium's.
"""

from typing import Any

import numpy as np
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv

START_NOISE = 0.001  # standard deviation of positions and velocities at the start


class PetsHalfCheetah(HalfCheetahEnv):
    """Observes [mean forward velocity (m/s) of the last step, qpos[1:], qvel]: 18 numbers; the first is 0 at the start.

    The reward is HalfCheetah's: that velocity minus 0.1 |a|^2, so it can be computed from observation and action.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(exclude_current_positions_from_observation=False, **kwargs)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Steps the cheetah, and puts its speed into the observation."""
        obs, reward, terminal, truncated, info = super().step(action)
        obs[0] = info["x_velocity"]
        return obs, float(reward), terminal, truncated, info

    def reset_model(self) -> np.ndarray:
        """Returns to the start, with far less noise than Gymnasium's."""
        model, noise = self.model, self.np_random
        qpos = self.init_qpos + noise.normal(scale=START_NOISE, size=model.nq)
        qvel = self.init_qvel + noise.normal(scale=START_NOISE, size=model.nv)
        self.set_state(qpos, qvel)
        obs = self._get_obs()
        obs[0] = 0.0
        return obs
