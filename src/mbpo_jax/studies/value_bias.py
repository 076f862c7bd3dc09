"""Compares the critics' values with discounted returns over training: do the critics overestimate?

References: Fujimoto et al. 2018 (TD3), section 4.1; Chen et al. 2021 (REDQ), section 3, for the normalised bias.
"""

import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from mbpo_jax import options
from mbpo_jax.algorithms import REGISTRY
from mbpo_jax.driver.interaction import policy
from mbpo_jax.driver.trained import Trained
from mbpo_jax.studies import episodes, over_training
from mbpo_jax.studies.episodes import Episode
from mbpo_jax.studies.finding import Finding

TAIL_WEIGHT = 0.01
"""Largest discount factor that a reward may still have where an episode is cut off."""


def study(run_dir: Path, seed: int | None = None, num_episodes: int = 10) -> Finding:
    """Compares values with discounted returns at every checkpoint of a run.

    A value is the minimum over critics, as in the targets. A discounted return sums the rewards and, with SAC, the
    entropy bonuses from the next step on. Episodes continue past the run's time limit until a reward is discounted to
    TAIL_WEIGHT; only steps within the limit are compared. The policy acts as the critics assume: with noise under SAC,
    without under DDPG and TD3, and never by planning, as BMPO does in training. Checkpoints from before the agent's
    first update, and unreadable ones, are left out and listed.

    Args:
      num_episodes: episodes per checkpoint, each from a start of its own.
    Raises:
      StorageFailure, ValueError: see `load_trained`; or the discount is 1, or no checkpoint is left.
    """
    points, left_out, trained = over_training.measure(
        run_dir, seed, _check, lambda first: _Comparison(first, num_episodes)
    )
    numbers = {
        "env": trained.run.env,
        "algorithm": trained.run.algorithm,
        "seed": trained.seed,
        "discount": trained.config.agent.discount,
        "points": points,
        "left_out": left_out,
    }
    return present(numbers)


def _check(trained: Trained) -> None:
    if trained.algorithm.critic is None:
        raise ValueError(f"the run must have critics, got --algorithm={trained.run.algorithm}")
    if trained.config.agent.discount == 1.0:
        raise ValueError(
            "--discount of the run must be below 1, got 1: undiscounted returns would need endless episodes"
        )
    first = max(phase.first for phase in trained.algorithm.phases if phase.name == "update_agent")
    if trained.step < first:
        raise ValueError(f"the agent's first update is at step {first}")


def _by_itself(trained: Trained) -> Trained:
    """Returns the run with an algorithm whose agent chooses its actions by itself: the critics are of that policy."""
    if not getattr(trained.config, "planning_steps", 0):
        return trained
    config = options.replace(trained.config, {"planning_steps": 0})
    return trained._replace(algorithm=REGISTRY[trained.run.algorithm].build(config, trained.spec))


class _Comparison:
    """Measures checkpoints with functions that are compiled once."""

    def __init__(self, trained: Trained, num_episodes: int) -> None:
        trained = _by_itself(trained)
        self._num_episodes, self._discount = num_episodes, trained.config.agent.discount
        self._limit = episodes.most_steps(trained)
        self._tail = steps_of_tail(self._discount)
        self._env = episodes.open_environment(trained, self._tail)
        critic = trained.algorithm.critic
        assert critic is not None  # by `_check`
        self._q_values = jax.jit(lambda state, obs, action: jnp.min(critic.q_values(state, obs, action), axis=0))
        self._has_entropy = critic.has_entropy
        self._entropy_bonus = jax.jit(lambda key, state, obs: critic.target_action(key, state, obs)[1])
        self._acting = policy.deterministic(trained.algorithm)
        self._exploring = episodes.exploring_policy(trained, jax.random.key(trained.seed))

    def __call__(self, trained: Trained) -> dict[str, Any]:
        trained = _by_itself(trained)
        if not self._has_entropy:
            choose = episodes.deterministic_policy(trained, self._env, self._acting)
        else:
            choose = self._exploring(trained.algorithm.actor(trained.state))
        played = [episodes.play(self._env, choose, i, self._limit + self._tail) for i in range(self._num_episodes)]
        pairs = [self._compare(trained, i, episode) for i, episode in enumerate(played)]
        q, returns = (np.concatenate(column) for column in zip(*pairs))
        return bias(q, returns) | {"episode_steps_mean": float(np.mean([len(episode.reward) for episode in played]))}

    def _compare(self, trained: Trained, number: int, episode: Episode) -> tuple[np.ndarray, np.ndarray]:
        """Returns values and discounted returns [T'] of the steps within the run's time limit."""
        length, capacity = len(episode.reward), self._limit + self._tail  # one shape, so one compilation
        obs = np.zeros((capacity + 1, episode.obs.shape[1]), np.float32)
        action = np.zeros((capacity, episode.action.shape[1]), np.float32)
        obs[: length + 1], action[:length] = episode.obs, episode.action
        q = np.asarray(self._q_values(trained.state, obs[:-1], action), np.float64)
        bonus = np.zeros(length)
        if self._has_entropy:
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(trained.seed), trained.step), number)
            bonus = np.asarray(self._entropy_bonus(key, trained.state, obs), np.float64)[1 : length + 1]
        returns = discounted_returns(episode.reward, bonus, episode.terminal, self._discount)
        compared = min(length, self._limit)
        return q[:compared], returns[:compared]


