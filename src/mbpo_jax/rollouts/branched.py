"""Branched rollouts: short imagined trajectories from many real states, all steps of them kept.

Rows are worked on in blocks that stay in a core's cache. Those that have ended are taken out, so nothing is ever
computed for them, and each block is predicted by one of the equally likely dynamics only, so no prediction is thrown
away either.

References: Janner et al. 2019 (MBPO), Algorithm 2.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mbpo_jax import permutation, replay
from mbpo_jax.replay import Replay
from mbpo_jax.types import Array, Key, Metrics, PolicyFn, StepFn, Transition


class Dynamics(NamedTuple):
    """What moves imagined states: `step_fn`, in `num_groups` equally likely versions (one for each elite)."""

    step_fn: StepFn
    num_groups: int = 1


class _Progress(NamedTuple):
    buffer: Replay
    obs: Array  # [B + block rows, O], the states to go on from
    num_alive: Array  # [], how many of them there are
    next_obs: Array  # [B + block rows, O], the states after this step, as far as they are known
    num_next: Array  # []
    num_terminal: Array  # []
    num_dropped: Array  # [], rows with a non-finite prediction, not stored
    reward_sum: Array  # []
    reward_min: Array  # []
    reward_max: Array  # []


def roll_out(
    key: Key,
    policy_fn: PolicyFn,
    dynamics: Dynamics,
    buffer: Replay,
    start_obs: Array,
    length: Array,
    limit: Array,
    most_block_rows: int = 1000,
) -> tuple[Replay, Metrics]:
    """Rolls every start state `length` steps ahead, or to its end, and adds all transitions to the buffer.

    Each row is moved at each step by a version of the dynamics chosen at random: the rows are shuffled and dealt out
    in equal shares.

    Args:
      start_obs: [B, O].
      length: [], int, steps; may be traced.
      limit: [], int, rows that may be in force in the buffer; may be traced.
      most_block_rows: rows that are worked on together; a choice of speed and, through the order of draws, of noise.
    Returns:
      The buffer, and metrics of what was imagined.
    """
    block_rows = min(most_block_rows, -(-start_obs.shape[0] // dynamics.num_groups))
    padding = jnp.zeros((block_rows, start_obs.shape[1]))
    num_starts = jnp.asarray(start_obs.shape[0], jnp.int32)
    zero, nothing = jnp.zeros((), jnp.int32), jnp.zeros(())
    obs = jnp.concatenate([start_obs, padding])
    # `obs` and `next_obs` change places after every step: two arrays, written in place
    progress = _Progress(
        buffer,
        obs,
        num_starts,
        jnp.zeros_like(obs),
        zero,
        zero,
        zero,
        nothing,
        nothing + jnp.inf,
        nothing - jnp.inf,
    )

    def horizon_step(i: Array, progress: _Progress) -> _Progress:
        key_order, key_step = jax.random.split(jax.random.fold_in(key, i))
        order = permutation.words(key_order)
        share = -(-progress.num_alive // dynamics.num_groups)

        def roll_group(group: Array, progress: _Progress) -> _Progress:
            start = jnp.minimum(group * share, progress.num_alive)
            stop = jnp.minimum(start + share, progress.num_alive)
            key_group = jax.random.fold_in(key_step, group)

            def roll_block(j: Array, progress: _Progress) -> _Progress:
                place = start + j * block_rows + jnp.arange(block_rows)
                return _step_block(
                    jax.random.fold_in(key_group, j),
                    policy_fn,
                    dynamics.step_fn,
                    group,
                    order,
                    place,
                    stop,
                    limit,
                    progress,
                )

            return jax.lax.fori_loop(0, -(-(stop - start) // block_rows), roll_block, progress)

        progress = jax.lax.fori_loop(0, dynamics.num_groups, roll_group, progress)
        return progress._replace(
            obs=progress.next_obs,
            num_alive=progress.num_next,
            next_obs=progress.obs,
            num_next=jnp.zeros((), jnp.int32),
        )

    before = buffer.num_added
    progress = jax.lax.fori_loop(0, length, horizon_step, progress)
    return progress.buffer, _metrics(progress, before)


def _step_block(
    key: Key,
    policy_fn: PolicyFn,
    step_fn: StepFn,
    group: Array,
    order: Array,
    place: Array,
    stop: Array,
    limit: Array,
    progress: _Progress,
) -> _Progress:
    """Moves the rows at `place` (those before `stop`) of the shuffled living ones, stores them, keeps the survivors."""
    key_action, key_step = jax.random.split(key)
    inside = place < stop
    obs = progress.obs[permutation.shuffled(order, place, progress.num_alive)]
    action = policy_fn(key_action, obs)
    next_obs, reward, terminal = step_fn(key_step, group, obs, action)
    finite = jnp.all(jnp.isfinite(next_obs), -1) & jnp.isfinite(reward)
    kept, alive = inside & finite, inside & finite & ~terminal
    num_kept, num_alive = jnp.sum(kept), jnp.sum(alive)
    # Survivors first, then the rows that end here, then those that do not count.
    ended = kept & terminal
    target = jnp.where(alive, jnp.cumsum(alive) - 1, num_alive + jnp.cumsum(ended) - 1)
    target = jnp.where(kept, target, num_kept + jnp.cumsum(~kept) - 1)
    source = jnp.zeros_like(target).at[target].set(jnp.arange(target.shape[0]), unique_indices=True)
    rows = Transition(obs=obs, action=action, reward=reward, next_obs=next_obs, terminal=terminal.astype(jnp.float32))
    rows = jax.tree.map(lambda leaf: leaf[source], rows)
    return progress._replace(
        buffer=replay.add(progress.buffer, rows, num_kept, limit),
        # What lies behind the survivors is overwritten by the next block, or never read.
        next_obs=jax.lax.dynamic_update_slice_in_dim(progress.next_obs, rows.next_obs, progress.num_next, 0),
        num_next=progress.num_next + num_alive,
        num_terminal=progress.num_terminal + jnp.sum(ended),
        num_dropped=progress.num_dropped + jnp.sum(inside & ~finite),
        reward_sum=progress.reward_sum + jnp.sum(jnp.where(kept, reward, 0.0)),
        reward_min=jnp.minimum(progress.reward_min, jnp.min(jnp.where(kept, reward, jnp.inf))),
        reward_max=jnp.maximum(progress.reward_max, jnp.max(jnp.where(kept, reward, -jnp.inf))),
    )


def _metrics(progress: _Progress, before: Array) -> Metrics:
    num_stored = progress.buffer.num_added - before
    return {
        "transitions": num_stored,
        "terminal_fraction": progress.num_terminal / jnp.maximum(num_stored, 1),
        "dropped_nonfinite": progress.num_dropped,
        "model_reward_mean": progress.reward_sum / jnp.maximum(num_stored, 1),
        "model_reward_min": progress.reward_min,
        "model_reward_max": progress.reward_max,
        "buffer_rows": progress.buffer.size,
    }
