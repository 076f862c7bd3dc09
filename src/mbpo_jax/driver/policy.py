"""A trained policy: what evaluation acts with, what a run saves, and what a user loads.

A saved policy is one `.npz` of plain arrays (never unpickled) beside the run's `config.json`.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.serialization
import flax.traverse_util
import jax
import numpy as np

from mbpo_jax.algorithms import REGISTRY
from mbpo_jax.driver import environment, run_directory
from mbpo_jax.driver.config import StorageFailure
from mbpo_jax.types import Algorithm, PyTree, Spec

ACTION_LOW, ACTION_HIGH, OBS_DIM = "action_low", "action_high", "obs_dim"


class Policy:
    """Acts deterministically, in the environment's action bounds. Call `reset` where an episode begins."""

    def __init__(
        self, act: Callable[..., Any], algorithm: Algorithm, actor: PyTree, low: np.ndarray, high: np.ndarray
    ) -> None:
        self._act, self._algorithm, self._actor = act, algorithm, actor
        self._low, self._high = low, high
        self.reset()

    def reset(self) -> None:
        """Forgets what was carried over from the steps before (plans; nothing, for reactive policies)."""
        self._carry = self._algorithm.begin_episode(self._actor)

    def unscaled(self, obs: np.ndarray) -> np.ndarray:
        """The action [A] in [-1, 1] for an observation [O]."""
        action, self._carry = self._act(self._actor, self._carry, np.asarray(obs, np.float32).reshape(1, -1))
        return np.asarray(action)[0]

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        """The action [A], float32, in the environment's bounds, for an observation [O]."""
        return environment.rescale(self.unscaled(obs), self._low, self._high).astype(np.float32)


def deterministic_act(algorithm: Algorithm) -> Callable[..., Any]:
    """Compiles `algorithm.act` without exploration: (actor, carry, obs [1, O]) -> (action [1, A], carry)."""
    return jax.jit(lambda actor, carry, obs: algorithm.act(jax.random.key(0), actor, carry, obs, False))


def save_policy(path: Path, actor: PyTree, obs_dim: int, low: np.ndarray, high: np.ndarray) -> None:
    """Writes an actor's arrays and the action bounds to one `.npz`, whole or not at all."""
    contents: dict[str, Any] = {name: np.asarray(leaf) for name, leaf in _flat(actor).items()}
    contents |= {ACTION_LOW: low, ACTION_HIGH: high, OBS_DIM: np.asarray(obs_dim)}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        np.savez(file, **contents)
    os.replace(temporary, path)


def policy_path(run_dir: str | Path, seed: int, best: bool = False) -> Path:
    """Where a run keeps the newest, or the best evaluated, policy of a seed."""
    return Path(run_dir) / "policies" / (f"seed_{seed}_best.npz" if best else f"seed_{seed}.npz")


def load_policy(run_dir: str | Path, seed: int | None = None, best: bool = False) -> Policy:
    """Loads a policy that a run saved, on any device; runs no code from the directory.

    Args:
      seed: which agent; the run's first seed by default.
      best: the policy of the best evaluation instead of the newest.
    Raises:
      StorageFailure: names the file that is missing or does not fit.
    """
    config = run_directory.read_config(Path(run_dir))
    run, knobs = config.run, config.algorithm
    path = policy_path(run_dir, run.seeds[0] if seed is None else seed, best)
    try:
        with path.open("rb") as file:  # NumPy leaves a file that it cannot read open
            archive = np.load(file, allow_pickle=False)
            arrays = {name: archive[name] for name in archive.files}
        low, high, obs_dim = arrays.pop(ACTION_LOW), arrays.pop(ACTION_HIGH), int(arrays.pop(OBS_DIM))
        if low.ndim != 1 or low.shape != high.shape:
            raise ValueError(f"the action bounds are {low.shape} and {high.shape}")
        # A termination function matters to learning only, so any will do here.
        spec = Spec(obs_dim, low.size, environment.resolve_termination_fn("never", run.env))
        algorithm = REGISTRY[run.algorithm].build(knobs, spec)
        template = jax.eval_shape(lambda key: algorithm.actor(algorithm.init(key)), jax.random.key(0))
        _check_arrays(_flat(template), arrays)
        actor = flax.serialization.from_state_dict(
            template, flax.traverse_util.unflatten_dict(arrays, sep="/")["actor"]
        )
    except Exception as error:  # a damaged file: NumPy, zipfile, zlib and flax each raise their own
        raise StorageFailure(f"cannot load a policy from {path}: {type(error).__name__}: {error}") from error
    return Policy(deterministic_act(algorithm), algorithm, jax.tree.map(jax.numpy.asarray, actor), low, high)


def _flat(actor: PyTree) -> dict[str, Any]:
    return flax.traverse_util.flatten_dict({"actor": flax.serialization.to_state_dict(actor)}, sep="/")


def _check_arrays(expected: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    differ = sorted(expected.keys() ^ arrays.keys())
    if differ:
        raise ValueError(f"{differ[0]} is {'missing' if differ[0] in expected else 'not an array of this policy'}")
    for name, like in expected.items():
        array = arrays[name]
        if like.shape != array.shape or like.dtype != array.dtype:
            raise ValueError(f"{name} is {array.dtype}{array.shape} where {like.dtype}{like.shape} is expected")
