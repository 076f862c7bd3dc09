"""Spaces of observations and actions: which are supported, and how actions in [-1, 1] become the environment's own.

Numbers of a Discrete space are one-hot rows everywhere but in the environment itself and in what a user gives a policy.
Imports no jax, so that an environment in a process of its own starts quickly.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete

NUMBER_KINDS = "fiub"  # of dtype.kind: floats, integers, booleans
WHOLE_KINDS = "iub"
MOST_WHOLE_NUMBERS = 2**20  # of a float32 action in [-1, 1] each gets an equal share, to a few percent


class Unfit(ValueError):
    """An environment that cannot be used at all: the user's choice is wrong."""


class Spaces(NamedTuple):
    """Sizes and bounds, flattened, and the time limit."""

    obs_dim: int
    action_low: np.ndarray  # [A], of the action space's dtype
    action_high: np.ndarray
    max_episode_steps: int  # the limit that applies: the environment's own or the run's
    action_shape: tuple[int, ...] | None = None  # of A numbers, as the environment takes them; None: unknown
    obs_start: int | None = None  # smallest observation of a Discrete space of O numbers; None: it is a Box
    action_start: int | None = None  # the same of actions; their bounds are then those of one-hot rows, 0 and 1

    def as_given(self, actions: np.ndarray) -> np.ndarray:
        """Returns actions or bounds [A] in the shape that the environment takes."""
        return actions if self.action_shape is None else actions.reshape(self.action_shape)

    def to_environment(self, action: np.ndarray) -> np.ndarray:
        """Returns an action [A] in [-1, 1] as the environment takes it: [A], or the number [] of a Discrete action."""
        if self.action_start is None:
            return rescale(action, self.action_low, self.action_high)
        return np.asarray(self.action_start + int(np.argmax(action)), self.action_low.dtype)

    def row(self, obs: Any) -> np.ndarray:
        """Returns the one-hot row [O], float32, of an observation of a Discrete space.

        Raises:
          ValueError: it is not one; says what it must be.
        """
        first = self.obs_start or 0
        last = first + self.obs_dim - 1
        number = np.zeros(0) if isinstance(obs, tuple | list) else np.asarray(obs)
        if number.dtype.kind not in "iu" or number.size != 1 or not first <= int(number.reshape(())) <= last:
            raise ValueError(f"an observation must be one whole number in [{first}, {last}], got {obs!r}")
        return (np.arange(first, last + 1) == number).astype(np.float32)

    def in_words(self) -> tuple[str, str]:
        """Returns the spaces of observations and of actions, in words."""
        return _in_words(self.obs_dim, self.obs_start), _in_words(self.action_low.size, self.action_start)


def from_gymnasium(observations: Box | Discrete, actions: Box | Discrete, max_episode_steps: int) -> Spaces:
    """Returns the sizes and bounds of spaces that `check` has accepted."""
    if isinstance(observations, Discrete) and isinstance(actions, Discrete):
        sizes, starts = (int(observations.n), int(actions.n)), (int(observations.start), int(actions.start))
        low, high = np.zeros(sizes[1], actions.dtype), np.ones(sizes[1], actions.dtype)
        return Spaces(sizes[0], low, high, max_episode_steps, None, *starts)
    assert isinstance(observations, Box) and isinstance(actions, Box)
    low, high = actions.low, actions.high
    return Spaces(int(np.prod(observations.shape)), low.reshape(-1), high.reshape(-1), max_episode_steps, low.shape)


def _in_words(size: int, start: int | None) -> str:
    if start is None:
        return f"a Box of {size} number{'' if size == 1 else 's'}"
    return f"Discrete({size}{f', start={start}' if start else ''})"


def spaces_to_json(spaces: Spaces) -> dict[str, Any]:
    """Returns spaces as `config.json` keeps them, and as they are sent between processes.

    The shape of actions is left out where it is [A], as it was in older versions.
    """
    is_flat = spaces.action_shape in (None, spaces.action_low.shape)
    shape: dict[str, Any] = {} if is_flat else {"action_shape": list(spaces.action_shape or ())}
    starts = {"obs_start": spaces.obs_start, "action_start": spaces.action_start}
    return (
        {
            "obs_dim": spaces.obs_dim,
            "action_low": spaces.action_low.tolist(),
            "action_high": spaces.action_high.tolist(),
            "action_dtype": spaces.action_low.dtype.str,
            "max_episode_steps": spaces.max_episode_steps,
        }
        | shape
        | {name: start for name, start in starts.items() if start is not None}
    )


def spaces_from_json(value: Mapping[str, Any]) -> Spaces:
    """Returns the spaces that `spaces_to_json` wrote down.

    Raises:
      ValueError, KeyError, TypeError: `value` is something else.
    """
    dtype = np.dtype(str(value["action_dtype"]))
    low, high = (np.asarray(value[name], dtype) for name in ("action_low", "action_high"))
    if dtype.kind not in NUMBER_KINDS or low.ndim != 1 or low.shape != high.shape or not np.isfinite([low, high]).all():
        raise ValueError(f"action bounds must be two lists of numbers, got {low.tolist()} and {high.tolist()}")
    for name in ("obs_dim", "max_episode_steps"):
        if type(value[name]) is not int or value[name] < 1:
            raise ValueError(f"{name} must be a whole number, 1 or more, got {value[name]!r}")
    starts = [value.get(name) for name in ("obs_start", "action_start")]
    if not all(start is None or type(start) is int for start in starts):
        raise ValueError(f"obs_start and action_start must be whole numbers, got {starts}")
    shape = tuple(value.get("action_shape", low.shape))
    if not all(type(size) is int and size > 0 for size in shape) or math.prod(shape) != low.size:
        raise ValueError(f"action_shape must be of {low.size} numbers, got {shape}")
    return Spaces(value["obs_dim"], low, high, value["max_episode_steps"], shape, *starts)


