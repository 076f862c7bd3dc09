"""Acting with model and agent together: of several actions that the agent draws, the model chooses the best."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from mbpo_jax import learner
from mbpo_jax.algorithms import phases
from mbpo_jax.rollouts import first_actions
from mbpo_jax.types import Agent, Array, Key, PyTree, Spec, WorldModel


class Plan(NamedTuple):
    """What the look-ahead uses."""

    world: WorldModel
    spec: Spec
    agent: Agent
    num_candidates: int
    num_steps: int
    discount: float


class Actor(struct.PyTreeNode, kw_only=True):
    """What acting needs: the agent with its critics, and what the model predicts with."""

    agent: PyTree  # with its critics, without its optimisers
    belief: PyTree


def planned(plan: Plan) -> dict[str, Any]:
    """Returns fields of an `Algorithm` that acts this way in training; its state must have `agent` and `model`.

    In evaluation, it acts as the agent does.
    """

    def actor(state: PyTree) -> Actor:
        return Actor(agent=learner.without_optimisers(state.agent), belief=plan.world.belief(state.model))

    return {"actor": actor, "act": functools.partial(act, plan)}


def act(plan: Plan, key: Key, actor: Actor, carry: tuple[()], obs: Array, explore: bool) -> tuple[Array, tuple[()]]:
    """Returns an action [A] for obs [O]."""
    policy_arrays = plan.agent.actor(actor.agent)
    if not explore:
        return plan.agent.act(key, policy_arrays, obs[None], False)[0], carry
    key_draw, key_path = jax.random.split(key)
    same_obs = jnp.broadcast_to(obs, (plan.num_candidates, *obs.shape))
    candidates = plan.agent.act(key_draw, policy_arrays, same_obs, True)
    return candidates[jnp.argmax(imagined_returns(plan, key_path, actor, obs, candidates))], carry


def imagined_returns(plan: Plan, key: Key, actor: Actor, obs: Array, candidates: Array) -> Array:
    """Returns the imagined returns [N] of actions [N, A] followed by the agent's; agent and model are without noise.

    Each return ends with the smallest critic's value after the last step.
    """
    assert plan.agent.critic is not None
    q_values, policy_arrays = plan.agent.critic.q_values, plan.agent.actor(actor.agent)

    def policy(obs: Array) -> Array:
        return plan.agent.act(key, policy_arrays, obs, False)

    def value(obs: Array) -> Array:
        return jnp.min(q_values(actor.agent, obs, policy(obs)), axis=0)

    dynamics = phases.learned_dynamics(plan.world, actor.belief, plan.spec, noise=False)
    return first_actions.returns(dynamics, policy, value, plan.num_steps, plan.discount, key, obs, candidates)
