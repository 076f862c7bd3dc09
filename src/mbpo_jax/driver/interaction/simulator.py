"""A Gymnasium environment whose form is checked: the part of `Environment` that may run in a process of its own.

Imports no jax, so that such a process starts quickly. Values may be anything, form may not: numbers, of the
shape that the spaces promise. Whatever else happens is a `Failure`, which says what and keeps the traceback.
"""

import contextlib
import traceback
import warnings
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, NamedTuple

import gymnasium
import numpy as np

import mbpo_jax.environments  # noqa: F401  (registers the project's own ids)
from mbpo_jax.driver.interaction import rendering

RENDER_MODE = "rgb_array"
NUMBER_KINDS = "fiub"  # of dtype.kind: floats, integers, booleans


class Step(NamedTuple):
    """One step. `terminal` ends the MDP; `truncated` ends the clock only."""

    next_obs: np.ndarray  # [O], float32
    reward: float
    terminal: bool
    truncated: bool


class Spaces(NamedTuple):
    """Sizes and bounds, flattened, and the time limit."""

    obs_dim: int
    action_low: np.ndarray  # [A], of the action space's dtype
    action_high: np.ndarray
    max_episode_steps: int  # the one in force, the environment's own or the run's


def spaces_to_json(spaces: Spaces) -> dict[str, Any]:
    """Returns spaces as `config.json` keeps them, and as they travel between processes."""
    return {
        "obs_dim": spaces.obs_dim,
        "action_low": spaces.action_low.tolist(),
        "action_high": spaces.action_high.tolist(),
        "action_dtype": spaces.action_low.dtype.str,
        "max_episode_steps": spaces.max_episode_steps,
    }


def spaces_from_json(value: Mapping[str, Any]) -> Spaces:
    """Returns the spaces that `spaces_to_json` wrote down.

    Raises:
      ValueError, KeyError, TypeError: it is something else.
    """
    dtype = np.dtype(str(value["action_dtype"]))
    low, high = (np.asarray(value[name], dtype) for name in ("action_low", "action_high"))
    if dtype.kind not in NUMBER_KINDS or low.ndim != 1 or low.shape != high.shape or not np.isfinite([low, high]).all():
        raise ValueError(f"action bounds must be two lists of numbers, got {low.tolist()} and {high.tolist()}")
    for name in ("obs_dim", "max_episode_steps"):
        if type(value[name]) is not int or value[name] < 1:
            raise ValueError(f"{name} must be a whole number, 1 or more, got {value[name]!r}")
    return Spaces(value["obs_dim"], low, high, value["max_episode_steps"])


class Unfit(ValueError):
    """An environment that cannot be used at all: the user's choice is wrong."""


class Failure(Exception):
    """`reason` goes after the environment's name in a sentence; `traceback` is the environment's own, if any."""

    def __init__(self, reason: str, traceback: str | None = None) -> None:
        super().__init__(reason)
        self.reason, self.traceback = reason, traceback


class Simulator:
    """A Gymnasium environment in this process.

    Raises, in all of its functions but `close`:
      Failure: the environment raised, or gave something of another form. KeyboardInterrupt passes through.
    And where it is made:
      Unfit: there is no such environment, or it is not one with vectors for observations and actions.
    """

    def __init__(self, env_id: str, max_episode_steps: int, renders: bool = False) -> None:
        with _blaming():
            self._env = _make(env_id, max_episode_steps, RENDER_MODE if renders else None)
            observations, actions = _check_spaces(env_id, self._env)
        self._obs_shape, self._action_shape, self._action_dtype = observations.shape, actions.shape, actions.dtype
        obs_dim = int(np.prod(observations.shape))
        limit = self._env.spec.max_episode_steps
        self.spaces = Spaces(obs_dim, actions.low.reshape(-1), actions.high.reshape(-1), limit)

    def reset(self, seed: int) -> np.ndarray:
        """Begins an episode; returns its first observation [O], float32."""
        with _blaming():
            result = self._env.reset(seed=seed)
            if not (isinstance(result, tuple) and len(result) == 2):
                raise Failure(f"gave {_kind(result)} where reset returns (obs, info)")
            return self._observation(result[0])

    def step(self, action: np.ndarray) -> Step:
        """Takes one step with an action [A], float64, in the environment's bounds."""
        with _blaming():
            scaled = action.reshape(self._action_shape).astype(self._action_dtype)
            obs, reward, terminated, truncated, _ = self._env.step(scaled)
            flags = _flag("terminated", terminated), _flag("truncated", truncated)
            return Step(self._observation(obs), _number("reward", reward), *flags)

    def render(self) -> np.ndarray:
        """Returns a picture of what is now, uint8 [height, width, 3]; only where it was made with `renders`."""
        with _blaming():
            picture = np.asarray(self._env.render())
            if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
                raise Failure(f"rendered no picture, but {picture.dtype} {list(picture.shape)},")
            return picture

    @property
    def frames_per_second(self) -> float:
        """Returns how many steps make a second of film, as far as the environment says."""
        return float(self._env.metadata.get("render_fps") or 30)

    def close(self) -> None:
        """Frees what the environment holds. It is no longer used, so nothing that it raises matters."""
        with contextlib.suppress(Exception, SystemExit):
            self._env.close()

    def _observation(self, obs: Any) -> np.ndarray:
        """Returns a copy [O]: some environments write every observation into the same array."""
        given = np.asarray(obs)
        if given.dtype.kind not in NUMBER_KINDS:
            raise Failure(f"gave an observation that is no array of numbers, {_kind(obs)} of {given.dtype},")
        if given.shape != self._obs_shape:
            raise Failure(
                f"gave an observation of {given.size} numbers where its space has {self.spaces.obs_dim} "
                f"(shape {given.shape}, not {self._obs_shape})"
            )
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, which the caller checks for
            return given.astype(np.float32).reshape(-1)


