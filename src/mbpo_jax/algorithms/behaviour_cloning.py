"""Behaviour cloning on a data set: the baseline of every offline result."""

import dataclasses

from flax import struct

from mbpo_jax.agents import cloning, scaled
from mbpo_jax.agents.cloning import CloningConfig
from mbpo_jax.algorithms import phases
from mbpo_jax.algorithms.reactive import reactive
from mbpo_jax.options import check, option
from mbpo_jax.types import Algorithm, PyTree, Spec


@dataclasses.dataclass(frozen=True)
class CloningRunConfig:
    """Knobs of behaviour cloning."""

    updates_per_call: int = option(50, "Agent updates in one compiled call.", minimum=1)
    batch_size: int = option(256, "Rows of an agent update.", minimum=1)
    obs_scaling: str = option(
        scaled.NONE, "How the agent's observations are scaled, by statistics of the data.", choices=scaled.SCALINGS
    )
    agent: CloningConfig = CloningConfig()

    def __post_init__(self) -> None:
        check(self)


TINY = {"updates_per_call": 5, "batch_size": 16, "agent.hidden_units": 8, "agent.num_hidden_layers": 1}
"""Changes to the defaults, by full path, with which tests run every phase within seconds."""


class CloningRunState(struct.PyTreeNode, kw_only=True):
    """Everything the phases read, apart from the data set."""

    agent: PyTree


def build(config: CloningRunConfig, spec: Spec) -> Algorithm:
    """Builds behaviour cloning."""
    agent, measure = phases.scaled_agent(cloning.build(config.agent, spec), spec, config.obs_scaling)
    batches = phases.real_batches(config.updates_per_call, config.batch_size)
    return Algorithm(
        init=lambda key: CloningRunState(agent=agent.init(key)),
        phases=(*measure, phases.update_every(config.updates_per_call, phases.update_agent(agent, batches))),
        **reactive(agent),
    )
