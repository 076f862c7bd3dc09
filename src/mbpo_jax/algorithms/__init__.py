"""Algorithms: one file for each composition of model, rollouts and agent, one row in REGISTRY for each algorithm."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from mbpo_jax import options, terminations
from mbpo_jax.algorithms import (
    behaviour_cloning,
    bmpo,
    double_horizon,
    dyna_q,
    fitted,
    maac,
    mbpo,
    model_free,
    mopo,
    mve,
    pets,
    q_planning,
    sac_svg,
    steve,
    svg,
    td3_bc,
)
from mbpo_jax.types import Algorithm, Spec


class Entry(NamedTuple):
    """A row of the registry: the source of flags, `--help`, the contract tests, and what reports compare with."""

    config_class: type
    build: Callable[[Any, Spec], Algorithm]
    summary: str  # for --help
    tiny: Mapping[str, Any]  # changes to the defaults, by full path, with which the contract tests take seconds
    agent: str | None = None  # the only agent of this row (a name in AGENTS); None: --agent chooses, or there is none
    published: tuple[str, ...] = ()  # names in published.csv, best first, of the results that runs are compared with
    offline: bool = False  # it learns from --dataset and steps no environment
    discrete: bool = False  # it takes only Discrete observations and actions, as one-hot rows
    spec: Spec = Spec(obs_dim=4, action_dim=2, termination_fn=terminations.never)  # for the contract tests

    def default_config(self) -> Any:
        """Returns the knobs at their defaults."""
        config = self.config_class()
        return config if self.agent is None else options.replace(config, {"agent": self.agent})

    def tiny_config(self) -> Any:
        """Returns the knobs for the contract tests."""
        return options.replace(self.default_config(), self.tiny)


TABULAR = Spec(obs_dim=6, action_dim=9, one_hot_actions=True)  # for the contract tests of tables

REGISTRY: dict[str, Entry] = {
    "mbpo": Entry(
        mbpo.MbpoConfig,
        mbpo.build,
        "Model-based policy optimisation (Janner et al. 2019)",
        mbpo.TINY,
        published=("MBPO",),
    ),
    "mbpo_ddpg": Entry(
        mbpo.MbpoConfig,
        mbpo.build,
        "MBPO with DDPG as its agent, exploration noise in rollouts",
        mbpo.TINY,
        agent="ddpg",
        published=("MBPO",),
    ),
    "mbpo_td3": Entry(
        mbpo.MbpoConfig,
        mbpo.build,
        "MBPO with TD3 as its agent, exploration noise in rollouts",
        mbpo.TINY,
        agent="td3",
        published=("MBPO",),
    ),
    "bmpo": Entry(
        bmpo.BmpoConfig,
        bmpo.build,
        "MBPO with rollouts in both directions from states of high value (Lai et al. 2020)",
        bmpo.TINY,
        published=("MBPO",),
    ),
    "mve": Entry(
        mve.MveConfig,
        mve.build,
        "Value expansion: imagined steps in the critics' targets (Feinberg et al. 2018)",
        fitted.TINY,
    ),
    "steve": Entry(
        steve.SteveConfig,
        steve.build,
        "Value expansions of several lengths, weighted (Buckman et al. 2018)",
        fitted.TINY,
    ),
    "maac": Entry(
        maac.MaacConfig,
        maac.build,
        "The actor's gradient goes through the model (Clavera et al. 2020)",
        maac.TINY,
    ),
    "double_horizon": Entry(
        double_horizon.DoubleHorizonConfig,
        double_horizon.build,
        "Long rollouts give states, short ones targets and gradients (DHMBPO, 2025)",
        double_horizon.TINY,
        published=("DHMBPO", "MBPO"),
    ),
    "svg": Entry(
        svg.SvgConfig,
        svg.build,
        "Stochastic value gradients: real steps differentiated (Heess et al. 2015)",
        svg.TINY,
    ),
    "sac_svg": Entry(
        sac_svg.SacSvgConfig,
        sac_svg.build,
        "SAC whose actor maximises model rewards, then critic values (Amos et al. 2021)",
        sac_svg.TINY,
    ),
    "pets": Entry(
        pets.PetsConfig,
        pets.build,
        "Planning in a learned ensemble at each step (Chua et al. 2018)",
        pets.TINY,
    ),
    "sac": Entry(
        model_free.ModelFreeConfig,
        model_free.build,
        "Soft actor-critic, model-free (Haarnoja et al. 2018)",
        model_free.TINY,
        agent="sac",
        published=("SAC", "MBPO"),
    ),
    "ddpg": Entry(
        model_free.ModelFreeConfig,
        model_free.build,
        "Deep deterministic policy gradients, model-free (Lillicrap et al. 2015)",
        model_free.TINY,
        agent="ddpg",
        published=("DDPG", "MBPO"),
    ),
    "td3": Entry(
        model_free.ModelFreeConfig,
        model_free.build,
        "Twin delayed DDPG, model-free (Fujimoto et al. 2018)",
        model_free.TINY,
        agent="td3",
        published=("TD3", "MBPO"),
    ),
    "q_planning": Entry(
        q_planning.QPlanningConfig,
        q_planning.build,
        "Tabular Q-planning: Q is learnt from a model of random steps (Sutton & Barto 2018)",
        q_planning.TINY,
        discrete=True,
        spec=TABULAR,
    ),
    "dyna_q": Entry(
        dyna_q.DynaQConfig,
        dyna_q.build,
        "Dyna-Q: Q-learning that plans in a tabular model (Sutton 1990)",
        dyna_q.TINY,
        discrete=True,
        spec=TABULAR,
    ),
    "mopo": Entry(
        mopo.MopoConfig,
        mopo.build,
        "MBPO on a data set, with penalised rewards (Yu et al. 2020)",
        mopo.TINY,
        offline=True,
    ),
    "bc": Entry(
        behaviour_cloning.CloningRunConfig,
        behaviour_cloning.build,
        "Behaviour cloning of a data set",
        behaviour_cloning.TINY,
        offline=True,
    ),
    "td3_bc": Entry(
        td3_bc.Td3BcConfig,
        td3_bc.build,
        "TD3 on a data set, kept close to its actions (Fujimoto & Gu 2021)",
        td3_bc.TINY,
        offline=True,
    ),
}
