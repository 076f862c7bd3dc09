"""Worlds with a fault each in ends, seeds, rewards, or what `reset` and `step` take and return; some do no harm."""

import threading

import numpy as np

from sound_walk import Walk


class NanReward(Walk):
    def step(self, action):
        obs, reward, *rest = super().step(action)
        return obs, np.inf if self.time == 7 else reward, *rest


class ClockTerminates(Walk):
    def step(self, action):
        obs, reward, *_ = super().step(0.1 * action)
        return obs, reward, self.time == 20, False, {}


class ClockTerminatesToo(Walk):
    def step(self, action):
        obs, reward, terminated, *_ = super().step(action)
        return obs, reward, terminated or self.time == 20, False, {}


class ClockInInfo(Walk):
    def step(self, action):
        obs, reward, terminated, *_ = super().step(action)
        return obs, reward, terminated or self.time == 40, False, {"TimeLimit.truncated": self.time == 40}


class Swapped(Walk):
    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, reward, truncated, terminated, info


class EndsAtOnce(Walk):
    def step(self, action):
        obs, reward, *_ = super().step(action)
        return obs, reward, True, False, {}


class OwnClock(Walk):
    """Time goes on between episodes: the same seed begins elsewhere."""

    made = 0

    def __init__(self):
        super().__init__()
        OwnClock.made += 1
        self.offset = 0.01 * OwnClock.made

    def draw(self):
        return self.offset + super().draw()


class IgnoresSeed(Walk):
    def __init__(self):
        super().__init__()
        self.own = np.random.default_rng(3)

    def draw(self):
        return float(self.own.uniform(-0.5, 0.5))


class Remembers(Walk):
    episodes = 0

    def draw(self):
        self.episodes += 1
        return super().draw() + 0.001 * self.episodes


class GlobalDraws(Walk):
    def draw(self):
        return float(np.random.uniform(-0.5, 0.5))  # noqa: NPY002


class GlobalSeeds(Walk):
    def draw(self):
        np.random.seed(int(self.np_random.integers(1000)))  # noqa: NPY002
        return float(np.random.uniform(-0.5, 0.5))  # noqa: NPY002


class HugeReward(Walk):
    def step(self, action):
        obs, reward, *rest = super().step(action)
        return obs, 1e9 * reward, *rest


class TinyReward(Walk):
    def step(self, action):
        obs, reward, *rest = super().step(action)
        return obs, 1e-9 * reward, *rest


class NoReward(Walk):
    def step(self, action):
        obs, _, *rest = super().step(action)
        return obs, 0.0, *rest


class OldStep(Walk):
    def step(self, action):
        obs, reward, terminated, _, info = super().step(action)
        return obs, reward, terminated, info


class OldReset(Walk):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0]


class NoSeed(Walk):
    def reset(self):
        return super().reset()


class NumberFlag(Walk):
    def step(self, action):
        obs, reward, terminated, *rest = super().step(action)
        return obs, reward, int(terminated), *rest


class TextReward(Walk):
    def step(self, action):
        obs, reward, *rest = super().step(action)
        return obs, str(reward), *rest


class OtherShape(Walk):
    def observe(self):
        return np.zeros(3, np.float32)


class SharedArray(Walk):
    def observe(self):
        self.array = getattr(self, "array", np.zeros(2, np.float32))
        self.array[:] = self.position, self.action
        return self.array


class ChangesAction(Walk):
    def step(self, action):
        result = super().step(action)
        action *= 0.5
        return result


class DeafToActions(Walk):
    def step(self, action):
        return super().step(np.float32([0.05]) * (-1) ** (self.time // 7))


class RefusesBounds(Walk):
    def step(self, action):
        assert abs(action[0]) < 1.0, "out of bounds"
        return super().step(action)


class OneThread(Walk):
    def __init__(self):
        super().__init__()
        self.owner = threading.get_ident()

    def reset(self, *, seed=None, options=None):
        if threading.get_ident() != self.owner:
            raise RuntimeError("created in another thread")
        return super().reset(seed=seed)


class OneInstance(Walk):
    free = True

    def __init__(self):
        super().__init__()
        if not OneInstance.free:
            raise OSError(98, "Address already in use")
        OneInstance.free = False

    def close(self):
        OneInstance.free = True


class Fails(Walk):
    def step(self, action):
        if self.time == 3 and self.position > 0.2:
            raise RuntimeError("the gripper\nis stuck")
        return super().step(action)


class FailsWhenMade(Walk):
    def __init__(self):
        raise RuntimeError("no robot")
