"""Evaluates the policies of all seeds: by episodes in an environment, and offline by what the data say."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from mbpo_jax.driver import setup as setups
from mbpo_jax.driver.config import RunConfig
from mbpo_jax.driver.interaction import policy
from mbpo_jax.driver.interaction.evaluate import Evaluation
from mbpo_jax.driver.interaction.policy import Policy
from mbpo_jax.driver.interaction.spaces import Spaces
from mbpo_jax.driver.setup import Setup
from mbpo_jax.number_text import short
from mbpo_jax.types import PyTree


class SeedEvaluation(NamedTuple):
    """The policy of one seed, and what is known about it."""

    policy: Policy
    outcome: Evaluation | None  # None: --env=none, or no episodes are asked for
    values: dict[str, Any]  # metrics

    def in_words(self) -> str:
        """Returns a line for the terminal."""
        if self.outcome is not None:
            mean, std = self.values["eval/return_mean"], self.values["eval/return_std"]
            spread = short(std, beside=mean)
            return f"evaluation return {short(mean)} +- {spread} over {len(self.outcome.returns)} episodes"
        if not self.values:
            return "policy saved; its return is unknown"
        value = self.values["eval/start_value_mean"]
        return f"the critics' value is {short(value)} at the first states of the data; the return is unknown"


def evaluate_seeds(setup: Setup, state: PyTree, should_stop: Callable[[], bool]) -> list[SeedEvaluation] | None:
    """Evaluates the policy of every seed; returns None if a stop was requested: the evaluation is repeated later."""
    policies = setup.acting.policies(state)
    outcomes: Sequence[Evaluation | None] | None = [None] * len(policies)
    if setup.envs.evaluates:
        outcomes = setup.envs.evaluate(policies, setup.run.eval_episodes, should_stop)
    if outcomes is None:
        return None
    data_values = setups.values_of_data(setup, state)
    return [
        SeedEvaluation(acted, outcome, values | ({} if outcome is None else outcome.metrics()))
        for acted, outcome, values in zip(policies, outcomes, data_values, strict=True)
    ]


def save_policy(run: RunConfig, spaces: Spaces, seed: int, acted: Policy, is_best: bool) -> None:
    """Writes a policy to its file, and to that of the best policy if it is the best."""
    for best in (False, True) if is_best else (False,):
        path = policy.policy_path(run.directory, seed, best)
        policy.save_policy(path, acted.actor, spaces.obs_dim, spaces.action_low, spaces.action_high)
