"""Branched rollouts: short imagined trajectories from many real states, with all their steps kept.

A round starts, and advances one step at a time. Its state is an array of observations and a few numbers, so that a
round can be several compiled calls of bounded length; `roll_out` is all of them in one.

Rows are processed in blocks that stay in a core's cache. Rows that have ended are removed, so nothing is computed for
them, and each block is predicted by only one of the equally likely dynamics, so no prediction is thrown away.

References: Janner et al. 2019 (MBPO), Algorithm 2.
"""

import jax
import jax.numpy as jnp
from flax import struct

from mbpo_jax import batching, health, permutation, replay
from mbpo_jax.health import LIMIT
from mbpo_jax.replay import Replay
from mbpo_jax.types import Array, Dynamics, Key, Metrics, PolicyFn, Report, Transition, Watched

UNIT = "rollout step"  # as `health` counts them


class Tally(struct.PyTreeNode, kw_only=True):
    """Holds the counts of a round so far, and the rewards of the stored rows."""

    num_stored: Array  # [], int32
    num_terminal: Array  # [], int32, stored rows that are terminal; backwards: impossible steps, which are not stored
    num_dropped: Array  # [], int32, rows not stored because their action or prediction is not finite, or exploded
    reward_sum: Array  # []
    reward_min: Array  # []
    reward_max: Array  # []


class Rollout(struct.PyTreeNode, kw_only=True):
    """The progress of a round of rollouts between its steps, or the state in which the last one ended."""

    obs: Array  # [B, O], the states to continue from, in the first `num_alive` rows
    num_alive: Array  # [], int32
    step: Array  # [], int32, steps done
    length: Array  # [], int32, steps of the whole round
    limit: Array  # [], int32, most rows that the buffer may keep
    tally: Tally


class _Progress(struct.PyTreeNode, kw_only=True):
    """The progress of one step of a round between its blocks."""

    buffer: Replay
    tally: Tally
    next_obs: Array  # [B + block rows, O], the states after this step, as far as computed
    num_next: Array  # [], int32
    action_size: Array  # [], largest magnitude among the actions of this step
    prediction_size: Array  # [], the same for the predicted states and rewards


def empty(num_starts: int, obs_dim: int) -> Rollout:
    """Returns the state before any round has run."""

    def zero() -> Array:  # a separate array each time: one shared by two leaves could not be donated
        return jnp.zeros((), jnp.int32)

    return Rollout(
        obs=jnp.zeros((num_starts, obs_dim)),
        num_alive=zero(),
        step=zero(),
        length=zero(),
        limit=zero(),
        tally=Tally(
            num_stored=zero(),
            num_terminal=zero(),
            num_dropped=zero(),
            reward_sum=jnp.zeros(()),
            reward_min=jnp.full((), jnp.inf, jnp.float32),
            reward_max=jnp.full((), -jnp.inf, jnp.float32),
        ),
    )


def start(start_obs: Array, length: Array, limit: Array) -> tuple[Rollout, Watched]:
    """Starts a round from every state [B, O], before its first step; the other arguments are those of `roll_out`."""
    num_starts, obs_dim = start_obs.shape
    rollout = empty(num_starts, obs_dim).replace(
        obs=start_obs,
        num_alive=jnp.asarray(num_starts, jnp.int32),
        length=jnp.asarray(length, jnp.int32),
        limit=jnp.asarray(limit, jnp.int32),
    )
    return rollout, health.watch({"a start state": start_obs}, unit=UNIT)


def is_running(rollout: Rollout) -> Array:
    """Returns whether there are steps left and rows left to move; bool []."""
    return (rollout.step < rollout.length) & (rollout.num_alive > 0)


