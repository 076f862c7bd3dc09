"""TD3 on a data set, kept near its actions.

References: Fujimoto & Gu 2021, "A Minimalist Approach to Offline Reinforcement Learning"; sfujim/TD3_BC.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import struct

from mbpo_jax.agents import cloning, scaled, td3
from mbpo_jax.agents.td3 import Td3Config, Td3State
from mbpo_jax.algorithms import phases
from mbpo_jax.algorithms.reactive import reactive
from mbpo_jax.options import check, option
from mbpo_jax.types import Agent, Algorithm, Array, Key, Learning, PyTree, Spec, Transition


@dataclasses.dataclass(frozen=True)
class Td3BcConfig:
    """Knobs of TD3+BC; the defaults are the paper's."""

    value_weight: float = option(
        2.5,
        "Weight of the critic's value, scaled to a mean size of 1, against the squared distance to the data's action.",
        minimum=0.0,
    )
    updates_per_call: int = option(50, "Agent updates in one compiled call.", minimum=1)
    batch_size: int = option(256, "Rows of an agent update.", minimum=1)
    obs_scaling: str = option(
        scaled.STANDARD, "How the agent's observations are scaled, by statistics of the data.", choices=scaled.SCALINGS
    )
    agent: Td3Config = Td3Config()

    def __post_init__(self) -> None:
        check(self)


TINY = {"updates_per_call": 5, "batch_size": 16, "agent.hidden_units": 8, "agent.num_hidden_layers": 1}
"""Changes to the defaults, by full path, with which tests run every phase within seconds."""


class Td3BcState(struct.PyTreeNode, kw_only=True):
    """Everything the phases read, apart from the data set."""

    agent: PyTree


def build(config: Td3BcConfig, spec: Spec) -> Algorithm:
    """Builds TD3+BC."""
    inside = td3.build(config.agent, spec)
    agent, measure = phases.scaled_agent(inside, spec, config.obs_scaling)
    batches = phases.real_batches(config.updates_per_call, config.batch_size)
    learning = Learning(actor_loss=functools.partial(actor_loss, inside, config.value_weight))
    update = phases.update_agent(agent, batches, lambda state: learning)
    return Algorithm(
        init=lambda key: Td3BcState(agent=agent.init(key)),
        phases=(*measure, phases.update_every(config.updates_per_call, update)),
        **reactive(agent),
    )


def actor_loss(
    agent: Agent, value_weight: float, key: Key, actor: PyTree, state: Td3State, batch: Transition
) -> tuple[Array, Array]:
    """Returns the loss [] of TD3+BC, and zeros [B], because there is no temperature.

    References: Fujimoto & Gu 2021, Eq. 5: -lambda Q + (pi - a)^2 with lambda = value_weight / mean |Q|, a constant.
    """
    action = agent.act(key, actor, batch.obs, False)
    q = agent.critic.q_values(state, batch.obs, action)[0]  # type: ignore[union-attr]
    weight = value_weight / jnp.mean(jnp.abs(jax.lax.stop_gradient(q)))
    return -weight * jnp.mean(q) + cloning.loss(action, batch.action), jnp.zeros_like(q)