@contextlib.contextmanager
def _blaming() -> Iterator[None]:
    """Turns whatever is raised inside into a Failure; some environments raise SystemExit, which is no Exception."""
    try:
        yield
    except (KeyboardInterrupt, Failure, Unfit):
        raise
    except BaseException as error:
        last_line = " ".join(traceback.format_exception_only(error)[-1].split())
        lines = traceback.format_exception(type(error), error, _below_this_file(error.__traceback__))
        raise Failure(f"raised {last_line}", "".join(lines)) from error


def _below_this_file(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return trace


def _kind(value: Any) -> str:
    size = f" of {len(value)}" if isinstance(value, tuple | list) else ""
    return f"a {type(value).__name__}{size}"


def _number(name: str, value: Any) -> float:
    array = np.asarray(value)
    if array.dtype.kind not in NUMBER_KINDS or array.size != 1:
        raise Failure(f"gave a {name} that is no number, {_kind(value)},")
    return float(array.reshape(())[()])


def _flag(name: str, value: Any) -> bool:
    array = np.asarray(value)
    if array.dtype != np.bool_ or array.size != 1:
        raise Failure(f"gave a flag {name} that is no boolean, {_kind(value)},")
    return bool(array.reshape(())[()])


def _make(env_id: str, max_episode_steps: int, render_mode: str | None) -> gymnasium.Env:
    limit = max_episode_steps or None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # "a newer version exists": v4 is chosen on purpose
            env = gymnasium.make(env_id, max_episode_steps=limit, disable_env_checker=True)
            if render_mode is not None:  # some that cannot render do not take the argument
                _check_renders(env_id, env, render_mode)
                env.close()
                env = gymnasium.make(env_id, max_episode_steps=limit, disable_env_checker=True, render_mode=render_mode)
    except Exception as error:
        if (no_backend := rendering.problem()) is not None:
            raise Unfit(no_backend) from error
        if not isinstance(error, gymnasium.error.Error | ImportError | ValueError):
            raise
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise Unfit(f"env must be an installed Gymnasium id, got {env_id!r} ({first_line})") from error
    if env.spec is None or env.spec.max_episode_steps is None:
        raise Unfit(f"max_episode_steps must be given, 1 or more: env {env_id!r} has no time limit of its own, got 0")
    return env


def _check_renders(env_id: str, env: gymnasium.Env, render_mode: str) -> None:
    modes = list(env.metadata.get("render_modes") or [])
    if render_mode not in modes:
        raise Unfit(f"env must have the render mode {render_mode!r} to be filmed, got {env_id!r} with {modes}")


def _check_spaces(env_id: str, env: gymnasium.Env) -> tuple[gymnasium.spaces.Box, gymnasium.spaces.Box]:
    observations, actions = env.observation_space, env.action_space
    if not isinstance(actions, gymnasium.spaces.Box):
        raise Unfit(f"env must have continuous (Box) actions, got {env_id!r} with {actions}")
    if not np.isfinite(actions.low).all() or not np.isfinite(actions.high).all():
        raise Unfit(f"env must have bounded actions, got {env_id!r} with {actions}")
    if not isinstance(observations, gymnasium.spaces.Box):
        raise Unfit(f"env must have Box observations, got {env_id!r} with {observations}")
    if observations.dtype == np.uint8 or len(observations.shape) > 2:
        raise Unfit(
            f"env must have vector observations, got {env_id!r} with images {observations.shape}; "
            "wrap it so that it returns features"
        )
    return observations, actions