def step(
    key: Key, policy_fn: PolicyFn, dynamics: Dynamics, buffer: Replay, rollout: Rollout, max_block_rows: int
) -> tuple[Replay, Rollout, Watched]:
    """Moves every live row by one step, and adds the transitions to the buffer. Moves none if no round is running.

    The rows are shuffled and assigned to the versions of the dynamics in equal shares; leftover rows go to a random
    version each. A share is moved in blocks of rows.

    Args:
      key: the round's key; each step folds in its number.
    """
    num_rows, num_groups = rollout.obs.shape[0], dynamics.num_groups
    num_moving = jnp.where(is_running(rollout), rollout.num_alive, 0)
    block_rows = min(max_block_rows, -(-num_rows // num_groups))
    key_order, key_turn, key_step = jax.random.split(jax.random.fold_in(key, rollout.step), 3)
    order = permutation.round_keys(key_order)
    share, num_larger = jnp.divmod(num_moving, num_groups)  # num_larger groups have one row more
    turn = jax.random.randint(key_turn, (), 0, num_groups)  # which groups these are

    def move_share(number: Array, progress: _Progress) -> _Progress:
        group = (number + turn) % num_groups
        first = number * share + jnp.minimum(number, num_larger)
        end = first + share + (number < num_larger)
        key_group = jax.random.fold_in(key_step, group)

        def move_block(j: Array, progress: _Progress) -> _Progress:
            place = first + j * block_rows + jnp.arange(block_rows)
            obs = rollout.obs[permutation.shuffled(order, place, num_moving)]
            key_action, key_move = jax.random.split(jax.random.fold_in(key_group, j))
            action = policy_fn(key_action, obs)
            next_obs, reward, ends = dynamics.step_fn(key_move, group, obs, action)
            moved = Transition(
                obs=obs, action=action, reward=reward, next_obs=next_obs, terminal=ends.astype(jnp.float32)
            )
            return _store(progress, moved, ends, place < end, rollout.limit, dynamics.backward)

        # Blocks beyond the end of the share, which occur in batched seeds with fewer rows, store nothing.
        return jax.lax.fori_loop(0, batching.largest(-(-(end - first) // block_rows)), move_block, progress)

    progress = jax.lax.fori_loop(0, num_groups, move_share, _no_progress(buffer, rollout, block_rows))
    all_dropped = (num_moving > 0) & (progress.tally.num_stored == rollout.tally.num_stored)
    # Exploded predictions are dropped and counted; they count as a fault only if nothing was stored.
    prediction_size = jnp.where(all_dropped, progress.prediction_size, 0.0)
    watched = _watch_step(progress.action_size, prediction_size, rollout)
    rollout = rollout.replace(
        obs=progress.next_obs[:num_rows], num_alive=progress.num_next, step=rollout.step + 1, tally=progress.tally
    )
    return progress.buffer, rollout, watched


def roll_out(
    key: Key,
    policy_fn: PolicyFn,
    dynamics: Dynamics,
    buffer: Replay,
    start_obs: Array,
    length: Array,
    limit: Array,
    max_block_rows: int,
) -> tuple[Replay, Report]:
    """Rolls every start state `length` steps ahead, or until it terminates, and adds all transitions to the buffer.

    Args:
      start_obs: [B, O].
      length: [], int, steps; may be traced.
      limit: [], int, most rows that the buffer may keep; may be traced.
      max_block_rows: rows that are moved together; affects speed and, through the order of draws, the noise.
    Returns:
      The buffer, and a report over all steps.
    """
    Round = tuple[Replay, Rollout, Watched]

    def next_step(so_far: Round) -> Round:
        buffer, rollout, before = so_far
        buffer, rollout, watched = step(key, policy_fn, dynamics, buffer, rollout, max_block_rows)
        sound = jnp.all(before.values < LIMIT)
        return buffer, rollout, jax.tree.map(lambda old, new: jnp.where(sound, new, old), before, watched)

    rollout, at_start = start(start_obs, length, limit)
    nothing_yet = _watch_step(jnp.zeros(()), jnp.zeros(()), rollout)
    buffer, rollout, watched = jax.lax.while_loop(
        lambda so_far: is_running(so_far[1]), next_step, (buffer, rollout, nothing_yet)
    )
    return buffer, Report(metrics(rollout, buffer), (at_start, watched))


def metrics(rollout: Rollout, buffer: Replay) -> Metrics:
    """Returns the metrics of a round; final once it has finished."""
    tally = rollout.tally
    return {
        "transitions": tally.num_stored,
        "terminal_fraction": tally.num_terminal / jnp.maximum(tally.num_stored, 1),
        "dropped_nonfinite": tally.num_dropped,
        "model_reward_mean": tally.reward_sum / jnp.maximum(tally.num_stored, 1),
        "model_reward_min": tally.reward_min,
        "model_reward_max": tally.reward_max,
        "buffer_rows": buffer.size,
    }


def _no_progress(buffer: Replay, rollout: Rollout, block_rows: int) -> _Progress:
    num_rows, obs_dim = rollout.obs.shape
    return _Progress(
        buffer=buffer,
        tally=rollout.tally,
        next_obs=jnp.zeros((num_rows + block_rows, obs_dim)),
        num_next=jnp.zeros((), jnp.int32),
        action_size=jnp.zeros(()),
        prediction_size=jnp.zeros(()),
    )


def _store(
    progress: _Progress, moved: Transition, ends: Array, inside: Array, limit: Array, backward: bool
) -> _Progress:
    """Stores the rows of `moved` that are `inside` and usable, and keeps the survivors to continue from.

    Args:
      backward: whether the rows were moved backwards: they are stored in time order, and impossible ones are not.
    """
    action_size = health.magnitude(moved.action, keep=1)
    prediction_size = health.magnitude((moved.next_obs, moved.reward), keep=1)
    usable = jnp.maximum(action_size, prediction_size) < LIMIT  # nan is not below it
    kept, alive = inside & usable, inside & usable & ~ends
    stored = alive if backward else kept
    num_stored, num_alive = jnp.sum(stored), jnp.sum(alive)
    # Survivors first, then the other rows that are stored, then the rest.
    ended = kept & ends
    target = jnp.where(alive, jnp.cumsum(alive) - 1, num_alive + jnp.cumsum(ended) - 1)
    target = jnp.where(stored, target, num_stored + jnp.cumsum(~stored) - 1)
    source = jnp.zeros_like(target).at[target].set(jnp.arange(target.shape[0]), unique_indices=True)
    rows = jax.tree.map(lambda leaf: leaf[source], moved)
    reached = rows.next_obs
    if backward:
        rows = rows.replace(obs=rows.next_obs, next_obs=rows.obs)
    tally, reward = progress.tally, moved.reward
    return _Progress(
        buffer=replay.add(progress.buffer, rows, num_stored, limit),
        # Anything after the survivors is overwritten by the next block, or never read.
        next_obs=jax.lax.dynamic_update_slice_in_dim(progress.next_obs, reached, progress.num_next, 0),
        num_next=progress.num_next + num_alive,
        action_size=jnp.maximum(progress.action_size, jnp.max(jnp.where(inside, action_size, 0.0))),
        prediction_size=jnp.maximum(progress.prediction_size, jnp.max(jnp.where(inside, prediction_size, 0.0))),
        tally=Tally(
            num_stored=tally.num_stored + num_stored,
            num_terminal=tally.num_terminal + jnp.sum(ended),
            num_dropped=tally.num_dropped + jnp.sum(inside & ~usable),
            reward_sum=tally.reward_sum + jnp.sum(jnp.where(stored, reward, 0.0)),
            reward_min=jnp.minimum(tally.reward_min, jnp.min(jnp.where(stored, reward, jnp.inf))),
            reward_max=jnp.maximum(tally.reward_max, jnp.max(jnp.where(stored, reward, -jnp.inf))),
        ),
    )


def _watch_step(action_size: Array, prediction_size: Array, rollout: Rollout) -> Watched:
    quantities = {"a policy action": action_size, "every imagined prediction": prediction_size}
    return health.watch(quantities, unit=UNIT).replace(first=rollout.step)
