"""Stochastic ensemble value expansion: targets of all lengths, weighted by how well the ensemble agrees on them.

Reference: Buckman et al. 2018, "Sample-Efficient Reinforcement Learning with Stochastic Ensemble Value Expansion".
There the agent is DDPG with four critics and hard copies as targets, and transitions, rewards and terminations have
their own ensembles, without noise; here each elite of MBPO's ensemble predicts the first two by its mean;
termination is the task's or learnt. On SAC it is DI-engine's `stevesac`.
"""

import dataclasses
import functools

from mbpo_jax import agents
from mbpo_jax.agents.sac import SacConfig
from mbpo_jax.algorithms import fitted, phases
from mbpo_jax.algorithms.fitted import FittedState
from mbpo_jax.models.state import GaussianConfig
from mbpo_jax.options import check, chosen_section, option
from mbpo_jax.rollouts import ensemble_expansion
from mbpo_jax.types import Agent, Algorithm, Learning, Spec, WorldModel


@dataclasses.dataclass(frozen=True)
class SteveConfig:
    """Knobs of STEVE. The defaults are for tasks without tuned settings."""

    exploration_steps: int = option(500, "Environment steps of uniformly random actions before learning.", minimum=1)
    replay_capacity: int = option(
        1_000_000, "Maximum number of real rows kept; new rows replace the oldest.", minimum=1
    )
    fit_every_steps: int = option(250, "Environment steps between model fits.", minimum=1)
    updates_per_step: int = option(4, "Agent updates per environment step.", minimum=1)
    batch_size: int = option(256, "Rows of an agent update.", minimum=1)
    expansion_steps: int = option(3, "Imagined steps of the longest candidates of a target.", minimum=1)
    weighting: str = option(
        ensemble_expansion.INVERSE_VARIANCE,
        "How candidates of different length are weighted; all but the first are the paper's ablations.",
        choices=ensemble_expansion.WEIGHTINGS,
    )
    td_lambda: float = option(0.25, "Lambda of --weighting=td_lambda.", minimum=0.0, maximum=0.99)
    termination_fn: str = option("auto", phases.TERMINATION_HELP)
    reward_fn: str = option("learned", phases.REWARD_HELP)
    model: GaussianConfig = GaussianConfig(num_members=4, num_elites=4)
    agent: agents.AgentConfig = chosen_section(
        SacConfig(num_critics=4), "Agent that acts and learns.", agents.CONFIG_CLASSES
    )

    def __post_init__(self) -> None:
        check(self)


def build(config: SteveConfig, spec: Spec) -> Algorithm:
    """Builds an agent whose critics regress on weighted expansions.

    Raises:
      ValueError: the spec has no termination function, and none is to be learnt; or one critic is to be weighted by
        its variance.
    """
    if config.weighting == ensemble_expansion.INVERSE_VARIANCE and config.agent.num_critics < 2:
        raise ValueError(
            f"num_critics must be 2 or more with weighting={config.weighting} (the paper has 4), because the value of "
            f"one critic has no variance and would get all the weight, got {config.agent.num_critics}"
        )
    return fitted.build(config, spec, learning)


def learning(config: SteveConfig, spec: Spec, world: WorldModel, agent: Agent, state: FittedState) -> Learning:
    """Returns targets by the current model."""
    means = phases.learned_dynamics(world, world.belief(state.model), spec, noise=False)
    how = config.expansion_steps, config.agent.discount, config.weighting, config.td_lambda, spec.reward_fn
    return Learning(regression=functools.partial(ensemble_expansion.expand, means, agent, *how))