def steps_of_tail(discount: float) -> int:
    """Returns the number of steps after which a reward is discounted to TAIL_WEIGHT."""
    return math.ceil(math.log(TAIL_WEIGHT) / math.log(discount)) if discount > 0.0 else 1


def discounted_returns(reward: np.ndarray, next_bonus: np.ndarray, terminal: bool, discount: float) -> np.ndarray:
    """Returns discounted returns G [T] of an episode: G_t = r_t + discount * (bonus_{t+1} + G_{t+1}).

    Args:
      reward: [T]; next_bonus: [T], the entropy bonus of the state after each step.
      terminal: whether the MDP ended after the last step, where no bonus is due.
    """
    returns = np.zeros(len(reward))
    next_value = 0.0 if terminal else float(next_bonus[-1])
    for t in reversed(range(len(reward))):
        returns[t] = float(reward[t]) + discount * next_value
        next_value = returns[t] + (float(next_bonus[t - 1]) if t else 0.0)
    return returns


def bias(q: np.ndarray, returns: np.ndarray) -> dict[str, Any]:
    """Returns mean and standard deviation of q - returns [B], also in units of |mean return|, and their correlation."""
    error, scale = q - returns, abs(float(np.mean(returns)))
    both_vary = q.std() > 0 and returns.std() > 0
    return {
        "value_mean": float(np.mean(q)),
        "return_mean": float(np.mean(returns)),
        "bias_mean": float(np.mean(error)),
        "bias_std": float(np.std(error)),
        "normalised_bias_mean": float(np.mean(error)) / scale if scale else None,
        "normalised_bias_std": float(np.std(error)) / scale if scale else None,
        "correlation": float(np.corrcoef(q, returns)[0, 1]) if both_vary else None,
    }


def present(numbers: dict[str, Any]) -> Finding:
    """Presents the numbers, as measured or as read back from their file, as a sentence and a figure."""
    return Finding(_sentence(numbers), numbers, _figure(numbers))


def _sentence(numbers: dict[str, Any]) -> str:
    points = numbers["points"]
    last = points[-1]
    above = sum(point["bias_mean"] > 0 for point in points)
    return (
        f"{numbers['algorithm']} on {numbers['env']}, {len(points)} checkpoints: the critics overestimate the "
        f"discounted return at {above} of them; at step {last['step']:,} the mean value is {last['value_mean']:.1f}, "
        f"the mean discounted return {last['return_mean']:.1f}."
    )


def _figure(numbers: dict[str, Any]) -> Figure:
    """Draws values beside discounted returns over training, and the normalised bias."""
    points = numbers["points"]
    steps = [point["step"] for point in points]
    figure = Figure(figsize=(10.0, 4.2), layout="constrained")
    values, normalised = figure.subplots(1, 2)
    returns = [point["return_mean"] for point in points]
    values.plot(steps, returns, marker=".", color="black", label="discounted return")
    values.plot(steps, [point["value_mean"] for point in points], marker=".", color="tab:blue", label="critics' value")
    values.set(title="mean over visited states", xlabel="environment steps", ylabel="discounted return")
    values.legend()
    mean, std = (
        np.asarray([point[name] for point in points], np.float64)  # None becomes nan, a gap
        for name in ("normalised_bias_mean", "normalised_bias_std")
    )
    normalised.plot(steps, mean, marker=".", color="tab:blue")
    normalised.fill_between(steps, mean - std, mean + std, color="tab:blue", alpha=0.15, linewidth=0.0)
    normalised.axhline(0.0, color="gray", linestyle="--", linewidth=1.0)
    normalised.set(
        title="normalised bias, mean ± sd over visited states",
        xlabel="environment steps",
        ylabel="(value - return) / |mean return|",
    )
    for axes in (values, normalised):
        axes.xaxis.set_major_formatter("{x:,.0f}")
    figure.suptitle(f"{numbers['algorithm']} on {numbers['env']}: do the critics overestimate?")
    return figure
