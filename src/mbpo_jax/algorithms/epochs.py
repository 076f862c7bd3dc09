"""MBPO's epochs: the unit of its schedules, and of how long imagined rows are kept."""

from typing import Protocol

from mbpo_jax.replay import Replay
from mbpo_jax.types import Array


class EpochConfig(Protocol):
    """The knobs of an algorithm that counts in epochs."""

    @property
    def exploration_steps(self) -> int:
        """Returns the number of environment steps of random actions before the first epoch."""

    @property
    def epoch_steps(self) -> int:
        """Returns the number of environment steps of an epoch."""

    @property
    def fit_every_steps(self) -> int:
        """Returns the number of environment steps between two rounds of rollouts."""

    @property
    def rollout_batch(self) -> int:
        """Returns the number of start states of a round."""

    @property
    def retain_epochs(self) -> int:
        """Returns the number of epochs whose imagined rows are kept."""


def number(config: EpochConfig, real: Replay) -> Array:
    """Returns the number [] of the current epoch, from 0 at the end of exploration; it follows from the real rows."""
    return (real.num_added - config.exploration_steps) // config.epoch_steps


def imagined_rows_limit(config: EpochConfig, length: Array | int) -> Array | int:
    """Returns the number of rows in `retain_epochs` epochs of rollouts of this length, one round at least."""
    rows_per_step = config.rollout_batch * config.epoch_steps * config.retain_epochs // config.fit_every_steps
    return length * max(rows_per_step, config.rollout_batch)
