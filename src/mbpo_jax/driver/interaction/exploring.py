"""Policies that collect data: uniform actions, and a trained policy with its own exploration noise."""

import functools
from typing import Protocol

import jax
import numpy as np

from mbpo_jax.driver.interaction.policy import compute_arrays
from mbpo_jax.types import Algorithm, Array, Key, PyTree

RANDOM_STREAM = 3  # of a seed's draws, beside the streams of episode seeds


class Acts(Protocol):
    """What chooses actions in an environment; `policy.Policy` is one, without noise."""

    def reset(self, episode: int) -> None:
        """Begins an episode of the given number."""

    def normalized_action(self, obs: np.ndarray) -> np.ndarray:
        """Returns the action [A] in [-1, 1] for an observation [O]."""


class Uniform:
    """Draws actions uniformly in [-1, 1]; those of an episode depend on the seed and its number alone."""

    def __init__(self, seed: int, action_dim: int) -> None:
        self._seed, self._action_dim = seed, action_dim
        self._rng = self._generator(0)

    def reset(self, episode: int) -> None:
        """Begins an episode."""
        self._rng = self._generator(episode)

    def normalized_action(self, obs: np.ndarray) -> np.ndarray:
        """Returns an action [A], float32, whatever the observation is."""
        del obs
        return self._rng.uniform(-1.0, 1.0, self._action_dim).astype(np.float32)

    def _generator(self, episode: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, RANDOM_STREAM, episode])


class Exploring:
    """Acts as an agent does in training, with noise that depends on the seed, and on the episode and step numbers."""

    def __init__(self, algorithm: Algorithm, actor: PyTree, seed: int) -> None:
        root = jax.random.key(seed)

        def keys(episode: Array | int) -> tuple[Key, Key]:
            key_begin, key_act = jax.random.split(jax.random.fold_in(root, episode))
            return key_begin, key_act

        def begin(episode: Array | int, actor: PyTree) -> PyTree:
            return algorithm.begin_episode(keys(episode)[0], actor)

        def act(
            episode: Array | int, step: Array | int, actor: PyTree, carry: PyTree, obs: Array
        ) -> tuple[Array, PyTree]:
            return algorithm.act(jax.random.fold_in(keys(episode)[1], step), actor, carry, obs, True)

        # One observation at a time, for which the host's own device is the fastest.
        self._actor = jax.device_put(actor, jax.local_devices(backend="cpu")[0])
        self._begin, self._act = functools.partial(compute_arrays, jax.jit(begin)), jax.jit(act)
        self._episode, self._step = 0, 0
        self._carry = self._begin(self._episode, self._actor)

    def reset(self, episode: int) -> None:
        """Begins an episode."""
        self._episode, self._step = episode, 0
        self._carry = self._begin(episode, self._actor)

    def normalized_action(self, obs: np.ndarray) -> np.ndarray:
        """Returns the action [A] in [-1, 1] for an observation [O], with noise."""
        action, self._carry = self._act(self._episode, self._step, self._actor, self._carry, obs)
        self._step += 1
        return np.asarray(action)
