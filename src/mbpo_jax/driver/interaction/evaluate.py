"""Deterministic evaluation."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mbpo_jax.driver.config import EnvironmentFailure
from mbpo_jax.driver.interaction.environment import Environment
from mbpo_jax.driver.interaction.policy import Policy


class Evaluation(NamedTuple):
    """Returns and lengths of the episodes of one evaluation, without those in which the environment failed."""

    returns: list[float]
    lengths: list[int]

    def metrics(self) -> dict[str, float]:
        """Returns the metrics of the evaluation."""
        return {
            "eval/return_mean": float(np.mean(self.returns)),
            "eval/return_std": float(np.std(self.returns)),
            "eval/return_min": float(np.min(self.returns)),
            "eval/length_mean": float(np.mean(self.lengths)),
            "eval/episodes": float(len(self.returns)),
        }


def evaluate(
    policy: Policy,
    env: Environment,
    first_episode: int,
    num_episodes: int,
    should_stop: Callable[[], bool] = lambda: False,
) -> Evaluation | None:
    """Runs the episodes numbered from `first_episode` on; the same numbers give the same starts and draws.

    Args:
      num_episodes: 1 or more.
      should_stop: called before every step.
    Returns:
      The returns and lengths of the episodes; None when stopped: the evaluation must then be repeated, and the
      environment's counters are as before it.
    Raises:
      EnvironmentFailure: it failed more often than its limits allow, or in every episode.
    """
    counters, outcome = (env.nonfinite_episodes, env.restarts, list(env.failures)), Evaluation([], [])
    failure: EnvironmentFailure | None = None
    for episode in range(first_episode, first_episode + num_episodes):
        try:
            if not _play(policy, env, episode, should_stop):
                env.nonfinite_episodes, env.restarts, env.failures = counters
                return None
        except EnvironmentFailure as error:
            failure = error
            env.give_up(error)
            continue
        outcome.returns.append(env.episode_return)
        outcome.lengths.append(len(env.actions))
    if failure is not None and not outcome.returns:
        raise failure
    return outcome


def _play(policy: Policy, env: Environment, episode: int, should_stop: Callable[[], bool]) -> bool:
    """Plays one episode; returns False if it was stopped before its end."""
    obs, ended = env.reset(episode), False
    policy.reset(episode)
    while not ended:
        if should_stop():
            return False
        step = env.step(policy.normalized_action(obs))
        obs, ended = step.next_obs, step.terminal or step.truncated
    return True
