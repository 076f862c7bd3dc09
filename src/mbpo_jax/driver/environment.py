"""One Gymnasium environment of one seed, checked at the door.

Actions are in [-1, 1] outside and rescaled here. Episode n of a seed is reset with a seed of its own, so that
a running episode can be repeated from its number and its actions alone: that is what a checkpoint holds.
"""

import importlib
import warnings
from typing import Any, NamedTuple

import gymnasium
import numpy as np

import mbpo_jax.environments  # noqa: F401  (registers the project's own ids)
from mbpo_jax import terminations
from mbpo_jax.driver.config import AUTO, DIVERGENCE_ADVICE, NEVER, Diverged, EnvironmentFailure
from mbpo_jax.types import TerminationFn

TRAINING, EVALUATION = 0, 1  # streams of episode seeds


class Step(NamedTuple):
    """One step. `terminal` ends the MDP; `truncated` ends the clock only."""

    next_obs: np.ndarray  # [O], float32
    reward: float
    terminal: bool
    truncated: bool


class Environment:
    """An environment with Box observations and actions, and the journal of its running episode."""

    def __init__(self, env_id: str, seed: int, stream: int = TRAINING, max_episode_steps: int = 0) -> None:
        self._env = _make(env_id, max_episode_steps)
        self._env_id, self._seed, self._stream = env_id, seed, stream
        observations, actions = _check_spaces(env_id, self._env)
        self.obs_dim, self.action_dim = int(np.prod(observations.shape)), int(np.prod(actions.shape))
        self.action_low, self.action_high = actions.low.reshape(-1), actions.high.reshape(-1)
        self._action_shape, self._action_dtype = actions.shape, actions.dtype
        self.episode = -1  # number of the running episode
        self.actions: list[np.ndarray] = []  # [A] each, of the running episode
        self.episode_return = 0.0

    def reset(self, episode: int | None = None) -> np.ndarray:
        """Begins the next episode, or that of the given number; returns its first observation [O]."""
        self.episode = self.episode + 1 if episode is None else episode
        self.actions, self.episode_return = [], 0.0
        entropy = np.random.SeedSequence([self._seed, self._stream, self.episode])
        obs, _ = self._env.reset(seed=int(entropy.generate_state(1)[0]))
        return self._checked(obs, 0.0)

    def step(self, action: np.ndarray) -> Step:
        """Takes one step with an action [A] in [-1, 1].

        Raises:
          Diverged: the action is not finite, so that the environment is not to blame for what it would do.
          EnvironmentFailure: an observation or reward is not finite in float32; names environment and step.
        """
        if not np.isfinite(action).all():
            raise Diverged(
                f"the policy's action is not finite at step {len(self.actions) + 1} of episode {self.episode} "
                f"(seed {self._seed}). {DIVERGENCE_ADVICE}"
            )
        self.actions.append(np.asarray(action, np.float32))
        scaled = rescale(action, self.action_low, self.action_high)
        obs, reward, terminated, truncated, _ = self._env.step(
            scaled.reshape(self._action_shape).astype(self._action_dtype)
        )
        self.episode_return += float(reward)
        return Step(self._checked(obs, float(reward)), float(reward), bool(terminated), bool(truncated))

    def repeat(self, episode: int, actions: np.ndarray, episode_return: float) -> np.ndarray:
        """Goes to where the journal [T, A] of an episode ended; returns the observation there."""
        obs = self.reset(episode)
        for action in actions:
            obs = self.step(action).next_obs
        self.episode_return = episode_return
        return obs

    def close(self) -> None:
        """Frees what the simulator holds."""
        self._env.close()

    def _checked(self, obs: Any, reward: float) -> np.ndarray:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused below
            flat, stored_reward = np.asarray(obs, np.float32).reshape(-1), np.float32(reward)
        if not (np.isfinite(flat).all() and np.isfinite(stored_reward)):
            what = f"reward {reward}" if np.isfinite(flat).all() else f"observation {flat.tolist()}"
            raise EnvironmentFailure(
                f"environment {self._env_id} gave a value that is not finite, {what}, at step "
                f"{len(self.actions)} of episode {self.episode} (seed {self._seed}); "
                "nothing of this step was stored"
            )
        if flat.shape != (self.obs_dim,):
            raise EnvironmentFailure(
                f"environment {self._env_id} gave an observation of {flat.size} numbers where its space has "
                f"{self.obs_dim}"
            )
        return flat


def rescale(action: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """An action [A] in [-1, 1] in the environment's own bounds."""
    return low + 0.5 * (np.asarray(action, np.float64) + 1.0) * (np.asarray(high, np.float64) - low)


def resolve_termination_fn(name: str, env_id: str) -> TerminationFn:
    """The termination function that `--termination_fn` names.

    Raises:
      ValueError: the environment is not known and none is given, or the given one cannot be imported.
    """
    if name == NEVER:
        return terminations.never
    if name == AUTO:
        known = terminations.lookup(env_id)
        if known is None:
            raise ValueError(
                f"termination_fn is not known for env {env_id!r}: pass "
                "--termination_fn=package.module:function, a function of (obs, action, next_obs), each "
                "[B, ...], to bool [B], or --termination_fn=never if episodes only end by time limit"
            )
        return known
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
        if not callable(found):
            raise TypeError(f"{function} is not a function")
        return found
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ValueError(
            "termination_fn must be 'auto', 'never' or package.module:function that can be imported, got "
            f"{name!r} ({error})"
        ) from error


def _make(env_id: str, max_episode_steps: int) -> gymnasium.Env:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # "a newer version exists": v4 is chosen on purpose
            env = gymnasium.make(env_id, max_episode_steps=max_episode_steps or None, disable_env_checker=True)
    except (gymnasium.error.Error, ImportError, ValueError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"env must be an installed Gymnasium id, got {env_id!r} ({first_line})") from error
    if env.spec is None or env.spec.max_episode_steps is None:
        raise ValueError(
            f"max_episode_steps must be given, 1 or more: env {env_id!r} has no time limit of its own, got 0"
        )
    return env


def _check_spaces(env_id: str, env: gymnasium.Env) -> tuple[gymnasium.spaces.Box, gymnasium.spaces.Box]:
    observations, actions = env.observation_space, env.action_space
    if not isinstance(actions, gymnasium.spaces.Box):
        raise ValueError(f"env must have continuous (Box) actions, got {env_id!r} with {actions}")
    if not np.isfinite(actions.low).all() or not np.isfinite(actions.high).all():
        raise ValueError(f"env must have bounded actions, got {env_id!r} with {actions}")
    if not isinstance(observations, gymnasium.spaces.Box):
        raise ValueError(f"env must have Box observations, got {env_id!r} with {observations}")
    if observations.dtype == np.uint8 or len(observations.shape) > 2:
        raise ValueError(
            f"env must have vector observations, got {env_id!r} with images {observations.shape}; "
            "wrap it so that it returns features"
        )
    return observations, actions
