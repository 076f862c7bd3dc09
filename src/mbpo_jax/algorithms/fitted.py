"""Shared by algorithms that fit a model to the real rows, and with its help update an agent on real rows.

They differ in what the agent learns from: `mve.py`, `steve.py`.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
from flax import struct

from mbpo_jax import agents
from mbpo_jax.algorithms import phases, reporting
from mbpo_jax.algorithms.reactive import reactive
from mbpo_jax.models import gaussian
from mbpo_jax.types import Agent, Algorithm, Key, Learning, Phase, PyTree, Spec, WorldModel

TINY = {
    "exploration_steps": 40, "replay_capacity": 400, "fit_every_steps": 10, "updates_per_step": 2, "batch_size": 16,
    "expansion_steps": 2, "model.num_members": 3, "model.num_elites": 2, "model.model_hidden_units": 8,
    "model.model_weight_decays": (5e-5, 1e-4), "model.fit_epoch_minibatches": 1,
    "agent.hidden_units": 8, "agent.num_hidden_layers": 1,
}  # fmt: skip
"""Changes to the defaults, by full path, with which tests run every phase within seconds."""


class FittedState(struct.PyTreeNode, kw_only=True):
    """Everything the phases read, apart from the real rows."""

    model: PyTree
    agent: PyTree


def build(
    config: Any, spec: Spec, learning: Callable[[Any, Spec, WorldModel, Agent, FittedState], Learning]
) -> Algorithm:
    """Builds the algorithm from a config that has the knobs of `MveConfig`, except those of the targets.

    Args:
      learning: (config, spec, world, agent, state) -> what the agent learns from.
    Raises:
      ValueError: the spec has no termination function, and none is to be learnt.
    """
    agent = agents.build(config.agent, spec)
    world = phases.with_ends(gaussian.build(config.model, spec), spec, config.termination_fn)
    batches = phases.real_batches(config.updates_per_step, config.batch_size)
    update = phases.update_agent(agent, batches, functools.partial(learning, config, spec, world, agent))
    update = reporting.with_rule(update, lambda state: phases.rule_of(world, world.belief(state.model), spec))
    return Algorithm(
        init=functools.partial(init, world, agent),
        phases=(
            Phase("fit_model", config.fit_every_steps, config.exploration_steps, phases.fit_model(world)),
            Phase("update_agent", 1, config.exploration_steps, update),
        ),
        exploration_steps=config.exploration_steps,
        replay_capacity=config.replay_capacity,
        dynamics=lambda state: phases.learned_dynamics(world, world.belief(state.model), spec),
        **reactive(agent),
    )


def init(world: WorldModel, agent: Agent, key: Key) -> FittedState:
    """Returns the state before the first step: untrained networks."""
    key_model, key_agent = jax.random.split(key)
    return FittedState(model=world.init(key_model), agent=agent.init(key_agent))
