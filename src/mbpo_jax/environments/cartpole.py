"""Cart-pole balancing with a continuous force.

A pole stands on a cart, joined to it by a hinge without a motor; a bounded force pushes the cart along a track.
Dynamics and constants are those of Gymnasium's `CartPole-v1` (Barto, Sutton and Anderson 1983; derivation with the
pole's inertia: Florian 2007, "Correct equations for the dynamics of the cart-pole system", without friction); only the
action differs.
"""

import math
from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded

GRAVITY = 9.8  # m/s^2
CART_MASS = 1.0  # kg
POLE_MASS = 0.1  # kg
POLE_HALF_LENGTH = 0.5  # m
FORCE_SCALE = 10.0  # N at action 1
TIME_STEP = 0.02  # s, explicit Euler
MAX_POSITION = np.float32(2.4)  # m
MAX_ANGLE = np.float32(math.radians(12.0))  # rad
START_RANGE = 0.05  # every entry of the first state is uniform in [-START_RANGE, START_RANGE]


def euler_step(state: np.ndarray, force: float) -> np.ndarray:
    """Takes one explicit Euler step of the frictionless cart-pole.

    Args:
      state: [..., 4], x (m), x_dot (m/s), theta (rad from upright), theta_dot (rad/s).
      force: N, to the right; a scalar or [...].
    Returns:
      [..., 4] float64, the state TIME_STEP seconds later.
    """
    x, x_dot, theta, theta_dot = np.moveaxis(np.asarray(state, dtype=np.float64), -1, 0)
    sin, cos = np.sin(theta), np.cos(theta)
    total_mass = CART_MASS + POLE_MASS
    push = (force + POLE_MASS * POLE_HALF_LENGTH * theta_dot**2 * sin) / total_mass
    inertia = POLE_HALF_LENGTH * (4.0 / 3.0 - POLE_MASS * cos**2 / total_mass)
    theta_acc = (GRAVITY * sin - cos * push) / inertia
    x_acc = push - POLE_MASS * POLE_HALF_LENGTH * theta_acc * cos / total_mass
    derivative = np.stack([x_dot, x_acc, theta_dot, theta_acc], axis=-1)
    return np.stack([x, x_dot, theta, theta_dot], axis=-1) + TIME_STEP * derivative


def has_fallen(state: np.ndarray) -> bool:
    """Returns whether a float32 state [4] is off the track (|x| > 2.4 m), past 12 degrees, or not finite.

    The limits are float32 as well, so `terminations.cartpole` decides the same from the observation.
    """
    within = abs(state[0]) <= MAX_POSITION and abs(state[2]) <= MAX_ANGLE
    return not (within and bool(np.isfinite(state).all()))


class CartpoleContinuous(gymnasium.Env[np.ndarray, np.ndarray]):
    """Reward 1 per step, including the last one; the time limit is set where the id is registered.

    The state is kept in float32 and is the observation, so that the observation hides nothing about the next step.
    Actions [1] outside [-1, 1] are clipped.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 (gymnasium declares it this way)

    def __init__(self) -> None:
        fastest = np.finfo(np.float32).max
        high = np.array([2.0 * MAX_POSITION, fastest, 2.0 * MAX_ANGLE, fastest], dtype=np.float32)
        self.observation_space = gymnasium.spaces.Box(-high, high, dtype=np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), dtype=np.float32)
        self._state: np.ndarray | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Draws a state close to rest and upright; returns (obs [4] float32, {}). There are no options."""
        super().reset(seed=seed, options=options)
        self._state = self.np_random.uniform(-START_RANGE, START_RANGE, size=4).astype(np.float32)
        return self._state.copy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Pushes for TIME_STEP seconds with `10 N * action[0]`; returns (obs, 1.0, terminal, False, {}).

        Raises:
          ResetNeeded: before the first `reset`.
          ValueError: for an action of another shape than [1], or one that is NaN.
        """
        if self._state is None:
            raise ResetNeeded("call reset() before step()")
        action = np.asarray(action, dtype=np.float64)
        if action.shape != (1,) or np.isnan(action[0]):
            raise ValueError(f"action must be one number in [-1, 1] with shape (1,), got {action!r}")
        force = FORCE_SCALE * min(max(float(action[0]), -1.0), 1.0)
        self._state = euler_step(self._state, force).astype(np.float32)
        return self._state.copy(), 1.0, has_fallen(self._state), False, {}
