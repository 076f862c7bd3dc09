"""Acting on the observation alone: the fields that algorithms with such a policy share."""

import operator
from collections.abc import Callable
from typing import Any

from mbpo_jax.types import Agent, Array, Key, PyTree


def reactive(agent: Agent, part: Callable[[PyTree], PyTree] = operator.attrgetter("agent")) -> dict[str, Any]:
    """Returns `actor`, `begin_episode` and `act` of an Algorithm that acts as `agent` does and carries nothing.

    Args:
      part: (state of the algorithm) -> state of the agent.
    """

    def act(key: Key, actor: PyTree, carry: PyTree, obs: Array, explore: bool) -> tuple[Array, PyTree]:
        return agent.act(key, actor, obs[None], explore)[0], carry

    return {"actor": lambda state: agent.actor(part(state)), "begin_episode": lambda key, actor: (), "act": act}
