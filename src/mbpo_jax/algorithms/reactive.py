"""The acting fields of an algorithm whose policy depends on the current observation alone."""

import operator
from collections.abc import Callable
from typing import Any

from mbpo_jax.types import Acting, Agent, Array, Critic, Key, PyTree


def reactive(agent: Agent | Acting, part: Callable[[PyTree], PyTree] = operator.attrgetter("agent")) -> dict[str, Any]:
    """Returns the fields of an `Algorithm` for acting and critics, with nothing carried over between steps.

    Args:
      part: (state) -> the agent's part of the algorithm's state.
    """

    def act(key: Key, actor: PyTree, carry: tuple[()], obs: Array, explore: bool) -> tuple[Array, tuple[()]]:
        return agent.act(key, actor, obs[None], explore)[0], carry

    return {
        "actor": lambda state: agent.actor(part(state)),
        "begin_episode": lambda key, actor: (),
        "act": act,
        "critic": None if agent.critic is None else _critic_of(agent.critic, part),
    }


def _critic_of(critic: Critic, part: Callable[[PyTree], PyTree]) -> Critic:
    return Critic(
        q_values=lambda state, obs, action: critic.q_values(part(state), obs, action),
        target_q_values=lambda state, obs, action: critic.target_q_values(part(state), obs, action),
        target_action=lambda key, state, obs: critic.target_action(key, part(state), obs),
        has_entropy=critic.has_entropy,
    )
