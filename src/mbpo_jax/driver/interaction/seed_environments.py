"""The environments of all seeds of a run: stepped and evaluated together, in threads."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np

from mbpo_jax.driver.config import Broken, EnvironmentFailure, NotFinite, RunConfig
from mbpo_jax.driver.interaction import evaluate
from mbpo_jax.driver.interaction.environment import EVALUATION, TRAINING, Environment, Limits, Step
from mbpo_jax.driver.interaction.policy import Policy
from mbpo_jax.driver.interaction.simulator import Spaces
from mbpo_jax.driver.seeds import num_cores
from mbpo_jax.types import Transition

SIGNAL_CHECK_S = 0.1  # Python's main thread, which alone handles signals, does not always wake up for them


class StepResult(NamedTuple):
    """A step of one seed."""

    row: Transition  # a batch of one, on the host
    first: np.ndarray  # [1], bool: whether the step began an episode
    next_start: np.ndarray  # [O], to go on from: of the next episode if this one ended
    ended: bool
    episode_return: float  # so far


class FailedStep(NamedTuple):
    """A step that the environment failed in. Its episode is given up, and nothing of the step is stored."""

    next_start: np.ndarray  # [O], of the next episode


class SeedEnvironments:
    """An environment to train in and one to evaluate in for every seed. `obs[i]` is where seed number i stands."""

    def __init__(self, run: RunConfig, stack: ExitStack) -> None:
        """Opens them; `stack` closes them."""
        limits = Limits(run.env_nonfinite_episodes, run.env_restarts)

        def opened(seed: int, stream: int) -> Environment:
            env = Environment(run.env, seed, stream, run.max_episode_steps, run.env_timeout_s, limits)
            stack.callback(env.close)
            return env

        self._training = [opened(seed, TRAINING) for seed in run.seeds]
        self._evaluation = [opened(seed, EVALUATION) for seed in run.seeds]
        # MuJoCo lets go of the interpreter while it steps.
        workers = min(len(run.seeds), num_cores())
        self._pool = None if workers == 1 else stack.enter_context(ThreadPoolExecutor(workers))
        self.spaces: Spaces = self._training[0].spaces
        self.obs: list[np.ndarray] = []

    def begin(self) -> None:
        """Begins the first episodes."""
        self.obs = [env.begin() for env in self._training]

    def at_start(self, i: int) -> bool:
        """Returns whether the running episode of seed number `i` has had no step yet."""
        return not self._training[i].actions

    def step(self, which: Sequence[int], actions: Sequence[np.ndarray]) -> list[StepResult | FailedStep]:
        """Steps the seeds `which` with actions [A] in [-1, 1]; where an episode ended the next one begins.

        Raises:
          EnvironmentFailure: an environment failed more often than is allowed.
        """
        envs, starts = [self._training[i] for i in which], [self.obs[i] for i in which]
        results: list[StepResult | FailedStep] = self._together(_step, envs, starts, actions)
        for i, result in zip(which, results):
            self.obs[i] = result.next_start
        return results

    def evaluate(
        self, policies: Sequence[Policy], num_episodes: int, should_stop: Callable[[], bool]
    ) -> list[evaluate.Evaluation] | None:
        """Evaluates every seed; returns None if that was stopped."""

        def evaluate_seed(policy: Policy, env: Environment) -> evaluate.Evaluation | None:
            return evaluate.evaluate(policy, env, 0, num_episodes, should_stop)

        outcomes = self._together(evaluate_seed, policies, self._evaluation)
        finished = [outcome for outcome in outcomes if outcome is not None]
        return finished if len(finished) == len(outcomes) else None

    def _together(self, fn: Callable[..., Any], *arguments: Sequence[Any]) -> list[Any]:
        """Returns `fn` of each seed's arguments, computed at the same time."""
        if self._pool is None:
            return list(map(fn, *arguments))
        futures = [self._pool.submit(fn, *given) for given in zip(*arguments, strict=True)]
        while wait(futures, SIGNAL_CHECK_S).not_done:  # a signal that came to another thread is handled at each turn
            pass
        return [future.result() for future in futures]

    def failure_counts(self) -> list[dict[str, int]]:
        """Returns how often the environments of each seed have failed so far, by metric."""
        return [
            {
                "nonfinite_episodes": train.nonfinite_episodes + evaluation.nonfinite_episodes,
                "restarts": train.restarts + evaluation.restarts,
            }
            for train, evaluation in zip(self._training, self._evaluation)
        ]

    def take_failures(self) -> list[EnvironmentFailure]:
        """Returns the failures that episodes were given up for since the last call."""
        failures = []
        for env in (*self._training, *self._evaluation):
            failures += env.failures
            env.failures = []
        return failures

    def arrays(self, i: int) -> dict[str, np.ndarray]:
        """Returns what a checkpoint holds of seed number `i`: where it stands, and the actions that led there."""
        env = self._training[i]
        actions = np.asarray(env.actions, np.float32).reshape(-1, env.action_dim)
        return {
            "obs": self.obs[i],
            "episode_actions": np.concatenate([actions, np.zeros((1, env.action_dim), np.float32)]),
        }

    def to_json(self) -> dict[str, Any]:
        """Returns the rest of what a checkpoint holds."""
        return {
            "episodes": [env.episode for env in self._training],
            "episode_returns": [env.episode_return for env in self._training],
            "faults": [
                [(env.nonfinite_episodes, env.restarts) for env in envs] for envs in (self._training, self._evaluation)
            ],
        }

    def restore(self, i: int, arrays: dict[str, np.ndarray], record: dict[str, Any]) -> bool:
        """Brings seed number `i` back to where it stood; returns False if its episode does not repeat: a new one began.

        Args:
          record: what `to_json` returned.
        """
        env = self._training[i]
        for mine, saved in zip((env, self._evaluation[i]), record["faults"]):
            mine.nonfinite_episodes, mine.restarts = saved[i]
        try:
            self.obs[i] = env.repeat(
                record["episodes"][i], arrays["episode_actions"][:-1], record["episode_returns"][i]
            )
        except (NotFinite, Broken) as failure:
            self.obs[i] = env.recover(failure)
            return False
        if np.array_equal(self.obs[i], arrays["obs"]):
            return True
        self.obs[i] = env.begin()
        return False


def _step(env: Environment, obs: np.ndarray, action: np.ndarray) -> StepResult | FailedStep:
    first = np.asarray([not env.actions])
    try:
        step = env.step(action)
    except (NotFinite, Broken) as failure:
        return FailedStep(env.recover(failure))
    ended, episode_return = step.terminal or step.truncated, env.episode_return
    next_start = env.begin() if ended else step.next_obs
    return StepResult(_row(obs, action, step), first, next_start, ended, episode_return)


def _row(obs: np.ndarray, action: np.ndarray, step: Step) -> Transition:
    """Returns a batch of one transition, on the host. A time limit is not terminal."""
    leaves: dict[str, Any] = {
        "obs": obs,
        "action": action,
        "reward": np.asarray(step.reward, np.float32),
        "next_obs": step.next_obs,
        "terminal": np.asarray(step.terminal, np.float32),
    }
    return Transition(**{name: leaf[None] for name, leaf in leaves.items()})
