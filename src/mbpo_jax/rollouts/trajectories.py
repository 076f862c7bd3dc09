"""Imagined trajectories of static length, with all their states kept: for targets, actor losses, scores and studies.

They are differentiable with respect to start states, actions and whatever the dynamics close over. `branched.py` is the
fast way to fill a buffer.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct

from mbpo_jax import ensemble, health
from mbpo_jax.types import Array, Dynamics, Key, PyTree

ChooseFn = Callable[[Key, Array, Array], tuple[Array, PyTree]]
"""(key, step [], obs [B, O]) -> (action [B, A], anything else to keep about the choice: arrays [B, ...], or ())."""
MAX_UNROLLED_STEPS = 5
"""Trajectories of up to so many steps are unrolled: faster, above all backwards, but each step is compiled anew."""
Moved = tuple[Array, Array, Array]  # next_obs [B, O], reward [B], ends bool [B]


class Trajectory(struct.PyTreeNode, kw_only=True):
    """Trajectories of B rows over H steps. A row that has ended, or whose prediction exploded, stays where it is."""

    obs: Array  # [H + 1, B, O]
    action: Array  # [H, B, A]
    reward: Array  # [H, B], 0 after the end
    chosen: PyTree  # [H, B, ...], what `choose` returned besides the actions
    alive: Array  # [H, B], bool, whether the row took this step
    survives: Array  # [B], bool, whether the row has neither ended nor exploded
    exploded: Array  # [B], bool, whether it stopped because a prediction was not finite or beyond `health.LIMIT`


def unroll(
    key: Key,
    dynamics: Dynamics,
    choose: ChooseFn,
    start_obs: Array,
    num_steps: int,
    reassign: bool = True,
    past_end: bool = False,
) -> Trajectory:
    """Moves rows [B, O] `num_steps` ahead. Every version of the dynamics moves an equal share of them.

    Args:
      reassign: whether rows are assigned to the versions afresh at each step (TS1), or once for the trajectory (TSinf).
      past_end: whether rows continue past where the termination function would end them.
    References: Chua et al. 2018 (PETS), section 4.1; Janner et al. 2019 (MBPO), Appendix C, assigns afresh.
    """
    num_rows = start_obs.shape[0]
    share = -(-num_rows // dynamics.num_groups)  # padded with the last row

    def assign(key: Key) -> Array:
        return jax.random.permutation(key, share * dynamics.num_groups)

    assigned_once = assign(jax.random.fold_in(key, num_steps))

    def step(carry: Moved, number: Array) -> tuple[Moved, tuple[Array, ...]]:
        obs, alive, exploded = carry
        key_action, key_move = jax.random.split(jax.random.fold_in(key, number))
        key_assign, key_noise = jax.random.split(key_move)
        action, chosen = choose(key_action, number, obs)
        places = assign(key_assign) if reassign else assigned_once
        next_obs, reward, ends = _move(key_noise, dynamics, places, obs, action)
        usable = health.magnitude((next_obs, reward), keep=1) < health.LIMIT  # nan is not below it
        moves = alive & usable
        next_obs = jnp.where(moves[:, None], next_obs, obs)
        carry = next_obs, moves & (past_end | ~ends), exploded | (alive & ~usable)
        return carry, (next_obs, action, jnp.where(moves, reward, 0.0), chosen, moves)

    start = (start_obs, jnp.ones(num_rows, bool), jnp.zeros(num_rows, bool))
    (_, survives, exploded), (obs, action, reward, chosen, alive) = jax.lax.scan(
        step, start, jnp.arange(num_steps), unroll=num_steps <= MAX_UNROLLED_STEPS
    )
    return Trajectory(
        obs=jnp.concatenate([start_obs[None], obs]),
        action=action,
        reward=reward,
        chosen=chosen,
        alive=alive,
        survives=survives,
        exploded=exploded,
    )


def _move(key: Key, dynamics: Dynamics, places: Array, obs: Array, action: Array) -> Moved:
    """Moves rows [B, ...] by one step; `places` is the order in which they are assigned to the versions."""
    num_rows, num_groups = obs.shape[0], dynamics.num_groups
    rows = jnp.minimum(places, num_rows - 1).reshape(num_groups, -1)

    def move_share(group: Array) -> Moved:
        mine = rows[group]
        return dynamics.step_fn(jax.random.fold_in(key, group), group, obs[mine], action[mine])

    moved = ensemble.lift(move_share)(jnp.arange(num_groups))
    back = jnp.argsort(places)[:num_rows]
    next_obs, reward, ends = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[back], moved)
    return next_obs, reward, ends
