"""A Gymnasium environment, checked for form: the part of `Environment` that may run in a process of its own.

Imports no jax, so that such a process starts quickly. Values may be anything, but they must be numbers, of the
shape that the spaces promise. Anything else is a `Failure`, which says what happened and keeps the traceback.
"""

import contextlib
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from mbpo_jax.driver.interaction import global_random, making, spaces
from mbpo_jax.driver.interaction.spaces import NUMBER_KINDS, Spaces, Unfit

NOTHING = contextlib.nullcontext()


class Step(NamedTuple):
    """One step. `terminal`: the MDP ended; `truncated`: only the episode did, as at a time limit."""

    next_obs: np.ndarray  # [O], float32
    reward: float
    terminal: bool
    truncated: bool


class Failure(Exception):
    """`reason` follows the environment's name in a sentence; `traceback` is the environment's own, if any."""

    def __init__(self, reason: str, traceback: str | None = None) -> None:
        super().__init__(reason)
        self.reason, self.traceback = reason, traceback


class Simulator:
    """A Gymnasium environment in this process.

    Raises, in all of its methods but `close`:
      Failure: the environment raised, or returned something of the wrong form. KeyboardInterrupt passes through.
    And on construction:
      Unfit: there is no such environment, or its spaces are not supported.
    """

    def __init__(
        self, env_id: str, max_episode_steps: int, seed: int = 0, alone: bool = True, renders: bool = False
    ) -> None:
        """Makes the environment, and refuses spaces that are not supported.

        Args:
          seed: seed of the global generators, for what it draws from them while it is made.
          alone: whether they are its own, because nothing of another seed runs in this process.
          renders: whether `render` will be called.
        """
        self._generators_of_its_own = None if alone else global_random.SeparateGenerators(env_id)
        self._seed_generators(seed)
        with _blaming(), self._generators():
            self._env = making.make(env_id, max_episode_steps, renders)
            self._observations, self._actions = spaces.check(env_id, self._env)
        self.spaces: Spaces = spaces.from_gymnasium(self._observations, self._actions, self._env.spec.max_episode_steps)

    def reset(self, seed: int) -> np.ndarray:
        """Begins an episode; returns its first observation [O], float32."""
        self._seed_generators(seed)
        with _blaming(), self._generators():
            self._seed_spaces(seed)
            try:
                result = self._env.reset(seed=seed)
            except TypeError as error:
                if "unexpected keyword argument 'seed'" in str(error):
                    wanted = "Gymnasium's is reset(self, *, seed=None, options=None)"
                    raise Failure(
                        f"has a reset that takes no seed, as old Gym's ({wanted}),", _traceback(error)
                    ) from error
                raise
            if not (isinstance(result, tuple) and len(result) == 2):
                raise Failure(f"returned {_kind(result)} where reset must return (obs, info)")
            self._check_spaces()
            return self._observation(result[0])

    def step(self, action: np.ndarray) -> Step:
        """Takes one step with an action as `Spaces.to_environment` returns it."""
        with _blaming(), self._generators():
            try:
                given = action.reshape(self._actions.shape).astype(self._actions.dtype)
                is_number = self.spaces.action_start is not None  # environments look it up: an array has no hash
                obs, reward, terminated, truncated, _ = self._env.step(given[()] if is_number else given)
            except ValueError as error:
                raise _unpacking_failure(error) or error from None
            flags = _flag("terminated", terminated), _flag("truncated", truncated)
            return Step(self._observation(obs), _number("reward", reward), *flags)

    def render(self) -> np.ndarray:
        """Returns an image of the current state, uint8 [height, width, 3]; only if made with `renders`."""
        with _blaming():
            picture = np.asarray(self._env.render())
            if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
                raise Failure(f"rendered something other than a picture, {picture.dtype} {list(picture.shape)},")
            return picture

    @property
    def frames_per_second(self) -> float:
        """Returns how many steps make a second of video: what the environment says, else 30."""
        return float(self._env.metadata.get("render_fps") or 30)

    def close(self) -> None:
        """Frees what the environment holds. It is no longer used, so whatever it raises does not matter."""
        with contextlib.suppress(Exception, SystemExit):
            self._env.close()

    def _seed_generators(self, seed: int) -> None:
        (self._generators_of_its_own or global_random).seed(seed)

    def _generators(self) -> AbstractContextManager[None]:
        """Returns the context in which the environment runs, with global generators of its own."""
        return NOTHING if self._generators_of_its_own is None else self._generators_of_its_own.running()

    def _check_spaces(self) -> None:
        now = self._env.observation_space, self._env.action_space
        for space, before in zip(now, (self._observations, self._actions)):
            if space is not before and space != before:
                raise Failure(f"changed a space in reset, from {before} to {space},")

    def _seed_spaces(self, seed: int) -> None:
        """Seeds the spaces, from which an environment may sample and which its own seed does not reach."""
        layers = (self._env, self._env.unwrapped)
        names = ("action_space", "observation_space")
        found = {id(space): space for layer in layers for name in names if (space := getattr(layer, name, None))}
        for space in found.values():
            space.seed(seed)

    def _observation(self, obs: Any) -> np.ndarray:
        """Returns a copy [O]: some environments write every observation into the same array."""
        given = np.asarray(obs)
        if given.dtype.kind not in NUMBER_KINDS:
            raise Failure(f"returned an observation that is not an array of numbers, {_kind(obs)} of {given.dtype},")
        if self.spaces.obs_start is not None:
            try:
                return self.spaces.row(given)
            except ValueError as error:
                raise Failure(f"returned an observation outside its space: {error},") from error
        if given.shape != self._observations.shape:
            raise Failure(
                f"returned an observation of {given.size} numbers where its space has {self.spaces.obs_dim} "
                f"(shape {given.shape}, not {self._observations.shape})"
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
        raise Failure(f"raised {last_line}", _traceback(error)) from error


def _traceback(error: BaseException) -> str:
    return "".join(traceback.format_exception(type(error), error, _below_this_package(error.__traceback__)))


def _below_this_package(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None and trace.tb_frame.f_code.co_filename in (__file__, making.__file__, spaces.__file__):
        trace = trace.tb_next
    return trace


def _unpacking_failure(error: ValueError) -> Failure | None:
    """Returns the failure to report if Gymnasium or we unpacked the wrong number of values from step; else None."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    file = "" if trace is None else trace.tb_frame.f_code.co_filename
    if "values to unpack (expected 5" not in str(error) or (file != __file__ and "gymnasium" not in file):
        return None
    old = ", as old Gym's does" if "got 4" in str(error) else ""
    wanted = "where step must return (obs, reward, terminated, truncated, info)"
    return Failure(f"returned another number of values{old}, {wanted} ({error}),", _traceback(error))


def _kind(value: Any) -> str:
    size = f" of {len(value)}" if isinstance(value, tuple | list) else ""
    return f"a {type(value).__name__}{size}"


def _number(name: str, value: Any) -> float:
    if isinstance(value, float):  # nearly all environments', and an array takes a microsecond
        return float(value)
    array = np.asarray(value)
    if array.dtype.kind not in NUMBER_KINDS or array.size != 1:
        raise Failure(f"returned a {name} that is not a number, {_kind(value)},")
    return float(array.reshape(())[()])


def _flag(name: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    array = np.asarray(value)
    if array.dtype != np.bool_ or array.size != 1:
        raise Failure(f"returned a flag {name} that is not a boolean, {_kind(value)},")
    return bool(array.reshape(())[()])
