"""Environments with planted properties, for `--env=odd_worlds:odd/Name-v0`."""

import ctypes
import os
import random
import resource
import signal
import subprocess
import sys
import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium import wrappers
from gymnasium.spaces import Box, Dict, MultiBinary
from world_kinds import (  # noqa: F401  (entry points and tests name them)
    ACTIONS,
    CLOSED,
    PORTS,
    Containing,
    Drawing,
    Forgets,
    Forks,
    Modules,
    OtherSpaces,
    Port,
    Reusing,
    Rich,
    Spaceless,
    Spaces,
    StartsProgram,
    Still,
    TakesNoSeed,
    ThreadBound,
    Whitened,
    World,
)

PLANS: list[Any] = []  # what the next instances of Planned are made with, or raise


def draw_globally(world):
    return np.random.normal() + random.random()  # noqa: NPY002


def draw_seldom(world):
    """In the first episode of an instance, and at the sixth step of the others."""
    return draw_globally(world) if world._time > 0 and (world._episode == 0 or world._time == 6) else 0.0


def draw_from_spaces(world):
    return float(world.action_space.sample().sum() + world.observation_space.sample().sum())


def batch():
    return gymnasium.make_vec("Pendulum-v1", num_envs=2)


def wrapped(how):
    return how(World())


def frozen():
    env = wrappers.NormalizeObservation(World())
    env.update_running_mean = False
    return env


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
_register("DrawsSeldom", "Drawing", draw=draw_seldom, max_episode_steps=8)
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
