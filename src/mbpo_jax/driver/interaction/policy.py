"""A trained policy: what evaluation acts with, what a run saves, and what a user loads.

A saved policy is one `.npz` of plain arrays (never unpickled) beside the run's `config.json`. It may come from a
stranger: what its archive claims is compared with the size of the file, and with the policy that the config
describes, before any array is made.
"""

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

from mbpo_jax.algorithms import REGISTRY
from mbpo_jax.driver.config import StorageFailure
from mbpo_jax.driver.interaction import environment
from mbpo_jax.driver.storage import files, run_directory
from mbpo_jax.types import Algorithm, PyTree, Spec

ACTION_LOW, ACTION_HIGH, OBS_DIM = "action_low", "action_high", "obs_dim"


class Policy:
    """Acts deterministically, in the environment's action bounds. Call `reset` where an episode begins."""

    def __init__(
        self, act: Callable[..., Any], algorithm: Algorithm, actor: PyTree, low: np.ndarray, high: np.ndarray
    ) -> None:
        self._act, self._algorithm, self.actor = act, algorithm, actor
        self._low, self._high = low, high
        self.reset()

    def reset(self) -> None:
        """Forgets what was carried over from the steps before (plans; nothing, for reactive policies)."""
        self._carry = self._algorithm.begin_episode(self.actor)

    def normalized_action(self, obs: np.ndarray) -> np.ndarray:
        """The action [A] in [-1, 1] for an observation [O]."""
        action, self._carry = self._act(self.actor, self._carry, np.asarray(obs, np.float32).reshape(1, -1))
        return np.asarray(action)[0]

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        """The action [A], float32, in the environment's bounds, for an observation [O]."""
        return environment.rescale(self.normalized_action(obs), self._low, self._high).astype(np.float32)


def deterministic_act(algorithm: Algorithm) -> Callable[..., Any]:
    """Compiles `algorithm.act` without exploration: (actor, carry, obs [1, O]) -> (action [1, A], carry)."""
    return jax.jit(lambda actor, carry, obs: algorithm.act(jax.random.key(0), actor, carry, obs, False))


def save_policy(path: Path, actor: PyTree, obs_dim: int, low: np.ndarray, high: np.ndarray) -> None:
    """Writes an actor's arrays and the action bounds to one `.npz`, whole or not at all."""
    contents: dict[str, Any] = {name: np.asarray(leaf) for name, leaf in _flat(actor).items()}
    contents |= {ACTION_LOW: low, ACTION_HIGH: high, OBS_DIM: np.asarray(obs_dim)}
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_whole(path, lambda file: np.savez(file, **contents))


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
        with files.open_regular(path) as file, zipfile.ZipFile(file) as archive:
            members = _members(archive, os.fstat(file.fileno()).st_size)
            spec = _spec(archive, members, run.env)
            algorithm = REGISTRY[run.algorithm].build(knobs, spec)
            template = jax.eval_shape(lambda key: algorithm.actor(algorithm.init(key)), jax.random.key(0))
            _check_arrays(_flat(template), members)
            arrays = {name: _read(archive, member) for name, member in members.items()}
        low, high = arrays[ACTION_LOW], arrays[ACTION_HIGH]
        actor_arrays = {name: arrays[name] for name in _flat(template)}
        actor = flax.serialization.from_state_dict(
            template, flax.traverse_util.unflatten_dict(actor_arrays, sep="/")["actor"]
        )
    except Exception as error:  # a damaged file: NumPy, zipfile, zlib and flax each raise their own
        raise StorageFailure(f"cannot load a policy from {path}: {type(error).__name__}: {error}") from error
    return Policy(deterministic_act(algorithm), algorithm, jax.tree.map(jax.numpy.asarray, actor), low, high)


def _flat(actor: PyTree) -> dict[str, Any]:
    return flax.traverse_util.flatten_dict({"actor": flax.serialization.to_state_dict(actor)}, sep="/")


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
    """What an archive says about one of its arrays, and what its size bears out."""

    info: zipfile.ZipInfo
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def _members(archive: zipfile.ZipFile, file_bytes: int) -> dict[str, _Member]:
    """The arrays that an archive holds, by name, read from their headers.

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
            raise ValueError(f"{info.filename!r} is no name of an array")
    if sum(info.file_size for info in infos) > file_bytes:
        raise ValueError(f"its arrays claim more than the {file_bytes} bytes of the file")
    members = {info.filename.removesuffix(".npy"): _member(archive, info) for info in infos}
    if len(members) < len(infos):
        raise ValueError("two arrays have one name")
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


def _spec(archive: zipfile.ZipFile, members: dict[str, _Member], env: str) -> Spec:
    low, high, obs_dim = members[ACTION_LOW], members[ACTION_HIGH], members[OBS_DIM]
    if len(low.shape) != 1 or low.shape != high.shape:
        raise ValueError(f"the action bounds are {low.shape} and {high.shape}")
    if obs_dim.shape != () or obs_dim.dtype.kind not in "iu":
        raise ValueError(f"{OBS_DIM} is {obs_dim.dtype}{obs_dim.shape} where a whole number is expected")
    # A termination function matters to learning only, so any will do here.
    return Spec(int(_read(archive, obs_dim)), low.shape[0], environment.resolve_termination_fn("never", env))
