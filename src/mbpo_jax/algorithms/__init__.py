"""What composes: a file for each way to compose, and a row in REGISTRY for each algorithm."""

from collections.abc import Callable
from typing import Any, NamedTuple

from mbpo_jax.algorithms import mbpo, model_free
from mbpo_jax.types import Algorithm, Spec


class Entry(NamedTuple):
    """A row of the registry: from it come flags, `--help`, and the contract tests."""

    config_class: type
    build: Callable[[Any, Spec], Algorithm]
    summary: str


REGISTRY: dict[str, Entry] = {
    "mbpo": Entry(mbpo.MbpoConfig, mbpo.build, "Model-based policy optimisation (Janner et al. 2019)"),
    "mbpo_ddpg": Entry(mbpo.MbpoDdpgConfig, mbpo.build, "MBPO with DDPG as its agent, exploration noise in rollouts"),
    "mbpo_td3": Entry(mbpo.MbpoTd3Config, mbpo.build, "MBPO with TD3 as its agent, exploration noise in rollouts"),
    "sac": Entry(
        model_free.ModelFreeSacConfig, model_free.build, "Soft actor-critic, model-free (Haarnoja et al. 2018)"
    ),
    "ddpg": Entry(
        model_free.ModelFreeDdpgConfig,
        model_free.build,
        "Deep deterministic policy gradients, model-free (Lillicrap et al. 2015)",
    ),
    "td3": Entry(
        model_free.ModelFreeTd3Config, model_free.build, "Twin delayed DDPG, model-free (Fujimoto et al. 2018)"
    ),
}
