"""Model-based value expansion: critic targets take a few imagined steps before they bootstrap.

Reference: Feinberg et al. 2018, "Model-Based Value Expansion for Efficient Model-Free Reinforcement Learning". There
the agent is DDPG (`--agent=ddpg`) with parameter noise, rewards are known (`--reward_fn`), and the model is a single
deterministic network; here it is MBPO's ensemble, with elites drawn anew for each imagined step.
"""

import dataclasses
import functools

from mbpo_jax import agents
from mbpo_jax.agents.sac import SacConfig
from mbpo_jax.algorithms import fitted, phases
from mbpo_jax.algorithms.fitted import FittedState
from mbpo_jax.models.state import GaussianConfig
from mbpo_jax.options import check, chosen_section, option
from mbpo_jax.rollouts import value_expansion
from mbpo_jax.types import Agent, Algorithm, Learning, Spec, WorldModel


@dataclasses.dataclass(frozen=True)
class MveConfig:
    """Knobs of value expansion. The defaults are for tasks without tuned settings."""

    exploration_steps: int = option(500, "Environment steps of uniformly random actions before learning.", minimum=1)
    replay_capacity: int = option(
        1_000_000, "Maximum number of real rows kept; new rows replace the oldest.", minimum=1
    )
    fit_every_steps: int = option(250, "Environment steps between model fits.", minimum=1)
    updates_per_step: int = option(4, "Agent updates per environment step.", minimum=1)
    batch_size: int = option(256, "Rows of an agent update.", minimum=1)
    expansion_steps: int = option(3, "Imagined steps in the critics' targets.", minimum=1)
    regress_on_imagined: bool = option(
        True, "Regress the critics on the imagined steps, too (TD-k), not only on the real rows."
    )
    termination_fn: str = option("auto", phases.TERMINATION_HELP)
    reward_fn: str = option("learned", phases.REWARD_HELP)
    model: GaussianConfig = GaussianConfig()
    agent: agents.AgentConfig = chosen_section(SacConfig(), "Agent that acts and learns.", agents.CONFIG_CLASSES)

    def __post_init__(self) -> None:
        check(self)


def build(config: MveConfig, spec: Spec) -> Algorithm:
    """Builds an agent whose critics regress on expanded values.

    Raises:
      ValueError: the spec has no termination function, and none is to be learnt.
    """
    return fitted.build(config, spec, learning)


def learning(config: MveConfig, spec: Spec, world: WorldModel, agent: Agent, state: FittedState) -> Learning:
    """Returns targets by the current model."""
    dynamics = phases.learned_dynamics(world, world.belief(state.model), spec)
    how = config.expansion_steps, config.agent.discount, config.regress_on_imagined
    return Learning(regression=functools.partial(value_expansion.expand, dynamics, agent, *how))
