"""PETS's cart-pole: swing a hanging pole up and hold its tip above the middle of the track.

Masses, joints, motor and integrator are those of kchua/handful-of-trials, `dmbrl/env/cartpole.py` and its model.
Reference: Chua et al. 2018 (PETS), Appendix A.2.
"""

from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium.error import ResetNeeded

FRAME_SKIP = 2  # physics steps of 0.02 s
START_STD = 0.1  # of positions (m, rad) and velocities
POLE_LENGTH = 0.6  # m
MAX_CONTROL = 3.0  # of the motor, which pushes with 100 N per unit
CONTROL_COST = 0.01

MODEL = f"""
<mujoco model="pets_cartpole">
  <compiler inertiafromgeom="true"/>
  <option gravity="0 0 -9.81" integrator="RK4" timestep="0.02"/>
  <default>
    <joint damping="1"/>
    <geom contype="0" conaffinity="0"/>
  </default>
  <worldbody>
    <body name="cart">
      <joint name="slider" type="slide" axis="1 0 0" limited="true" range="-2.5 2.5"/>
      <geom type="capsule" quat="0.707 0 0.707 0" size="0.1 0.1"/>
      <body name="pole">
        <joint name="hinge" type="hinge" axis="0 1 0" limited="false"/>
        <geom type="capsule" fromto="0 0 0 0.001 0 -{POLE_LENGTH}" size="0.049"/>
      </body>
    </body>
  </worldbody>
  <actuator>
    <motor joint="slider" gear="100" ctrllimited="true" ctrlrange="-{MAX_CONTROL} {MAX_CONTROL}"/>
  </actuator>
</mujoco>
"""


class PetsCartpole(gymnasium.Env[np.ndarray, np.ndarray]):
    """Observes [x (m), angle (rad from hanging), their velocities]; it ends only at the time limit.

    The reward is exp(-d^2 / 0.6^2) - 0.01 a^2, where d is how far the tip is from 0.6 m above the middle of the track.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 (gymnasium declares it this way)

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (4,), dtype=np.float64)
        self.action_space = gymnasium.spaces.Box(-MAX_CONTROL, MAX_CONTROL, (1,), dtype=np.float32)
        self._model = mujoco.MjModel.from_xml_string(MODEL)
        self._data = mujoco.MjData(self._model)
        self._began = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Draws a state around the pole hanging at rest; returns (obs [4], {}). There are no options."""
        super().reset(seed=seed, options=options)
        mujoco.mj_resetData(self._model, self._data)
        self._data.qpos[:] = self.np_random.normal(0.0, START_STD, 2)
        self._data.qvel[:] = self.np_random.normal(0.0, START_STD, 2)
        mujoco.mj_forward(self._model, self._data)
        self._began = True
        return self._obs(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Pushes for 0.04 s; returns (obs [4], reward, False, False, {}).

        Raises:
          ResetNeeded: before the first `reset`.
          ValueError: the action is not a finite number.
        """
        if not self._began:
            raise ResetNeeded("call reset() before step()")
        if not np.isfinite(action).all():
            raise ValueError(f"action must be finite, got {np.asarray(action).tolist()}")
        control = np.clip(np.asarray(action, np.float64), -MAX_CONTROL, MAX_CONTROL)
        self._data.ctrl[:] = control
        mujoco.mj_step(self._model, self._data, FRAME_SKIP)
        obs = self._obs()
        tip = np.array([obs[0] - POLE_LENGTH * np.sin(obs[1]), -POLE_LENGTH * np.cos(obs[1])])
        distance = np.sum(np.square(tip - [0.0, POLE_LENGTH]))
        reward = np.exp(-distance / POLE_LENGTH**2) - CONTROL_COST * np.sum(np.square(control))
        return obs, float(reward), False, False, {}

    def _obs(self) -> np.ndarray:
        return np.concatenate([self._data.qpos, self._data.qvel])
