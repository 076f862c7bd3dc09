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
from mbpo_jax.driver.seeds import num_cores
from mbpo_jax.types import Spec, TerminationFn, Transition

HEARING_S = 0.1  # Python's main thread, which alone hears signals, does not always wake up for them


class Taken(NamedTuple):
    """A step of one seed."""

    row: Transition  # a batch of one, on the host
    next_start: np.ndarray  # [O], to go on from: of the next episode if this one ended
    ended: bool
    episode_return: float  # so far


class GivenUp(NamedTuple):
    """A step that failed, and with it its episode; nothing of it is stored."""

    start: np.ndarray  # [O], of the next episode


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
        self.obs: list[np.ndarray] = []

    @property
    def first(self) -> Environment:
        """One of them, for what all have in common."""
        return self._training[0]

    def spec(self, termination_fn: TerminationFn | None = None) -> Spec:
        """What an algorithm must know of them."""
        return Spec(self.first.obs_dim, self.first.action_dim, termination_fn)

    def begin(self) -> None:
        """Begins the first episodes."""
        self.obs = [env.begin() for env in self._training]

    def step(self, which: Sequence[int], actions: Sequence[np.ndarray]) -> list[Taken | GivenUp]:
        """One step of each of the seeds `which`, with actions [A] in [-1, 1]; where an episode ended the next begins.

        Raises:
          EnvironmentFailure: an environment failed more often than is allowed.
        """
        envs, starts = [self._training[i] for i in which], [self.obs[i] for i in which]
        results = self._together(_take, envs, starts, actions)
        for i, result in zip(which, results):
            self.obs[i] = result.next_start if isinstance(result, Taken) else result.start
        return results

    def evaluate(
        self, policies: Sequence[Policy], num_episodes: int, should_stop: Callable[[], bool]
    ) -> list[evaluate.Evaluation] | None:
        """An evaluation of every seed; None if it was stopped."""

        def of_seed(policy: Policy, env: Environment) -> evaluate.Evaluation | None:
            return evaluate.evaluate(policy, env, 0, num_episodes, should_stop)

        outcomes = self._together(of_seed, policies, self._evaluation)
        finished = [outcome for outcome in outcomes if outcome is not None]
        return finished if len(finished) == len(outcomes) else None

    def _together(self, fn: Callable[..., Any], *arguments: Sequence[Any]) -> list[Any]:
        """`fn` of each seed's arguments, at the same time."""
        if self._pool is None:
            return list(map(fn, *arguments))
        futures = [self._pool.submit(fn, *given) for given in zip(*arguments, strict=True)]
        while wait(futures, HEARING_S).not_done:  # a signal that came to another thread is heard at each turn
            pass
        return [future.result() for future in futures]

    def faults(self) -> list[dict[str, int]]:
        """What has been forgiven so far, for each seed."""
        return [
            {
                "nonfinite_episodes": train.nonfinite_episodes + evaluation.nonfinite_episodes,
                "restarts": train.restarts + evaluation.restarts,
            }
            for train, evaluation in zip(self._training, self._evaluation)
        ]

    def forgiven(self) -> list[EnvironmentFailure]:
        """The failures that episodes were given up for since this was asked last."""
        failures = []
        for env in (*self._training, *self._evaluation):
            failures += env.forgiven
            env.forgiven = []
        return failures

    def arrays(self, i: int) -> dict[str, np.ndarray]:
        """What a checkpoint holds of seed number `i`: where it stands, and the actions that led there."""
        env = self._training[i]
        actions = np.asarray(env.actions, np.float32).reshape(-1, env.action_dim)
        return {
            "obs": self.obs[i],
            "episode_actions": np.concatenate([actions, np.zeros((1, env.action_dim), np.float32)]),
        }

    def record(self) -> dict[str, Any]:
        """The rest of what a checkpoint holds, as JSON."""
        return {
            "episodes": [env.episode for env in self._training],
            "episode_returns": [env.episode_return for env in self._training],
            "faults": [
                [(env.nonfinite_episodes, env.restarts) for env in envs] for envs in (self._training, self._evaluation)
            ],
        }

    def restore(self, i: int, arrays: dict[str, np.ndarray], record: dict[str, Any]) -> bool:
        """Brings seed number `i` back to where it stood; False if its episode does not repeat: a new one began."""
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


def _take(env: Environment, obs: np.ndarray, action: np.ndarray) -> Taken | GivenUp:
    try:
        step = env.step(action)
    except (NotFinite, Broken) as failure:
        return GivenUp(env.recover(failure))
    ended, episode_return = step.terminal or step.truncated, env.episode_return
    next_start = env.begin() if ended else step.next_obs
    return Taken(_row(obs, action, step), next_start, ended, episode_return)


def _row(obs: np.ndarray, action: np.ndarray, step: Step) -> Transition:
    """A batch of one transition, on the host. A time limit is not terminal."""
    leaves: dict[str, Any] = {
        "obs": obs,
        "action": action,
        "reward": np.asarray(step.reward, np.float32),
        "next_obs": step.next_obs,
        "terminal": np.asarray(step.terminal, np.float32),
    }
    return Transition(**{name: leaf[None] for name, leaf in leaves.items()})
