"""Worlds that are wrong, or odd, in what they observe, in their actions or in the spaces of these, one fault each."""

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.wrappers import NormalizeObservation, NormalizeReward

from sound_walk import Walk


class HugeObs(Walk):
    def observe(self):
        return np.float64([self.position * 1e39, self.action])


class LargeObs(Walk):
    def __init__(self):
        super().__init__()
        self.observation_space = Box(-np.inf, np.inf, (2,))

    def observe(self):
        return np.float32([self.position * 1e5, self.action])


class LostInFloat32(LargeObs):
    def observe(self):
        return np.float64([1e3 + 1e-5 * self.position, self.action])


class OtherDtype(Walk):
    def observe(self):
        return np.float64([self.position, self.action])


class Outside(Walk):
    def observe(self):
        return np.float32([20.0 * self.position, self.action])


class NanObs(Walk):
    def observe(self):
        return np.float32([self.position, np.nan if self.time == 7 else self.action])


class ConstantDim(Walk):
    def __init__(self):
        super().__init__()
        self.observation_space = Box(-10.0, 10.0, (5,))

    def observe(self):
        return np.float32([self.position, 0.0, 7.0, self.action, self.position])


class Blind(Walk):
    def observe(self):
        return np.float32([1.0, 2.0])


class Unbounded(Walk):
    low, high = -np.inf, np.inf


class OneAction(Walk):
    def __init__(self):
        super().__init__()
        self.action_space = Box(np.float32([-1.0, 2.0]), np.float32([1.0, 2.0]))


class DiscreteActions(Walk):
    def __init__(self):
        super().__init__()
        self.action_space = Discrete(3)


class Images(Walk):
    def __init__(self):
        super().__init__()
        self.observation_space = Box(0, 255, (16, 16, 3), np.uint8)

    def observe(self):
        return np.full((16, 16, 3), 100 + int(20 * self.position), np.uint8)


class Nothing(Walk):
    def __init__(self):
        super().__init__()
        self.observation_space = Box(-1.0, 1.0, (0,))


def with_normalised_observations():
    return NormalizeObservation(Walk())


def with_normalised_rewards():
    return NormalizeReward(Walk())


class OwnStatistics(gymnasium.Wrapper):
    """A wrapper of a user's own that does the same under another name."""

    def __init__(self):
        super().__init__(Walk())
        self.history, self.observation_space = [0.0], Box(-np.inf, np.inf, (2,))

    def reset(self, **options):
        obs, info = self.env.reset(**options)
        return self.scaled(obs), info

    def step(self, action):
        obs, *rest = self.env.step(action)
        return self.scaled(obs), *rest

    def scaled(self, obs):
        self.history.append(float(obs[0]))
        return obs - np.float32(np.mean(self.history))
