"""Branched rollouts in both directions: from each start, some steps back and some ahead, all in one buffer.

References: Lai et al. 2020 (BMPO), Algorithm 1.
"""

from typing import NamedTuple

import jax
from flax import struct

from mbpo_jax.replay import Replay
from mbpo_jax.rollouts import branched
from mbpo_jax.rollouts.branched import Rollout
from mbpo_jax.types import Array, Dynamics, Key, Metrics, PolicyFn, Report, Watched


class Rollouts(struct.PyTreeNode, kw_only=True):
    """The progress of a round in both directions between its steps, or the state in which the last one ended."""

    backward: Rollout
    forward: Rollout


class Direction(NamedTuple):
    """Policy and dynamics of a direction. Backwards, actions are those that led to an observation."""

    policy_fn: PolicyFn
    dynamics: Dynamics


def empty(num_starts: int, obs_dim: int) -> Rollouts:
    """Returns the state before any round has run."""
    return Rollouts(backward=branched.empty(num_starts, obs_dim), forward=branched.empty(num_starts, obs_dim))


def start(start_obs: Array, num_back: Array, num_ahead: Array, limit: Array) -> tuple[Rollouts, Watched]:
    """Starts a round in both directions from every state [B, O].

    Args:
      num_back, num_ahead: [], int, steps in each direction.
      limit: [], int, most rows that the buffer may keep.
    """
    backward, watched = branched.start(start_obs, num_back, limit)
    forward, _ = branched.start(start_obs, num_ahead, limit)
    return Rollouts(backward=backward, forward=forward), watched


def is_running(rollouts: Rollouts) -> Array:
    """Returns whether either direction has steps left; bool []."""
    return branched.is_running(rollouts.backward) | branched.is_running(rollouts.forward)


def step(
    key: Key, backward: Direction, forward: Direction, buffer: Replay, rollouts: Rollouts, max_block_rows: int
) -> tuple[Replay, Rollouts, Report]:
    """Moves all live rows by one step in each direction that has steps left, and adds the transitions to the buffer.

    Args:
      key: the round's key.
    """
    key_back, key_ahead = jax.random.split(key)
    buffer, back, watched_back = branched.step(key_back, *backward, buffer, rollouts.backward, max_block_rows)
    buffer, ahead, watched_ahead = branched.step(key_ahead, *forward, buffer, rollouts.forward, max_block_rows)
    watched_back = watched_back.replace(names=tuple(f"{name} of a step backwards" for name in watched_back.names))
    rollouts = Rollouts(backward=back, forward=ahead)
    return buffer, rollouts, Report(metrics(rollouts, buffer), (watched_back, watched_ahead))


def metrics(rollouts: Rollouts, buffer: Replay) -> Metrics:
    """Returns the metrics of a round; final once it has finished. Those of forward steps have no prefix."""
    back = branched.metrics(rollouts.backward, buffer)
    ahead = branched.metrics(rollouts.forward, buffer)
    tally = rollouts.backward.tally
    names = "transitions", "dropped_nonfinite"
    impossible = tally.num_terminal / (tally.num_terminal + tally.num_stored).clip(1)
    return ahead | {f"backward_{name}": back[name] for name in names} | {"backward_impossible_fraction": impossible}
