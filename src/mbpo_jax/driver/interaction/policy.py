"""A trained policy: what evaluation acts with, what a run saves, and what a user loads.

A saved policy is one `.npz` of plain arrays (never unpickled) beside the run's `config.json`. It may come from a
stranger: what its archive claims is compared with the size of the file, and with the policy that the config
describes, before any array is made.
"""

import functools
import math
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import flax.serialization
import flax.traverse_util
import jax
import numpy as np

from mbpo_jax.driver.config import StorageFailure
from mbpo_jax.driver.interaction import task as tasks
from mbpo_jax.driver.interaction.spaces import Spaces, rescale, spaces_from_json
from mbpo_jax.driver.storage import files, packing, run_json
from mbpo_jax.types import Algorithm, Array, Key, PyTree, RewardFn, Spec, TerminationFn

ACTION_LOW, ACTION_HIGH, OBS_DIM = "action_low", "action_high", "obs_dim"


class Deterministic(NamedTuple):
    """An algorithm's acting without exploration, compiled once for any number of policies.

    What is still drawn at random (a planner's candidates, ties) depends on the numbers of episode and step alone.
    """

    begin: Callable[[int, PyTree], PyTree]  # (episode, actor) -> carry
    act: Callable[[int, int, PyTree, PyTree, np.ndarray], tuple[Array, PyTree]]
    """(episode, step of it, actor, carry, obs [O]) -> (action [A], carry)."""


def deterministic(algorithm: Algorithm) -> Deterministic:
    """Returns how an algorithm's policies act in evaluation."""

    def keys(episode: Array | int) -> tuple[Key, Key]:
        key_begin, key_act = jax.random.split(jax.random.fold_in(jax.random.key(0), episode))
        return key_begin, key_act

    def begin(episode: Array | int, actor: PyTree) -> PyTree:
        return algorithm.begin_episode(keys(episode)[0], actor)

    def act(episode: Array | int, step: Array | int, actor: PyTree, carry: PyTree, obs: Array) -> tuple[Array, PyTree]:
        return algorithm.act(jax.random.fold_in(keys(episode)[1], step), actor, carry, obs, False)

    return Deterministic(functools.partial(compute_arrays, jax.jit(begin)), jax.jit(act))


def compute_arrays(fn: Callable[..., Any], *args: Any) -> PyTree:
    """Returns what a compiled function returns; compiles and runs nothing if that holds no arrays."""
    shapes = jax.eval_shape(fn, *args)
    return fn(*args) if jax.tree.leaves(shapes) else shapes


class Policy:
    """Acts deterministically, in the environment's action bounds. Call `reset` when an episode begins.

    Args:
      low, high: bounds of actions, in the shape and dtype of the actions that are returned.
      obs_dim: numbers in an observation; None: observations are not checked.
      spaces: those of its environment; observations and actions of Discrete ones are whole numbers. None: Boxes.
    """

    def __init__(
        self,
        acting: Deterministic,
        actor: PyTree,
        low: np.ndarray,
        high: np.ndarray,
        obs_dim: int | None = None,
        spaces: Spaces | None = None,
    ) -> None:
        self.actor, self._spaces = actor, spaces
        self._acting, self._low, self._high, self._obs_dim = acting, low, high, obs_dim
        self._episode, self._step = 0, 0
        self._carry = acting.begin(0, actor)

    def reset(self, episode: int | None = None) -> None:
        """Begins an episode: drops what was carried over from the steps before.

        Args:
          episode: its number, from which a stochastic planner draws; the next one by default.
        """
        self._episode, self._step = self._episode + 1 if episode is None else episode, 0
        self._carry = self._acting.begin(self._episode, self.actor)

    def trace(self, obs_dim: int) -> None:
        """Raises now what acting would raise when compiled; computes nothing."""
        obs = np.zeros(obs_dim, np.float32)
        jax.eval_shape(self._acting.act, self._episode, self._step, self.actor, self._carry, obs)

    def normalized_action(self, obs: np.ndarray) -> np.ndarray:
        """Returns the action [A] in [-1, 1] for an observation [O].

        Raises:
          ValueError: it is not one observation.
        """
        obs = (np.asarray(obs, np.float32) if self._obs_dim is None else _one_observation(obs, self._obs_dim)).reshape(
            -1
        )
        action, self._carry = self._acting.act(self._episode, self._step, self.actor, self._carry, obs)
        self._step += 1
        return np.asarray(action)

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        """Returns the action for an observation [O], in the bounds, shape and dtype of the environment's actions.

        An observation or action of a Discrete space is a whole number.

        Raises:
          ValueError: it is not one observation, or the action for it is not finite.
        """
        if self._spaces is not None and self._spaces.obs_start is not None:
            obs = self._spaces.row(obs)
        action = self.normalized_action(obs)
        if not np.isfinite(action).all():
            raise ValueError(f"the policy's action is not finite for the observation {np.asarray(obs).tolist()}")
        if self._spaces is not None and self._spaces.action_start is not None:
            return self._spaces.to_environment(action)[()]
        return rescale(action.reshape(self._low.shape), self._low, self._high)


