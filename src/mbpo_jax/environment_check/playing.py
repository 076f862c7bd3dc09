"""Makes and steps an environment, and records what it returned."""

import dataclasses
import time
import warnings
from collections.abc import Iterable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Discrete

import mbpo_jax.environments  # noqa: F401  (registers the project's own ids)
from mbpo_jax.environment_check.finding import Finding, note, one_line, problem

STEP_RETURNS = "step must return (obs, reward, terminated, truncated, info)"
NUMBER_KINDS = "fiub"  # of dtype.kind: floats, integers, booleans


class Malformed(Exception):
    """The environment returned something in a form that Gymnasium does not allow."""

    def __init__(self, found: str, advice: str) -> None:
        super().__init__(found)
        self.finding = problem(found, advice)


@dataclasses.dataclass
class Trace:
    """The T steps that were played, in complete or unfinished episodes."""

    obs: np.ndarray  # [T, O], float64, before the step
    action: np.ndarray  # [T, A], in the environment's bounds
    next_obs: np.ndarray  # [T, O]
    reward: np.ndarray  # [T]
    terminated: np.ndarray  # [T], bool
    truncated: np.ndarray  # [T], bool
    limit_in_info: int  # steps whose info calls their end a time limit, and which are `terminated`
    lengths: list[tuple[int, bool, bool]]  # of the complete episodes: steps, terminated, truncated
    dtypes: list[str]  # of observations
    seconds: float  # in `step`
    findings: list[Finding]
    actions: list[np.ndarray]  # T of them, in the shape and dtype of the space

    def __len__(self) -> int:
        return len(self.reward)

    def beginning(self, num_steps: int) -> list[np.ndarray]:
        """Returns the first `num_steps` of what is compared between plays of the same actions."""
        parts = (self.obs, self.next_obs, self.reward, self.terminated, self.truncated)
        return [part[:num_steps] for part in parts]


