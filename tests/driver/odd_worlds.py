"""Environments with planted properties, for `--env=odd_worlds:odd/Name-v0`."""

import ctypes
import itertools
import multiprocessing
import os
import random
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium import wrappers
from gymnasium.spaces import Box, Dict, MultiBinary
from gymnasium.wrappers.utils import RunningMeanStd

_INSTANCES = itertools.count()
CLOSED: list[Any] = []  # what closing a ThreadBound said
PORTS: list[int] = []  # what Port binds
ACTIONS: list[Any] = []  # low, high and dtype of Containing, and then what it was given
PLANS: list[Any] = []  # what the next instances of Planned are made with, or raise


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


def draw_globally(world):
    return np.random.normal() + random.random()  # noqa: NPY002


def draw_from_spaces(world):
    return float(world.action_space.sample().sum() + world.observation_space.sample().sum())


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


def batch():
    return gymnasium.make_vec("Pendulum-v1", num_envs=2)


def wrapped(how):
    return how(World())


def frozen():
    env = wrappers.NormalizeObservation(World())
    env.update_running_mean = False
    return env


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


def planned():
    """The next world of PLANS."""
    plan = PLANS.pop(0)
    if isinstance(plan, BaseException):
        raise plan
    return World(**plan)


def get_stuck():
    raise RuntimeError("the gripper is\nstuck")


def unpack():
    _, _, _, _, _ = ()


def crash():
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.kill(os.getpid(), signal.SIGSEGV)


def hang():
    """In C, where no other thread of this process can run either."""
    print("a world hangs", flush=True)
    ctypes.PyDLL(None).sleep(1000)


def helper_of(pid):
    """The process that a world starts, as some simulators do: known by its arguments, and by whose world it is."""
    return ("sleep", str(10**7 + pid))


def hang_with_helper():
    subprocess.Popen(helper_of(os.getppid()))
    time.sleep(1000)


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

# What breaks does so at step 3 of episode 1, if its name says nothing else.
_register("Stuck", "World", faults={(1, 3): {"does": get_stuck}})
_register("StuckFirst", "World", faults={(0, 0): {"does": get_stuck}})
_register("StuckAtReset", "World", faults={(1, 0): {"does": get_stuck}})
_register("StuckWhenMade", "World", when_made=get_stuck)
_register("Exits", "World", faults={(1, 3): {"does": lambda: sys.exit(3)}})
_register("Dies", "World", faults={(1, 3): {"does": lambda: os._exit(7)}})
_register("DiesWhenMade", "World", when_made=lambda: os._exit(7))
_register("Crashes", "World", faults={(1, 3): {"does": crash}})
_register("Hangs", "World", faults={(1, 3): {"does": hang}})
_register("HangsAtReset", "World", faults={(1, 0): {"does": hang}})
_register("HangsWhenMade", "World", when_made=hang)
_register("HangsWithHelper", "World", faults={(1, 3): {"does": hang_with_helper}})
_register("Mute", "World", faults={(1, 3): {"does": lambda: os.closerange(3, 64)}})
_register("OtherShape", "World", faults={(1, 3): {"obs": np.zeros((2, 2), np.float32)}})
_register("DoubleObs", "World", faults={(1, 3): {"obs": np.float64([3.0, 0.1, 0.0, 0.0])}})
_register("ListObs", "World", faults={(1, 3): {"obs": [3, 0.1, 0, False]}})
_register("ComplexObs", "World", faults={(1, 3): {"obs": np.zeros(4, np.complex64)}})
_register("TextObs", "World", faults={(1, 3): {"obs": np.array(["1.0"] * 4)}})
_register("ObjectObs", "World", faults={(1, 3): {"obs": np.array([1.0] * 4, object)}})
_register("NoObs", "World", faults={(1, 3): {"obs": None}})
_register("RaggedObs", "World", faults={(1, 3): {"obs": [[1.0], [2.0, 3.0], [], []]}})
_register("TextReward", "World", faults={(1, 3): {"reward": "1.0"}})
_register("NoReward", "World", faults={(1, 3): {"reward": None}})
_register("TwoRewards", "World", faults={(1, 3): {"reward": np.zeros(2)}})
_register("ArrayReward", "World", faults={(1, 3): {"reward": np.float32([0.5])}})
_register("NumberFlag", "World", faults={(1, 3): {"terminated": 0}})
_register("ArrayFlag", "World", faults={(1, 3): {"terminated": np.array([False])}})
_register("OldStep", "World", faults={(1, 3): {"result": (np.zeros(4, np.float32), 0.0, False, {})}})
_register("OldReset", "World", faults={(1, 0): {"result": np.zeros(4, np.float32)}})
_register("ShortStep", "World", faults={(1, 3): {"result": (np.zeros(4, np.float32), 0.0, False)}})
_register("Unpacks", "World", faults={(1, 3): {"does": unpack}})
_register("OtherSpaces", "OtherSpaces")
_register("TakesNoSeed", "TakesNoSeed")
_register("Interrupted", "World", faults={(1, 3): {"does": lambda: signal.raise_signal(signal.SIGINT)}})
_register("NanOften", "World", faults={(e, 2): {"reward": NAN} for e in (0, 1, 3)} | {(2, 0): {"obs": [NAN] * 4}})
_register("Reusing", "Reusing")
_register("Modules", "Modules")
_register("Planned", "planned")
_register("Rich", "Rich")
_register("Forks", "Forks")
_register("StartsProgram", "StartsProgram")
_register("ThreadBound", "ThreadBound")
_register("Port", "Port")
_register("Forgets", "Forgets")
_register("Containing", "Containing", max_episode_steps=1000)
_register("DrawsGlobally", "Drawing", draw=draw_globally)
_register("DrawsFromSpaces", "Drawing", draw=draw_from_spaces)
_register("NormalizedObs", "wrapped", how=wrappers.NormalizeObservation)
_register("NormalizedRewards", "wrapped", how=wrappers.NormalizeReward)
_register("OwnStatistics", "wrapped", how=Whitened)
_register("FrozenObs", "frozen")
_register("FewObs8", "Still", observations=Box(0, 1, (10,), np.uint8))
_register("PointObs", "Still", observations=Box(0.0, 1.0, ()))
_register("ScaledRewards", "wrapped", how=lambda env: wrappers.TransformReward(env, lambda reward: 0.0 * reward))
_register("GrayImages", "Spaces", observations=Box(0, 255, (8, 8), np.uint8))
_register("EmptyObs", "Spaces", observations=Box(-1.0, 1.0, (0,)))
_register("NoActions", "Spaces", actions=Box(-1.0, 1.0, (0,)))
_register("ManyWholeActions", "Spaces", actions=Box(0, 2**20, (1,), np.int64))
_register("FarBounds", "Spaces", actions=Box(-1.7e308, 1.7e308, (1,), np.float64))
_register("LongDoubles", "Spaces", actions=Box(-1.0, 1.0, (1,), np.longdouble))
_register("NoSpaces", "Spaceless")
_register("OtherLibrary", "Spaces", observations={"shape": (3,)})
_register("BinaryActions", "Spaces", actions=MultiBinary(3))
_register("Batch", "batch")