def _one_observation(obs: Any, obs_dim: int) -> np.ndarray:
    """Returns what a policy was given as float32, if it is one observation."""
    must = f"policy must be given one observation of {obs_dim} numbers"
    if isinstance(obs, tuple) and len(obs) == 2 and isinstance(obs[1], dict):
        raise ValueError(f"{must}, got (obs, info), which reset returns: give it the first of them")
    try:
        array = np.asarray(obs, np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{must}, got {type(obs).__name__} ({error})") from error
    if array.size != obs_dim:
        batch = "; call it once for each row of a batch" if array.ndim > 1 and array[0].size == obs_dim else ""
        raise ValueError(f"{must}, got an array of shape {array.shape}{batch}")
    return array


def save_policy(path: Path, actor: PyTree, obs_dim: int, low: np.ndarray, high: np.ndarray) -> None:
    """Writes an actor's arrays and the action bounds to one `.npz`, whole or not at all."""
    contents: dict[str, Any] = {name: np.asarray(leaf) for name, leaf in _flat(actor).items()}
    contents |= {ACTION_LOW: low, ACTION_HIGH: high, OBS_DIM: np.asarray(obs_dim)}
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_whole(path, lambda file: np.savez(file, **contents))


def policy_path(run_dir: str | Path, seed: int, best: bool = False) -> Path:
    """Returns where a run keeps the newest, or the best evaluated, policy of a seed."""
    return Path(run_dir) / "policies" / (f"seed_{seed}_best.npz" if best else f"seed_{seed}.npz")


def load_policy(
    run_dir: str | Path,
    seed: int | None = None,
    best: bool = False,
    termination_fn: TerminationFn | None = None,
    reward_fn: RewardFn | None = None,
) -> Policy:
    """Loads a policy that a run saved, on any device; imports and runs no code from the directory.

    Nor does it import what a run's `--termination_fn=module:function` and `--reward_fn` name. A policy that plans with
    these functions must be given them here; other policies need none, and those of `mbpo_jax.rewards` are known.

    Args:
      seed: which agent; the run's first seed by default.
      best: the policy of the best evaluation instead of the newest.
      termination_fn, reward_fn: used in place of the run's own.
    Raises:
      StorageFailure: names the file that is missing or does not fit.
      ValueError: the policy plans with the run's own termination or reward function, which was not given.
    """
    saved = run_json.read_config(Path(run_dir))
    path = policy_path(run_dir, saved.run.seeds[0] if seed is None else seed, best)
    try:
        with files.open_regular(path) as file, zipfile.ZipFile(file) as archive:
            members = _members(archive, os.fstat(file.fileno()).st_size)
            spec = _spec(archive, members, saved)._replace(
                termination_fn=termination_fn or tasks.saved_termination_fn(saved.run, saved.algorithm),
                reward_fn=reward_fn or tasks.saved_reward_fn(saved.algorithm),
            )
            algorithm = tasks.build(saved.run, saved.algorithm, spec)
            template = jax.eval_shape(lambda key: algorithm.actor(algorithm.init(key)), jax.random.key(0))
            _check_arrays(_flat(template), members)
            arrays = {name: _read(archive, member) for name, member in members.items()}
        low, high = arrays[ACTION_LOW], arrays[ACTION_HIGH]
        _check_bounds(low, high, saved)
        spaces = Spaces(spec.obs_dim, low, high, 1) if saved.task is None else spaces_from_json(saved.task)
        actor_arrays = {name: arrays[name] for name in _flat(template)}
        nested = flax.traverse_util.unflatten_dict(actor_arrays, sep="/")["actor"]
        nested = packing.with_none(flax.serialization.to_state_dict(template), nested)
        actor = flax.serialization.from_state_dict(template, nested)
    except Exception as error:  # a damaged file: NumPy, zipfile, zlib and flax each raise their own
        raise StorageFailure(f"cannot load a policy from {path}: {type(error).__name__}: {error}") from error
    low, high = spaces.as_given(low), spaces.as_given(high)
    policy = Policy(deterministic(algorithm), jax.tree.map(jax.numpy.asarray, actor), low, high, spec.obs_dim, spaces)
    policy.trace(spec.obs_dim)
    return policy


def _flat(actor: PyTree) -> dict[str, Any]:
    nested = packing.without_none(flax.serialization.to_state_dict(actor))
    return flax.traverse_util.flatten_dict({"actor": nested}, sep="/")


def _check_arrays(expected: dict[str, Any], members: dict[str, "_Member"]) -> None:
    differ = sorted(expected.keys() ^ (members.keys() - {ACTION_LOW, ACTION_HIGH, OBS_DIM}))
    if differ:
        raise ValueError(f"{differ[0]} is {'missing' if differ[0] in expected else 'not an array of this policy'}")
    for name, like in expected.items():
        member = members[name]
        if like.shape != member.shape or like.dtype != member.dtype:
            raise ValueError(f"{name} is {member.dtype}{member.shape} where {like.dtype}{like.shape} is expected")


# -- an archive that may be a stranger's -------------------------------------------------------------------------


class _Member(NamedTuple):
    """An array as its archive describes it, checked against the size of the file."""

    info: zipfile.ZipInfo
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def _members(archive: zipfile.ZipFile, file_bytes: int) -> dict[str, _Member]:
    """Returns the arrays that an archive holds, by name, read from their headers.

    Raises:
      ValueError: a member is not as `numpy.savez` writes it, or claims to be larger than it is.
    """
    infos = archive.infolist()
    for info in infos:
        plain = info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1
        if not plain or info.compress_size != info.file_size:
            raise ValueError(f"{info.filename!r} is compressed or encrypted; a policy's arrays are stored as they are")
        parts = info.filename.split("/")
        if not parts[-1].endswith(".npy") or "\\" in info.filename or {"", ".", ".."} & set(parts):
            raise ValueError(f"{info.filename!r} is not the name of an array")
    if sum(info.file_size for info in infos) > file_bytes:
        raise ValueError(f"its arrays claim more than the {file_bytes} bytes of the file")
    members = {info.filename.removesuffix(".npy"): _member(archive, info) for info in infos}
    if len(members) < len(infos):
        raise ValueError("two arrays have the same name")
    return members


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise ValueError(f"{info.filename!r} has a header of version {version}")
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        data_bytes = info.file_size - file.tell()
    if dtype.hasobject:
        raise ValueError(f"{info.filename!r} holds objects, which only unpickling could read")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != data_bytes:
        raise ValueError(f"{info.filename!r} claims to be {dtype}{shape} and has {data_bytes} bytes")
    return _Member(info, shape, dtype)


def _read(archive: zipfile.ZipFile, member: _Member) -> np.ndarray:
    with archive.open(member.info) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _spec(archive: zipfile.ZipFile, members: dict[str, _Member], saved: run_json.SavedConfig) -> Spec:
    """Returns the sizes in `config.json`, checked against the archive; for an older run, those in the archive."""
    low, high, obs_dim = members[ACTION_LOW], members[ACTION_HIGH], members[OBS_DIM]
    if len(low.shape) != 1 or low.shape != high.shape:
        raise ValueError(f"the action bounds are {low.shape} and {high.shape}")
    if obs_dim.shape != () or obs_dim.dtype.kind not in "iu":
        raise ValueError(f"{OBS_DIM} is {obs_dim.dtype}{obs_dim.shape} where a whole number is expected")
    spec = Spec(int(_read(archive, obs_dim)), low.shape[0])
    if saved.task is not None:
        kept = tasks.spec_of(spaces_from_json(saved.task))
        if kept[:2] != spec[:2]:
            raise ValueError(f"it has {spec.obs_dim} observations and {spec.action_dim} actions, not {kept[:2]}")
        return kept
    return spec


def _check_bounds(low: np.ndarray, high: np.ndarray, saved: run_json.SavedConfig) -> None:
    if saved.task is None:
        return
    spaces = spaces_from_json(saved.task)
    if not (np.array_equal(low, spaces.action_low) and np.array_equal(high, spaces.action_high)):
        raise ValueError("its action bounds are not those of the run")
