"""Knobs of a run that no algorithm reads, and the errors that end one."""

import dataclasses
import re
from typing import Any

from mbpo_jax.algorithms import REGISTRY
from mbpo_jax.options import check, option

DIVERGENCE_ADVICE = "Try a smaller --learning_rate or --model_learning_rate, or fewer --updates_per_step"
NEVER = "never"
AUTO = "auto"


class EnvironmentFailure(RuntimeError):
    """The environment gave something that cannot be learnt from. Exit status 5."""


class Diverged(RuntimeError):
    """Learning produced a number that is not finite. Exit status 4."""


class StorageFailure(RuntimeError):
    """A file of the run directory could not be written or read. Exit status 6."""


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """What to run, for how long, and where its files go."""

    algorithm: str = option("mbpo", "Member of the family.", choices=tuple(REGISTRY))
    env: str = option("InvertedPendulum-v5", "Gymnasium id with Box observations and actions; module:Id imports first.")
    seeds: tuple[int, ...] = option(
        (0,), "Seeds; one independent agent each, in one process.", minimum=0, maximum=2**31 - 1
    )
    num_steps: int = option(5000, "Environment steps per seed, exploration included.", minimum=1, maximum=2**31 - 1)
    run_dir: str = option(
        AUTO, "Directory of the run's files; an existing one is resumed. auto: runs/<env>-<algorithm>."
    )
    max_episode_steps: int = option(
        0, "Time limit of an episode in environment steps; 0: the environment's own.", minimum=0
    )
    eval_every_steps: int = option(1000, "Environment steps between evaluations.", minimum=1)
    eval_episodes: int = option(5, "Deterministic episodes per evaluation.", minimum=1)
    log_every_steps: int = option(250, "Environment steps between lines of metrics.", minimum=1)
    checkpoint_every_steps: int = option(1000, "Environment steps between checkpoints.", minimum=1)
    checkpoints_kept: int = option(2, "Newest checkpoints kept.", minimum=1)
    seed_lifting: str = option(
        AUTO,
        "How phases run over seeds: each (one after another, spread over local devices), vmap (batched), or "
        "auto (each on CPU, vmap elsewhere).",
        choices=(AUTO, "each", "vmap"),
    )
    tensorboard: bool = option(False, "Also write TensorBoard files; needs the extra 'tensorboard'.")
    quiet: bool = option(False, "Print nothing but errors.")

    def __post_init__(self) -> None:
        check(self)
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must differ from one another, got {self.seeds!r}")
        if not self.env:
            raise ValueError("env must be a Gymnasium id, got ''")
        if not self.run_dir:
            raise ValueError("run_dir must be a directory or 'auto', got ''")

    @property
    def directory(self) -> str:
        """`run_dir`, with auto resolved."""
        if self.run_dir != AUTO:
            return self.run_dir
        return f"runs/{re.sub(r'[^A-Za-z0-9._-]+', '_', self.env)}-{self.algorithm}"


# What may differ when a run is resumed: how long it is, and what it shows and keeps.
RESUMABLE_CHANGES = frozenset(
    {
        "num_steps",
        "run_dir",
        "checkpoint_every_steps",
        "checkpoints_kept",
        "seed_lifting",
        "tensorboard",
        "quiet",
    }
)


def default_algorithm_config(run: RunConfig) -> Any:
    """The knobs, at their defaults, of the algorithm that `run` names."""
    return REGISTRY[run.algorithm].config_class()
