"""Algorithms: a file for each composition of model, rollouts and agent, and a row in REGISTRY for each algorithm."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from mbpo_jax import options, terminations
from mbpo_jax.algorithms import behaviour_cloning, fitted, maac, mbpo, model_free, mopo, mve, pets, steve, td3_bc
from mbpo_jax.types import Algorithm, Spec


class Entry(NamedTuple):
    """A row of the registry: from it come flags, `--help`, the contract tests, and what reports compare with."""

    config_class: type
    build: Callable[[Any, Spec], Algorithm]
    summary: str  # for --help
    tiny: Mapping[str, Any]  # changes of the defaults, by full path, with which the contract tests take seconds
    agent: str | None = None  # the one agent of this row (a name in AGENTS); None: --agent chooses, or there is none
    published: tuple[str, ...] = ()  # names in published.csv, best first, of what runs are compared with
    offline: bool = False  # it learns from --dataset and steps no environment
    spec: Spec = Spec(obs_dim=4, action_dim=2, termination_fn=terminations.never)  # of the contract tests

    def default_config(self) -> Any:
        """Returns the knobs at their defaults."""
        config = self.config_class()
        return config if self.agent is None else options.replace(config, {"agent": self.agent})

    def tiny_config(self) -> Any:
        """Returns the knobs of the contract tests."""
        return options.replace(self.default_config(), self.tiny)


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
        "TD3 on a data set, held near its actions (Fujimoto & Gu 2021)",
        td3_bc.TINY,
        offline=True,
    ),
}
