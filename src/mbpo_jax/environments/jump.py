"""HalfCheetah rewarded for height: a task that the data of a running cheetah do not show (Yu et al. 2020, 5.2).

Collect data of HalfCheetah-v5, relabel them with `reward`, and learn offline:

  mbpo_jax collect --mix DATA --reward_fn=mbpo_jax.environments.jump:reward --out=jump-v0
"""

from typing import Any

import numpy as np
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv

MAX_PAID_SPEED = 3.0  # m/s
CONTROL_COST = 0.1
HEIGHT_REWARD = 15.0  # per metre above the start
HEIGHT, FORWARD_SPEED = 0, 8  # in an observation; the height is 0 at the start, up to noise


def reward(obs: np.ndarray, action: np.ndarray, next_obs: np.ndarray) -> np.ndarray:
    """Returns min(v, 3) - 0.1 |a|^2 + 15 z of transitions [..., O], [..., A], [..., O]; [...].

    The paper prints max(v, 3), with which its data could not have the mean return of -1,023 that it reports unless the
    cheetah spent the episode 0.27 m below its start.
    """
    del obs
    cost = CONTROL_COST * np.sum(np.square(action), axis=-1)
    return np.minimum(next_obs[..., FORWARD_SPEED], MAX_PAID_SPEED) - cost + HEIGHT_REWARD * next_obs[..., HEIGHT]


class HalfCheetahJump(HalfCheetahEnv):
    """Gymnasium's HalfCheetah-v5 with the reward above."""

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Steps the cheetah; the terms of HalfCheetah's own reward stay in `info`."""
        obs, _, terminal, truncated, info = super().step(action)
        return obs, float(reward(obs, np.asarray(action), obs)), terminal, truncated, info
