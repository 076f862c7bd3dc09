"""The data set of an offline run: read once, checked against the environment, and shared by all seeds."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mbpo_jax.data_sets import read as reading
from mbpo_jax.data_sets.data_set import COLUMNS, DataSet, episode_bounds, return_mean
from mbpo_jax.driver.config import RunConfig
from mbpo_jax.driver.interaction.spaces import WHOLE_KINDS, Spaces
from mbpo_jax.driver.seeds import SeedAxis
from mbpo_jax.replay import Replay
from mbpo_jax.terminations import LEARNED
from mbpo_jax.types import Algorithm, Array, PyTree, Transition

MOST_FIRST_STATES = 1000


def read(run: RunConfig, environment: Spaces | None) -> DataSet:
    """Reads the data set of a run.

    Args:
      environment: spaces of the environment that policies are evaluated in; None: there is none.
    Raises:
      ValueError: the data set cannot be used, or does not fit this environment.
    """
    if environment is None:
        return reading.read(run.dataset)
    low, high = environment.action_low, environment.action_high
    if low.dtype.kind in WHOLE_KINDS:
        raise ValueError(f"env must have floating-point actions to learn offline, got {run.env!r} with {low.dtype}")
    data_set = reading.read(run.dataset, low, high)
    if data_set.obs.shape[1] != environment.obs_dim:
        raise ValueError(
            f"dataset must have the {environment.obs_dim} observations of env {run.env!r}, got {run.dataset!r} with "
            f"{data_set.obs.shape[1]}"
        )
    if data_set.env_id is not None and _name(data_set.env_id) != _name(run.env):
        note = f"recorded in {data_set.env_id}, used with {run.env}"
        data_set = data_set._replace(notes=(note, *data_set.notes))
    return data_set


def _name(env_id: str) -> str:
    """Returns an environment's id without its module and version."""
    return re.sub(r"-v\d+$", "", env_id.rpartition(":")[2])


def usable(data_set: DataSet, algorithm: Algorithm, rule: str | None = None) -> DataSet:
    """Returns the rows that an algorithm may learn from: a model needs to know what came after each of them.

    Args:
      rule: what `--termination_fn` was.
    Raises:
      ValueError: the termination function is to be learnt, but no successor of a terminal was recorded.
    """
    known = data_set.has_successor
    if algorithm.dynamics is None or known.all():
        return data_set
    if rule == LEARNED and not (data_set.terminal[known] > 0).any():
        raise ValueError(
            f"dataset must have next_observations for --termination_fn={LEARNED}, got {data_set.name!r}, where none of "
            f"the {np.sum(~known):,} rows that ended an episode has one"
        )
    note = f"{np.sum(~known):,} of them left out, because a model must know the successor"
    kept = {name: getattr(data_set, name)[known] for name in COLUMNS}
    return data_set._replace(**kept, notes=(*data_set.notes, note))


def to_json(data_set: DataSet) -> dict[str, Any]:
    """Returns what `config.json` keeps of a data set: which one it is, wherever it lies, and its mean return.

    Args:
      data_set: as it was read, since a return needs all rewards, including those of rows that are not `usable`.
    """
    return {
        "dataset_sha256": data_set.sha256,
        "dataset_rows": int(data_set.reward.size),
        "dataset_return_mean": return_mean(data_set)[0],
    }


def spaces(data_set: DataSet) -> Spaces:
    """Returns what a data set knows about the spaces of the environment where it was recorded."""
    low, high = data_set.action_low, data_set.action_high
    return Spaces(data_set.obs.shape[1], low, high, data_set.max_episode_steps)


def as_replay(data_set: DataSet) -> Replay:
    """Returns the rows of a data set as a full buffer of real rows."""
    rows = Transition(
        obs=jnp.asarray(data_set.obs),
        action=jnp.asarray(data_set.action),
        reward=jnp.asarray(data_set.reward),
        next_obs=jnp.asarray(data_set.next_obs),
        terminal=jnp.asarray(data_set.terminal),
    )
    count = jnp.asarray(data_set.reward.size, jnp.int32)
    return Replay(
        rows=rows, head=jnp.zeros((), jnp.int32), size=count, num_added=count, first=jnp.asarray(data_set.first)
    )


def first_states(data_set: DataSet) -> np.ndarray:
    """Returns the first observations [B, O] of episodes of the data; of the first episodes, if there are very many."""
    return data_set.obs[episode_bounds(data_set)[0]][:MOST_FIRST_STATES]


def compile_value(algorithm: Algorithm, axis: SeedAxis) -> Callable[..., PyTree] | None:
    """Lifts (state, obs [B, O]) -> mean [] over obs of the smallest Q value among critics, at the policy's actions.

    Returns None where the algorithm has no critics.
    """
    critic = algorithm.critic
    if critic is None:
        return None

    def value(state: PyTree, obs: Array) -> Array:
        actor, key = algorithm.actor(state), jax.random.key(0)
        carry = algorithm.begin_episode(key, actor)
        action = jax.vmap(lambda one: algorithm.act(key, actor, carry, one, False)[0])(obs)
        return jnp.mean(jnp.min(critic.q_values(state, obs, action), axis=0))

    return axis.lift(value, shared=(1,))