def same(spaces: Spaces, others: Spaces) -> bool:
    """Returns whether both have equal sizes, bounds and types; the time limit is left to the caller."""
    (ours, theirs) = (spaces_to_json(one) | {"max_episode_steps": None} for one in (spaces, others))
    return ours == theirs


def rescale(action: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Returns an action in [-1, 1] rescaled to the environment's own bounds, never outside them, in their dtype.

    Whole numbers share [-1, 1] equally, so that a uniform action is a uniform whole number.

    Args:
      action, low, high: all of the same shape.
    """
    unit = np.minimum(np.maximum(0.5 * (np.asarray(action, np.float64) + 1.0), 0.0), 1.0)
    if low.dtype.kind in WHOLE_KINDS:
        last = high.astype(np.int64) - low.astype(np.int64)
        chosen = np.minimum(np.floor(unit * (last + 1)), last).astype(np.int64)
        return (low.astype(np.int64) + chosen).astype(low.dtype)
    scaled = (low + unit * (np.asarray(high, np.float64) - low)).astype(low.dtype)
    return np.minimum(np.maximum(scaled, low), high)  # rounding may lead outside


def check(env_id: str, env: gymnasium.Env) -> tuple[Box, Box] | tuple[Discrete, Discrete]:
    """Returns the spaces of observations and actions; which of the two kinds an algorithm takes is not checked here.

    Raises:
      Unfit: they are not supported; names the environment and the space.
    """
    observations, actions = (_space(env_id, env, name) for name in ("observation_space", "action_space"))
    if isinstance(observations, Discrete) and isinstance(actions, Discrete):
        return observations, actions
    if not isinstance(actions, Box):
        if isinstance(actions, Discrete):
            vectors = isinstance(observations, Box)
            kind = f"a Box of {np.prod(observations.shape)} numbers" if vectors else _described(observations)
            raise Unfit(
                f"env must have continuous (Box) actions, or Discrete observations and actions for tables, got "
                f"{env_id!r} with {kind} and {_described(actions)}"
            )
        raise Unfit(f"env must have continuous (Box) actions, got {env_id!r} with {_described(actions)}")
    if not isinstance(observations, Box):
        flatten = "; wrap it in gymnasium.wrappers.FlattenObservation" if _is_of_gymnasium(observations) else ""
        raise Unfit(f"env must have Box observations, got {env_id!r} with {_described(observations)}{flatten}")
    for name, space in (("observations", observations), ("actions", actions)):
        if 0 in space.shape:
            raise Unfit(f"env must have {name} of at least one number, got {env_id!r} with {space}")
    if len(observations.shape) > 2 or (observations.dtype == np.uint8 and len(observations.shape) == 2):
        raise Unfit(
            f"env must have vector observations, got {env_id!r} with images {observations.shape}; "
            "wrap it so that it returns features"
        )
    _check_bounds(env_id, actions)
    return observations, actions


def _check_bounds(env_id: str, actions: Box) -> None:
    low, high = actions.low, actions.high
    if not np.isfinite(low).all() or not np.isfinite(high).all():
        raise Unfit(f"env must have bounded actions, got {env_id!r} with {actions}")
    if low.dtype.kind not in NUMBER_KINDS or low.dtype.itemsize > 8:
        raise Unfit(f"env must have actions of at most 64 bits a number, got {env_id!r} with {low.dtype}")
    if (low > high).any():
        raise Unfit(f"env must have actions whose lower bounds are not above the upper ones, got {env_id!r}: {actions}")
    widest = max(top - bottom for top, bottom in zip(high.ravel().tolist(), low.ravel().tolist()))
    if low.dtype.kind in WHOLE_KINDS and widest >= MOST_WHOLE_NUMBERS:
        raise Unfit(
            f"env must have actions of at most {MOST_WHOLE_NUMBERS:,} whole numbers each, got {env_id!r} with "
            f"{actions}; give it a space of floats"
        )
    if math.isinf(widest):
        raise Unfit(f"env must have action bounds with a finite distance, got {env_id!r} with {actions}")


def _space(env_id: str, env: gymnasium.Env, name: str) -> Any:
    space = getattr(env, name, None)
    if space is None:
        raise Unfit(f"env must have an {name.replace('_', ' ')}, got {env_id!r} with none: set self.{name}")
    return space


def _is_of_gymnasium(space: Any) -> bool:
    return isinstance(space, gymnasium.Space)


def _described(space: Any) -> str:
    if _is_of_gymnasium(space):
        return str(space)
    return f"{space} (a {type(space).__module__}.{type(space).__name__}, not one of gymnasium.spaces)"