def make(env_id: str, max_episode_steps: int) -> gymnasium.Env:
    """Makes an environment as Gymnasium does, without Gymnasium's checker.

    Raises:
      ValueError: no environment has this id. Anything else that its constructor raises propagates.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return gymnasium.make(env_id, max_episode_steps=max_episode_steps or None, disable_env_checker=True)
    except (gymnasium.error.Error, ImportError) as error:
        raise ValueError(f"ENV must be an installed Gymnasium id, got {env_id!r} ({one_line(error)})") from error


def play(env: gymnasium.Env, actions: Iterable[np.ndarray], seed: int) -> Trace:
    """Plays actions, one after another; episode n is reset with the seed `seed + n`.

    An exception from the environment ends the play, and is a finding.
    """
    recorder = _Recorder(env)
    try:
        for action in actions:
            recorder.step(action, seed)
    except Malformed as malformed:
        recorder.findings.append(malformed.finding)
    except (Exception, SystemExit) as error:
        recorder.findings.append(problem(f"{recorder.doing} raised {one_line(error)}", _advice(error)))
    return recorder.trace()


def _advice(error: BaseException) -> str:
    if isinstance(error, ValueError) and "values to unpack (expected 5" in str(error):  # in Gymnasium's wrappers
        return STEP_RETURNS
    return "a run would end there with its traceback"


class _Recorder:
    """Steps an environment and checks the form of what it returns."""

    def __init__(self, env: gymnasium.Env) -> None:
        self._env = env
        self._rows: list[tuple[Any, ...]] = []
        self._obs: np.ndarray | None = None  # None: to be reset
        self._given: Any = None  # the array that the newest observation came in
        self._episode, self._length = 0, 0
        self._lengths: list[tuple[int, bool, bool]] = []
        self._dtypes: list[str] = []
        self._seconds, self._limit_in_info = 0.0, 0
        self.findings: list[Finding] = []
        self.doing = "reset"

    def step(self, action: np.ndarray, seed: int) -> None:
        """Takes a step, after a reset if one is due."""
        if self._obs is None:
            self._obs = self._reset(seed + self._episode)
        self.doing = f"step {self._length + 1} of episode {self._episode}"
        given = action.copy()
        began = time.perf_counter()
        result = self._env.step(given)
        self._seconds += time.perf_counter() - began
        if not (isinstance(result, tuple) and len(result) == 5):
            size = f" of {len(result)} values" if isinstance(result, tuple | list) else ""
            raise Malformed(f"step returned a {type(result).__name__}{size}", STEP_RETURNS)
        if not np.array_equal(given, action):
            self._once(note("step modifies the action array that it receives; runs give it a copy"))
        obs, reward, terminated, truncated, info = result
        next_obs = self._observation(obs)
        row = (self._obs, action, next_obs, _number(reward), _flag("terminated", terminated))
        self._rows.append((*row, _flag("truncated", truncated)))
        self._limit_in_info += bool(terminated) and isinstance(info, dict) and bool(info.get("TimeLimit.truncated"))
        self._obs, self._length = next_obs, self._length + 1
        if terminated or truncated:
            self._lengths.append((self._length, bool(terminated), bool(truncated)))
            self._obs, self._length, self._episode = None, 0, self._episode + 1

    def trace(self) -> Trace:
        """Returns what was played."""
        obs_dim, action_dim = (
            1 if isinstance(space, Discrete) else int(np.prod(space.shape or (0,)))
            for space in (self._env.observation_space, self._env.action_space)
        )
        names = ("obs", "action", "next_obs", "reward", "terminated", "truncated")
        columns = dict(zip(names, zip(*self._rows))) if self._rows else dict.fromkeys(names, ())
        rows = len(self._rows)
        return Trace(
            obs=np.asarray(columns["obs"], float).reshape(rows, obs_dim),
            action=np.asarray(columns["action"], float).reshape(rows, action_dim),
            next_obs=np.asarray(columns["next_obs"], float).reshape(rows, obs_dim),
            reward=np.asarray(columns["reward"], float),
            terminated=np.asarray(columns["terminated"], bool),
            truncated=np.asarray(columns["truncated"], bool),
            limit_in_info=self._limit_in_info,
            lengths=self._lengths,
            dtypes=self._dtypes,
            seconds=self._seconds,
            findings=self.findings,
            actions=list(columns["action"]),
        )

    def _reset(self, seed: int) -> np.ndarray:
        self.doing = f"reset(seed={seed}) of episode {self._episode}"
        result = self._env.reset(seed=seed)
        if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)):
            raise Malformed(f"reset returned a {type(result).__name__}", "return (obs, info), where info is a dict")
        self._given = None
        return self._observation(result[0])

    def _observation(self, obs: Any) -> np.ndarray:
        array = np.asarray(obs)
        if array.dtype.kind not in NUMBER_KINDS:
            raise Malformed(
                f"{self.doing} returned an observation that is not an array of numbers, {array.dtype}",
                "return an array",
            )
        if array.shape != self._env.observation_space.shape:
            raise Malformed(
                f"{self.doing} returned an observation of shape {array.shape} where its space has "
                f"{self._env.observation_space.shape}",
                "make them the same",
            )
        if self._given is not None and isinstance(obs, np.ndarray) and np.shares_memory(obs, self._given):
            self._once(note("every observation is returned in the same array; runs copy it, other code may not"))
        self._given = obs if isinstance(obs, np.ndarray) else None
        if str(array.dtype) not in self._dtypes:
            self._dtypes.append(str(array.dtype))
        return array.astype(np.float64).reshape(-1)

    def _once(self, finding: Finding) -> None:
        if finding not in self.findings:
            self.findings.append(finding)


def _number(value: Any) -> float:
    array = np.asarray(value)
    if array.dtype.kind not in NUMBER_KINDS or array.size != 1:
        raise Malformed(f"step returned a reward that is not a number, {type(value).__name__}", "return a float")
    return float(array.reshape(())[()])


def _flag(name: str, value: Any) -> bool:
    array = np.asarray(value)
    if array.dtype != np.bool_ or array.size != 1:
        raise Malformed(
            f"step returned a flag {name} that is not a boolean, {type(value).__name__} {value}", "return a bool"
        )
    return bool(array.reshape(())[()])
