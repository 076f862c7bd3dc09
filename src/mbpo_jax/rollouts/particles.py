"""Scores of action sequences: the sum of rewards, averaged over particles that all start in one state.

Particles are assigned to the versions of the dynamics, so that no prediction goes unused. The assignment is the same
for all candidates: every version moves an equal share of each candidate's particles, which compares candidates better
than a random assignment would, and only a few indices are permuted.

Reference: Chua et al. 2018 (PETS), section 5.
"""

import jax
import jax.numpy as jnp

from mbpo_jax import health
from mbpo_jax.types import Array, Dynamics, Key

FAILED = -1e6  # return of a particle whose prediction exploded, as in PETS's official code

Carry = tuple[Array, Array, Array, Array]  # obs [P, N, O]; total [P, N]; alive, exploded bool [P, N]
Moved = tuple[Array, Array, Array]  # next_obs [P, N, O], reward [P, N], ends bool [P, N]


def score(dynamics: Dynamics, start_obs: Array, num_particles: int, reassign: bool, key: Key, actions: Array) -> Array:
    """Returns the sum of rewards [N] of candidates [N, H, A] from one state [O], averaged over P particles.

    With all but the last two arguments bound, it is a `planners.planner.ScoreFn`. A terminated particle earns nothing
    more.

    Args:
      num_particles: of each candidate; a multiple of `dynamics.num_groups`.
      reassign: whether particles are assigned to the versions afresh at each step (TS1), or keep theirs (TSinf).
    """
    shape = (num_particles, actions.shape[0])

    def step(carry: Carry, inputs: tuple[Array, Array]) -> tuple[Carry, None]:
        obs, total, alive, exploded = carry
        number, action = inputs
        key_assign, key_move = jax.random.split(jax.random.fold_in(key, number))
        order = jax.random.permutation(key_assign, num_particles) if reassign else jnp.arange(num_particles)
        next_obs, reward, ends = _move(key_move, dynamics, order, obs, action)
        usable = health.magnitude((next_obs, reward), keep=2) < health.LIMIT  # nan is not below it
        moves = alive & usable
        carry = (
            jnp.where(moves[..., None], next_obs, obs),
            total + jnp.where(moves, reward, 0.0),
            moves & ~ends,
            exploded | (alive & ~usable),
        )
        return carry, None

    obs = jnp.broadcast_to(start_obs, (*shape, start_obs.shape[-1]))
    start = obs, jnp.zeros(shape), jnp.ones(shape, bool), jnp.zeros(shape, bool)
    numbered = jnp.arange(actions.shape[1]), jnp.swapaxes(actions, 0, 1)
    (_, total, _, exploded), _ = jax.lax.scan(step, start, numbered)
    return jnp.mean(jnp.where(exploded, FAILED, total), axis=0)


def _move(key: Key, dynamics: Dynamics, order: Array, obs: Array, action: Array) -> Moved:
    """Moves obs [P, N, O] by action [N, A]; particles are assigned to the versions in this order [P]."""
    num_particles, num_candidates, obs_dim = obs.shape
    share = num_particles // dynamics.num_groups
    assigned = obs[order].reshape(dynamics.num_groups, share * num_candidates, obs_dim)
    same_action = jnp.broadcast_to(action, (share, *action.shape)).reshape(share * num_candidates, -1)

    def move_share(group: Array) -> Moved:
        return dynamics.step_fn(jax.random.fold_in(key, group), group, assigned[group], same_action)

    moved = jax.lax.map(move_share, jnp.arange(dynamics.num_groups))
    back = jnp.argsort(order)
    next_obs, reward, ends = jax.tree.map(
        lambda leaf: leaf.reshape(num_particles, num_candidates, *leaf.shape[2:])[back], moved
    )
    return next_obs, reward, ends
