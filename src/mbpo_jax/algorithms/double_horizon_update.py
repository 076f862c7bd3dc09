"""One update along imagined steps: critics regress on their value, and the actor maximises it.

References: DHMBPO (arXiv 2512.15439), its training rollout.
"""

import functools

import jax
import jax.numpy as jnp
from flax import struct

from mbpo_jax import health
from mbpo_jax.agents import bounded_sac
from mbpo_jax.agents.bounded_sac import BoundedSac, BoundedSacState, Policy
from mbpo_jax.rollouts import trajectories, value_expansion
from mbpo_jax.types import Array, Dynamics, Key, Metrics, PyTree, Regression, Watched


def update_once(
    agent: BoundedSac, horizon: int, moves: Dynamics, with_actor: bool, state: BoundedSacState, obs: Array, key: Key
) -> tuple[BoundedSacState, tuple[Metrics, Watched]]:
    """Takes one update along imagined steps from states [B, O]: of the critics, then, if `with_actor`, of the actor."""
    key_path, key_target = jax.random.split(key)
    imagine = functools.partial(imagine_steps, agent, horizon, moves, key_path, state, obs)
    if with_actor:
        ahead, pull_back = jax.vjp(imagine, state.actor.params)
    else:
        ahead = imagine(state.actor.params)
    state = bounded_sac.track_return_range(agent, state, ahead.rewards)
    target = ahead.known + ahead.discount * bounded_sac.target_value(
        agent, key_target, state, ahead.last_obs, ahead.last_action
    )
    rows = Regression(obs, ahead.first_action, target, ahead.usable)
    state, metrics, watched = bounded_sac.step_critics(agent, state, rows)
    if with_actor:

        def loss_of(ahead: ImaginedPath) -> Array:
            tail = bounded_sac.mean_value(agent, state, ahead.last_obs, ahead.last_action)
            value = ahead.known + ahead.first_bonus + ahead.discount * tail
            return -jnp.sum(ahead.usable * value) / jnp.maximum(jnp.sum(ahead.usable), 1.0)

        loss, along = jax.value_and_grad(loss_of)(ahead)
        (grads,) = pull_back(along)
        state, actor_metrics, actor_watched = bounded_sac.step_actor(agent, state, grads, ahead.first_log_prob)
        metrics |= {"actor_loss": loss} | actor_metrics
        watched |= {"the actor's loss": loss} | actor_watched
    metrics["exploded_fraction"] = 1.0 - jnp.mean(ahead.usable)
    return state, (metrics, health.watch(watched))


class ImaginedPath(struct.PyTreeNode, kw_only=True):
    """The result of a few imagined steps from each of B states."""

    first_action: Array  # [B, A]
    first_bonus: Array  # [B], -temperature * log-probability of the first action
    first_log_prob: Array  # [B]
    known: Array  # [B], discounted rewards, and bonuses of all actions but the first, the last one's included
    discount: Array  # [B], of the value of the last action; 0 where the row has ended before
    last_obs: Array  # [B, O]
    last_action: Array  # [B, A]
    rewards: Array  # [H, B], with bonuses; nan where the row had ended before
    usable: Array  # [B], 0 where a prediction exploded, else 1


def imagine_steps(
    agent: BoundedSac, horizon: int, moves: Dynamics, key: Key, state: BoundedSacState, obs: Array, params: PyTree
) -> ImaginedPath:
    """Imagines steps of the actor with `params` from states [B, O]; differentiable with respect to `params`."""
    actor, discount = Policy(params=params, scale=state.scale), agent.config.discount

    def choose(key: Key, number: Array, obs: Array) -> tuple[Array, tuple[Array, Array]]:
        action, bonus, log_prob = bounded_sac.draw(agent, key, state, actor, obs)
        return action, (bonus, log_prob)

    key_path, key_last = jax.random.split(key)
    path = trajectories.unroll(key_path, moves, choose, obs, horizon)
    bonus, log_prob = path.chosen
    last_action, last_bonus, _ = bounded_sac.draw(agent, key_last, state, actor, path.obs[-1])
    _, known = value_expansion.values_along(path.replace(chosen=bonus), last_bonus, discount)
    return ImaginedPath(
        first_action=path.action[0],
        first_bonus=bonus[0],
        first_log_prob=log_prob[0],
        known=known[0],
        discount=discount**horizon * path.survives,
        last_obs=path.obs[-1],
        last_action=last_action,
        rewards=jnp.where(path.alive, path.reward + bonus, jnp.nan),
        usable=1.0 - path.exploded,
    )
