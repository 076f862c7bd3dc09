"""A run at one of its checkpoints, opened for analysis: its model, its agent and its real rows."""

from pathlib import Path
from typing import Any, NamedTuple

import jax

from mbpo_jax import replay as replay_lib
from mbpo_jax.data_sets import read as reading
from mbpo_jax.data_sets.data_set import DataSet
from mbpo_jax.driver import offline
from mbpo_jax.driver.config import RunConfig, StorageFailure
from mbpo_jax.driver.interaction import task as tasks
from mbpo_jax.driver.interaction.spaces import spaces_from_json
from mbpo_jax.driver.storage import checkpoint, packing, run_json
from mbpo_jax.replay import Replay
from mbpo_jax.types import Algorithm, PyTree, Spec


class Trained(NamedTuple):
    """One seed of a run at one of its checkpoints."""

    run: RunConfig
    config: Any  # the algorithm's knobs
    seed: int
    step: int  # environment steps taken
    spec: Spec
    algorithm: Algorithm
    state: PyTree  # of the algorithm, with None for buffers; MBPO's parts are `state.model` and `state.agent`
    replay: Replay  # the real rows


def load_trained(run_dir: str | Path, seed: int | None = None, step: int | None = None) -> Trained:
    """Loads what a run had learnt at a checkpoint; changes nothing there, and the run may continue meanwhile.

    Args:
      seed: which agent; the run's first seed by default.
      step: environment step of the checkpoint; the newest by default. `checkpoint.steps` lists them.
    Raises:
      StorageFailure: names the file that is missing or does not fit.
      ValueError: there is no such seed or step; the run's `--termination_fn` or `--reward_fn` cannot be imported; or
        its data set cannot be read, or is another one now.
    """
    kept = run_json.read_config(Path(run_dir))
    run, config = kept.run, kept.algorithm
    seed = run.seeds[0] if seed is None else seed
    if seed not in run.seeds:
        raise ValueError(f"seed must be one of {', '.join(map(str, run.seeds))} in {run_dir}, got {seed}")
    found = checkpoint.steps(Path(run_dir))
    if found and step is not None and step not in found:
        raise ValueError(
            f"step must be that of a checkpoint in {run_dir}, one of {', '.join(map(str, found))}, got {step}"
        )
    saved = checkpoint.load(Path(run_dir), step)
    # What may fail for other reasons comes before the checkpoint is blamed.
    rules = tasks.with_rules(Spec(0, 0), config, run.env)
    data_set = _data_set(kept) if run.dataset else None
    try:
        arrays = saved.arrays[str(seed)]
        spec = _sizes(kept, arrays)._replace(termination_fn=rules.termination_fn, reward_fn=rules.reward_fn)
        algorithm = tasks.build(run, config, spec)
        replay = (
            _real_rows(spec, arrays["replay"])
            if data_set is None
            else offline.as_replay(offline.usable(data_set, algorithm))
        )
        state = _unpack_state(jax.eval_shape(algorithm.init, jax.random.key(0)), arrays["state"])
    except (KeyError, IndexError, AttributeError, TypeError, ValueError) as error:
        where = f"step {saved.record['step']} in {run_dir} does not fit its config: {type(error).__name__}"
        raise StorageFailure(f"the checkpoint of {where}: {checkpoint.first_line(error)}") from error
    return Trained(run, config, seed, saved.record["step"], spec, algorithm, state, replay)


def _real_rows(spec: Spec, rows: dict[str, Any]) -> Replay:
    return packing.unpack(replay_lib.init(spec, max(int(rows["size"]), 1), episodes=True), rows)


def _data_set(kept: run_json.SavedConfig) -> DataSet:
    """Returns what an offline run learnt from.

    Raises:
      ValueError: it cannot be read, or has changed since.
    """
    task = kept.task or {}
    bounds = spaces_from_json(task)
    try:
        data_set = reading.read(kept.run.dataset, bounds.action_low, bounds.action_high)
    except ValueError as error:
        raise ValueError(f"{error}; if it has moved, train this run once more with its new --dataset") from error
    if data_set.sha256 != task["dataset_sha256"]:
        raise ValueError(f"dataset {kept.run.dataset!r} is not what the run was trained on")
    return data_set


def _sizes(kept: run_json.SavedConfig, arrays: dict[str, Any]) -> Spec:
    """Returns the sizes that the run kept in `config.json`; for an older run, those of its arrays."""
    if kept.task is not None:
        return tasks.spec_of(spaces_from_json(kept.task))
    return Spec(arrays["obs"].shape[0], arrays["episode_actions"].shape[1])


def _unpack_state(shapes: PyTree, packed: dict[str, Any]) -> PyTree:
    """Returns the state without its buffers: gigabytes that only training reads."""
    kept = packing.without_buffers(shapes)
    names = [name for name in packed if getattr(kept, name) is None]
    return packing.unpack(kept, packed | dict.fromkeys(names))
