"""Compares two versions of an environment: a trained policy plays both from the same starts.

Published runs used Gym's v2 environments, ours use Gymnasium's v5; v4 is the version closest to v2 that still runs.
"""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mbpo_jax.driver.config import AUTO
from mbpo_jax.driver.interaction.environment import EVALUATION, Environment
from mbpo_jax.driver.trained import load_trained
from mbpo_jax.studies import episodes
from mbpo_jax.studies.episodes import Episode
from mbpo_jax.studies.finding import Finding


def study(
    run_dir: Path, seed: int | None = None, step: int | None = None, other_env: str = AUTO, num_episodes: int = 20
) -> Finding:
    """Plays the deterministic policy in both versions, and repeats the actions of the run's own version in the other.

    Args:
      step: environment step of the checkpoint; the newest by default.
      other_env: Gymnasium id; auto: version 4 of the run's own environment.
      num_episodes: number of starts.
    Raises:
      StorageFailure: see `load_trained`.
      ValueError: the other environment does not exist, or its observations or actions have other sizes.
    """
    trained = load_trained(run_dir, seed, step)
    name = version_4(trained.run.env) if other_env == AUTO else other_env
    own = episodes.open_environment(trained)
    limit = own.max_episode_steps
    try:
        other = Environment(name, trained.seed, EVALUATION, limit, trained.run.env_timeout_s)
    except ValueError as error:
        raise ValueError(f"other_env must be another version of {trained.run.env}, got {name}: {error}") from error
    sizes = [(env.obs_dim, env.action_dim) for env in (own, other)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"other_env must have {sizes[0][0]} observations and {sizes[0][1]} actions, as {trained.run.env} has, got "
            f"{name} with {sizes[1][0]} and {sizes[1][1]}"
        )
    choose = episodes.deterministic_policy(trained, own)
    here = [episodes.play(own, choose, number, limit) for number in range(num_episodes)]
    there = [episodes.play(other, choose, number, limit) for number in range(num_episodes)]
    repeated = [repeat(other, episode, number) for number, episode in enumerate(here)]
    numbers = {
        "env": trained.run.env,
        "other_env": name,
        "seed": trained.seed,
        "step": trained.step,
        "returns": episodes.returns(here),
        "other_returns": episodes.returns(there),
        "lengths": [len(episode.reward) for episode in here],
        "other_lengths": [len(episode.reward) for episode in there],
        **differences(here, repeated),
    }
    return present(numbers)


def version_4(env: str) -> str:
    """Returns `Hopper-v4` for `Hopper-v5`, and `mbpo_jax/AntTruncatedObs-v4` for `mbpo_jax/AntTruncatedObs-v5`."""
    return env.rpartition("-")[0] + "-v4"


def repeat(env: Environment, episode: Episode, number: int) -> Episode:
    """Repeats the actions of an episode in `env` from the same start, until they run out or the episode ends."""
    actions = iter(episode.action)
    return episodes.play(env, lambda obs: next(actions), number, len(episode.action))


def differences(here: list[Episode], repeated: list[Episode]) -> dict[str, Any]:
    """Returns the largest differences in states and rewards under the same actions, over the steps that both took.

    Rewards leave out the last of these.
    """
    state = reward = 0.0
    last = []
    for one, two in zip(here, repeated, strict=True):
        steps = min(len(one.reward), len(two.reward))
        state = max(state, float(np.abs(one.obs[: steps + 1] - two.obs[: steps + 1]).max()))
        reward = max(reward, float(np.abs(one.reward[: steps - 1] - two.reward[: steps - 1]).max(initial=0.0)))
        if one.terminal and two.terminal and len(one.reward) == len(two.reward):
            last.append(float(two.reward[-1] - one.reward[-1]))
    return {
        "same_actions_state_difference": state,
        "same_actions_reward_difference": reward,
        "last_reward_differences": last,
    }


def present(numbers: dict[str, Any]) -> Finding:
    """Presents the numbers, as measured or as read back from their file, as a sentence and a figure."""
    return Finding(_sentence(numbers), numbers, _figure(numbers))


def _sentence(numbers: dict[str, Any]) -> str:
    own, other = np.asarray(numbers["returns"]), np.asarray(numbers["other_returns"])
    last = numbers["last_reward_differences"]
    ending = f"; the step that ends an episode earns {np.mean(last):+.2f} there" if last else ""
    return (
        f"{numbers['env']} {own.mean():.1f} +- {own.std():.1f}, {numbers['other_env']} {other.mean():.1f} +- "
        f"{other.std():.1f} over {len(own)} starts. The same actions lead to states that differ by up to "
        f"{numbers['same_actions_state_difference']:.2g} and rewards that differ by up to "
        f"{numbers['same_actions_reward_difference']:.2g} before the last step{ending}."
    )


def _figure(numbers: dict[str, Any]) -> Figure:
    """Draws the return in one version against the return in the other."""
    figure = Figure(figsize=(5.0, 4.6), layout="constrained")
    axes = figure.subplots()
    own, other = numbers["returns"], numbers["other_returns"]
    axes.scatter(own, other, s=16)
    ends = [min(own + other), max(own + other)]
    axes.plot(ends, ends, color="gray", linestyle="--", linewidth=1.0)
    axes.set(title="one dot per start", xlabel=f"return, {numbers['env']}", ylabel=f"return, {numbers['other_env']}")
    return figure
