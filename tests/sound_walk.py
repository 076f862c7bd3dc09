"""Worlds in which nothing is wrong, for the check of environments to leave alone."""

import gymnasium
import numpy as np
from gymnasium.spaces import Box


class Walk(gymnasium.Env):
    """A random walk that ends beyond 1. Observes position and last action. Nothing is wrong with it."""

    low, high = -1.0, 1.0

    def __init__(self):
        self.observation_space = Box(-10.0, 10.0, (2,))
        self.action_space = Box(self.low, self.high, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time, self.position, self.action = 0, self.draw(), 0.0
        return self.observe(), {}

    def step(self, action):
        self.time, self.action = self.time + 1, float(action[0])
        self.position += 0.3 * self.action / abs(self.high if np.isfinite(self.high) else 1.0)
        return self.observe(), -(self.position**2), bool(abs(self.position) > 1.0), False, {}

    def draw(self):
        return float(self.np_random.uniform(-0.5, 0.5))

    def observe(self):
        return np.float32([self.position, self.action])


class Wide(Walk):
    low, high = -3.0, 3.0


class NoisyReward(Walk):
    def step(self, action):
        obs, reward, *rest = super().step(action)
        return obs, reward + float(self.np_random.normal()), *rest
