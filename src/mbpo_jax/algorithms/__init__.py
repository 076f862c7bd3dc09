"""What composes: one file per member of the family, and one row each in REGISTRY."""

from collections.abc import Callable
from typing import Any, NamedTuple

from mbpo_jax.algorithms import mbpo, sac
from mbpo_jax.types import Algorithm, Spec


class Member(NamedTuple):
    """A row of the registry: from it come flags, `--help`, and the contract tests."""

    config_class: type
    build: Callable[[Any, Spec], Algorithm]
    summary: str


REGISTRY: dict[str, Member] = {
    "mbpo": Member(mbpo.MbpoConfig, mbpo.build, "Model-based policy optimisation (Janner et al. 2019)"),
    "sac": Member(sac.SacRunConfig, sac.build, "Soft actor-critic, model-free (Haarnoja et al. 2018)"),
}
