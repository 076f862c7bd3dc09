"""Deterministic evaluation."""

from typing import NamedTuple

import numpy as np

from mbpo_jax.driver.environment import Environment
from mbpo_jax.driver.policy import Policy


class Evaluation(NamedTuple):
    """Returns and lengths of the episodes of one evaluation."""

    returns: list[float]
    lengths: list[int]

    def metrics(self) -> dict[str, float]:
        """What a line of metrics says of it."""
        return {
            "eval/return_mean": float(np.mean(self.returns)),
            "eval/return_std": float(np.std(self.returns)),
            "eval/return_min": float(np.min(self.returns)),
            "eval/length_mean": float(np.mean(self.lengths)),
        }


def evaluate(policy: Policy, env: Environment, first_episode: int, num_episodes: int) -> Evaluation:
    """Runs the episodes numbered from `first_episode` on; the same numbers start from the same states."""
    returns, lengths = [], []
    for episode in range(first_episode, first_episode + num_episodes):
        obs, ended = env.reset(episode), False
        policy.reset()
        while not ended:
            step = env.step(policy.unscaled(obs))
            obs, ended = step.next_obs, step.terminal or step.truncated
        returns.append(env.episode_return)
        lengths.append(len(env.actions))
    return Evaluation(returns, lengths)
