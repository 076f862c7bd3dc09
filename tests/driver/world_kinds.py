"""The kinds of worlds that odd_worlds.py registers: what each of them does."""

import itertools
import multiprocessing
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from gymnasium.wrappers.utils import RunningMeanStd

_INSTANCES = itertools.count()
CLOSED: list[Any] = []  # what closing a ThreadBound said
PORTS: list[int] = []  # what Port binds
ACTIONS: list[Any] = []  # low, high and dtype of Containing, and then what it was given


class World(gymnasium.Env):
    """Observes [steps so far, a draw at reset, the last action as it arrived]; the reward is that action's sum.

    Args:
      ends_at: the step that ends the MDP, 0 for never.
      faults: (episode of this instance, step) -> what is returned there instead (obs, reward, terminated, or the
        whole result), or done besides (does).
      drifts: every instance starts elsewhere, whatever the seed.
      when_made: what the constructor does besides.
    """

    def __init__(self, ends_at=0, faults=None, low=(-2.0, 0.0), high=(2.0, 1.0), drifts=False, when_made=None):
        if when_made:
            when_made()
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
        fault = self._fault()
        return fault.get("result", (self._observe(), {}))

    def step(self, action):
        assert action.shape == self.action_space.shape
        assert action.dtype == np.float32
        self._time, self._action = self._time + 1, action
        fault = self._fault()
        reward = fault.get("reward", float(action.sum()))
        terminated = fault.get("terminated", self._time == self._ends_at)
        return fault.get("result", (self._observe(), reward, terminated, False, {}))

    def _fault(self) -> dict[str, Any]:
        """The fault of now, having done what it does."""
        fault = self._faults.get((self._episode, self._time), {})
        fault.get("does", bool)()
        return fault

    def _observe(self) -> Any:
        fault = self._faults.get((self._episode, self._time), {})
        return fault.get("obs", np.float32([self._time, self._start, *self._action.ravel()]))


class Reusing(World):
    """Writes every observation into the same array; what is returned early changes later."""

    def _observe(self):
        self._array = getattr(self, "_array", np.zeros(self.observation_space.shape, np.float32))
        self._array[:] = super()._observe()
        return self._array


class Modules(World):
    """Pays 1 where jax is imported in its process, and prints."""

    def step(self, action):
        print("printed by a world")
        os.write(1, b"written by a world\n")
        obs, _, *rest = super().step(action)
        return obs, float("jax" in sys.modules), *rest


class Drawing(World):
    """Draws its start and a noise from what no seed of `reset` reaches."""

    def __init__(self, draw, **kwargs):
        super().__init__(**kwargs)
        self._draw = draw

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._start = self._draw(self)
        return self._observe(), {}

    def step(self, action):
        obs, reward, *rest = super().step(action)
        return obs, reward + self._draw(self), *rest


class Containing(gymnasium.Env):
    """Asserts that actions lie in a space of ACTIONS, and keeps them there."""

    def __init__(self):
        low, high, dtype = ACTIONS[:3]
        bounds = np.full(1, low, dtype), np.full(1, high, dtype)
        self.observation_space, self.action_space = Box(-1.0, 1.0, (3,)), Box(*bounds, (1,), dtype)

    def reset(self, *, seed=None, options=None):
        return np.zeros(3, np.float32), {}

    def step(self, action):
        assert self.action_space.contains(action), (action, self.action_space)
        ACTIONS.append(action[0])
        return np.zeros(3, np.float32), 0.0, False, False, {}


class OtherSpaces(World):
    """Has other actions from its second episode on."""

    def reset(self, *, seed=None, options=None):
        result = super().reset(seed=seed)
        if self._episode == 1:
            self.action_space = Box(-5.0, 5.0, (1, 2))
        return result


class TakesNoSeed(World):
    """Resets as environments of old Gym did."""

    def reset(self):
        return super().reset()


class Whitened(gymnasium.Wrapper):
    """Keeps running statistics under a name of its own."""

    def __init__(self, env):
        super().__init__(env)
        self.moments = RunningMeanStd()


class ThreadBound(World):
    """Owns what may be used by the thread that made it only, as a connection to a database."""

    def __init__(self):
        super().__init__()
        self._connection = sqlite3.connect(":memory:")

    def reset(self, *, seed=None, options=None):
        self._connection.execute("select 1")
        return super().reset(seed=seed)

    def step(self, action):
        self._connection.execute("select 1")
        return super().step(action)

    def close(self):
        CLOSED.append(self._connection.execute("select 1").fetchone())


class Forgets(World):
    """Starts elsewhere at every reset, whatever the seed."""

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._start = float(next(_INSTANCES))
        return self._observe(), {}


class Port(World):
    """Owns what exists once."""

    def __init__(self):
        super().__init__()
        self._socket = socket.socket()
        try:
            self._socket.bind(("127.0.0.1", PORTS[0]))
        except OSError:
            self._socket.close()
            raise

    def close(self):
        self._socket.close()


class Rich(World):
    """Pays as no other."""

    def step(self, action):
        obs, _, *rest = super().step(action)
        return obs, 1e9, *rest


class Forks(World):
    """Has a daemon that `close` ends, and leaves another process and a thread that never end."""

    def reset(self, *, seed=None, options=None):
        if self._episode < 0:
            context = multiprocessing.get_context("fork")
            self._daemon = context.Process(target=time.sleep, args=(1000,), daemon=True)
            self._daemon.start()
            context.Process(target=time.sleep, args=(1000,)).start()
            threading.Thread(target=time.sleep, args=(1000,), name="endless").start()
        return super().reset(seed=seed)

    def close(self):
        if self._episode >= 0:
            self._daemon.terminate()
            self._daemon.join()


class StartsProgram(World):
    """Starts a program that goes on, and has our standard output."""

    def reset(self, *, seed=None, options=None):
        if self._episode < 0:
            self._program = subprocess.Popen(["sleep", "1000"])
        return super().reset(seed=seed)


class Spaceless(gymnasium.Env):
    """Has forgotten its spaces."""


class Spaces(gymnasium.Env):
    """Has spaces and nothing else."""

    def __init__(self, observations=Box(-1.0, 1.0, (3,)), actions=Box(-1.0, 1.0, (1,))):  # noqa: B008
        self.observation_space, self.action_space = observations, actions


class Still(Spaces):
    """Stays where it is."""

    def reset(self, *, seed=None, options=None):
        return np.zeros(self.observation_space.shape, self.observation_space.dtype), {}

    def step(self, action):
        return self.reset()[0], 0, np.False_, False, {}
