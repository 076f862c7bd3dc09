"""Long trajectories in a learned model, to be looked at: nothing of them is learnt from."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from mbpo_jax import health
from mbpo_jax.algorithms import REGISTRY
from mbpo_jax.driver.trained import Trained
from mbpo_jax.models import gaussian
from mbpo_jax.rollouts import branched
from mbpo_jax.rollouts.branched import Dynamics
from mbpo_jax.types import Array, Key, PyTree, WorldModel

ChooseFn = Callable[[Key, Array, Array], Array]  # (key, step [], obs [B, O]) -> action [B, A]


class Imagined(struct.PyTreeNode, kw_only=True):
    """Trajectories of B rows over H steps. A row that has ended, or whose prediction exploded, stays where it was."""

    obs: Array  # [H + 1, B, O]
    reward: Array  # [H, B], 0 after the end
    alive: Array  # [H, B], bool, whether the row took this step
    exploded: Array  # [B], bool, whether it stopped since a prediction was not finite or beyond `health.LIMIT`


def world_model(trained: Trained) -> WorldModel:
    """The model that a run has learnt; its arrays are `trained.state.model`.

    Raises:
      ValueError: its algorithm learns none, or this checkpoint has none that is whole.
    """
    if not hasattr(trained.state, "model"):
        with_models = [name for name, member in REGISTRY.items() if hasattr(member.default_config(), "model")]
        raise ValueError(
            f"the run must have a model (--algorithm one of {', '.join(with_models)}), got {trained.run.algorithm}"
        )
    fit = trained.state.model.fit
    if int(fit.num_rows) == 0 or bool(fit.running):
        why = "a fit was under way" if bool(fit.running) else "none had been fitted"
        raise ValueError(f"the checkpoint must hold a model, but at step {trained.step} {why}; give another --step")
    return gaussian.build(trained.config.model, trained.spec)


def dynamics(trained: Trained, world: WorldModel, model: PyTree) -> Dynamics:
    """What moves imagined states in a run's rollouts, with these arrays of the model."""
    termination_fn = trained.spec.termination_fn
    assert termination_fn is not None  # an algorithm with a model has one
    return branched.dynamics_of(world, model, termination_fn, trained.config.model.num_elites)


def whole_shares(trained: Trained, num_rows: int) -> int:
    """At least so many rows, of which every elite moves as many as the others."""
    num_elites: int = trained.config.model.num_elites
    return -(-num_rows // num_elites) * num_elites


def imagine(
    key: Key, dynamics: Dynamics, choose: ChooseFn, start_obs: Array, num_steps: int, to_the_end: bool = False
) -> Imagined:
    """Moves rows [B, O] `num_steps` on; at each step every elite moves an equal share of them, dealt at random.

    Args:
      start_obs: [B, O]; B is a multiple of the number of elites.
      to_the_end: whether rows go on where the termination function would end them.
    References: Janner et al. 2019 (MBPO), Appendix C: an elite is drawn for every row and step.
    """
    num_rows, num_groups = start_obs.shape[0], dynamics.num_groups
    if num_rows % num_groups:
        raise ValueError(f"start_obs must have a multiple of {num_groups} rows, got {num_rows}")

    def move(key: Key, obs: Array, action: Array) -> tuple[Array, Array, Array]:
        key_deal, key_noise = jax.random.split(key)
        order = jax.random.permutation(key_deal, num_rows).reshape(num_groups, -1)

        def move_share(group: Array) -> tuple[Array, Array, Array]:
            rows = order[group]
            return dynamics.step_fn(jax.random.fold_in(key_noise, group), group, obs[rows], action[rows])

        moved = jax.lax.map(move_share, jnp.arange(num_groups))
        back = jnp.argsort(order.reshape(-1))
        next_obs, reward, ends = jax.tree.map(lambda leaf: leaf.reshape(num_rows, *leaf.shape[2:])[back], moved)
        return next_obs, reward, ends

    def step(carry: tuple[Array, Array, Array], number: Array) -> tuple[tuple[Array, Array, Array], Any]:
        obs, alive, exploded = carry
        key_action, key_move = jax.random.split(jax.random.fold_in(key, number))
        action = choose(key_action, number, obs)
        next_obs, reward, ends = move(key_move, obs, action)
        usable = health.magnitude((next_obs, reward), keep=1) < health.LIMIT  # nan is not below it
        moves = alive & usable
        next_obs = jnp.where(moves[:, None], next_obs, obs)
        carry = next_obs, moves & (to_the_end | ~ends), exploded | (alive & ~usable)
        return carry, (next_obs, jnp.where(moves, reward, 0.0), moves)

    start = (start_obs, jnp.ones(num_rows, bool), jnp.zeros(num_rows, bool))
    (_, _, exploded), (obs, reward, alive) = jax.lax.scan(step, start, jnp.arange(num_steps))
    return Imagined(obs=jnp.concatenate([start_obs[None], obs]), reward=reward, alive=alive, exploded=exploded)
