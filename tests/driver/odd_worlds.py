"""Environments with planted properties, for `--env=odd_worlds:odd/Name-v0`."""

import itertools
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict

_INSTANCES = itertools.count()


class World(gymnasium.Env):
    """Observes [steps so far, a draw at reset, the last action as it arrived]; the reward is that action's sum.

    Args:
      ends_at: the step that ends the MDP, 0 for never.
      faults: (episode, step) -> what is observed or paid there instead.
      drifts: every instance starts elsewhere, whatever the seed.
    """

    def __init__(self, ends_at=0, faults=None, low=(-2.0, 0.0), high=(2.0, 1.0), drifts=False):
        self.action_space = Box(np.float32([low]), np.float32([high]))
        self.observation_space = Box(-np.inf, np.inf, (2 + len(low),))
        self._ends_at, self._faults = ends_at, faults or {}
        self._drift = float(next(_INSTANCES)) if drifts else 0.0
        self._episode = -1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        self._episode += 1
        self._time, self._action = 0, np.zeros(self.action_space.shape, np.float32)
        self._start = self.np_random.uniform() + self._drift
        return self._observe(), {}

    def step(self, action):
        assert action.shape == self.action_space.shape
        assert action.dtype == np.float32
        self._time, self._action = self._time + 1, action
        reward = self._faults.get((self._episode, self._time), {}).get("reward", float(action.sum()))
        return self._observe(), reward, self._time == self._ends_at, False, {}

    def _observe(self) -> Any:
        fault = self._faults.get((self._episode, self._time), {})
        return fault.get("obs", np.float32([self._time, self._start, *self._action.ravel()]))


class Spaces(gymnasium.Env):
    """Has spaces and nothing else."""

    def __init__(self, observations=Box(-1.0, 1.0, (3,)), actions=Box(-1.0, 1.0, (1,))):  # noqa: B008
        self.observation_space, self.action_space = observations, actions


def _register(name, entry_point, max_episode_steps=5, **kwargs):
    gymnasium.register(
        f"odd/{name}-v0",
        entry_point=f"odd_worlds:{entry_point}",
        max_episode_steps=max_episode_steps,
        kwargs=kwargs,
    )


NAN, INF = float("nan"), float("inf")
_register("World", "World")
_register("Ends", "World", ends_at=3)
_register("EndsAtLimit", "World", ends_at=5)
_register("Unlimited", "World", max_episode_steps=None)
_register("Drifts", "World", max_episode_steps=1000, drifts=True)
_register("NanObs", "World", faults={(1, 2): {"obs": np.float32([0.0, NAN, 0.0, 0.0])}})
_register("NanFirstObs", "World", faults={(1, 0): {"obs": np.float32([INF, 0.0, 0.0, 0.0])}})
_register("HugeObs", "World", faults={(0, 1): {"obs": np.float64([1e39, 0.0, 0.0, 0.0])}})
_register("NanReward", "World", faults={(1, 4): {"reward": NAN}})
_register("HugeReward", "World", faults={(0, 1): {"reward": 1e39}})
_register("LongObs", "World", faults={(0, 1): {"obs": np.zeros(7, np.float32)}})
_register("Images", "Spaces", observations=Box(0, 255, (8, 8, 3), np.uint8))
_register("FloatImages", "Spaces", observations=Box(0.0, 1.0, (8, 8, 3)))
_register("DictObs", "Spaces", observations=Dict({"a": Box(-1.0, 1.0, (3,))}))
_register("UnboundedActions", "Spaces", actions=Box(-np.inf, np.inf, (1,)))
_register("UnboundedBelow", "Spaces", actions=Box(np.float32([-1.0, -np.inf]), np.float32([1.0, 1.0])))
_register("UnboundedAbove", "Spaces", actions=Box(np.float32([-1.0, -1.0]), np.float32([np.inf, 1.0])))
