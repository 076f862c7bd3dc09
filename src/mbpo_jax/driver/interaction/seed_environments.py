"""The environments of all seeds of a run: stepped and evaluated together, in threads.

An environment is made, reset, stepped and closed by one thread, since it may own what belongs to a thread: a database
connection, a rendering context, an event loop. A single seed stays in the thread of the run.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np

from mbpo_jax.driver.config import (
    NO_ENVIRONMENT,
    SHARED,
    Broken,
    EnvironmentFailure,
    NotFinite,
    RunConfig,
    evaluates,
)
from mbpo_jax.driver.interaction import evaluate as evaluations
from mbpo_jax.driver.interaction import global_random
from mbpo_jax.driver.interaction.environment import EVALUATION, TRAINING, Environment, Limits, Step, several
from mbpo_jax.driver.interaction.policy import Policy
from mbpo_jax.driver.interaction.spaces import Spaces
from mbpo_jax.driver.seeds import num_cores
from mbpo_jax.types import Transition

SIGNAL_CHECK_S = 0.1  # Python's main thread, which alone handles signals, does not always wake up for them


class StepResult(NamedTuple):
    """A step of one seed."""

    row: Transition  # a batch of one, on the host
    first: np.ndarray  # [1], bool: whether the step began an episode
    next_start: np.ndarray  # [O], where the next step begins: in the next episode if this one ended
    ended: bool
    episode_return: float  # so far


class FailedStep(NamedTuple):
    """A step in which the environment failed. Its episode is given up, and nothing of the step is stored."""

    next_start: np.ndarray  # [O], of the next episode


class SeedEnvironments:
    """A training and an evaluation environment for every seed. `obs[i]` is the current observation of seed number i.

    Offline there are only the evaluation environments, or none.
    """

    def __init__(self, run: RunConfig, stack: ExitStack) -> None:
        """Opens them; `stack` closes them, and restores the global generators that they draw from."""
        # MuJoCo releases the GIL while it steps.
        workers = min(len(run.seeds), num_cores())
        self._threads = [stack.enter_context(ThreadPoolExecutor(1)) for _ in range(workers if workers > 1 else 0)]
        self._alone = len(run.seeds) == 1
        if self._alone:
            stack.callback(global_random.restore, global_random.state())
        self._run, self._shared = run, run.eval_env == SHARED
        training = range(0 if run.dataset else len(run.seeds))
        # Offline, its spaces are needed even if nothing is evaluated.
        evaluation = range(len(run.seeds) if evaluates(run) or (run.dataset and run.env != NO_ENVIRONMENT) else 0)
        self._training = [self._opened(i, TRAINING, stack) for i in training]
        self._evaluation = [self._opened(i, EVALUATION, stack) for i in evaluation]
        self.evaluates = evaluates(run)
        opened = self._evaluation or self._training
        self.spaces: Spaces | None = opened[0].spaces if opened else None
        self.obs: list[np.ndarray] = []
        self._not_repeated = [False for _ in run.seeds]  # after an evaluation in the same instance

    def begin(self) -> None:
        """Begins the first episodes."""
        self.obs = self._together(range(len(self._training)), Environment.begin, self._training)

    def at_start(self, i: int) -> bool:
        """Returns whether the running episode of seed number `i` has had no step yet."""
        return not self._training[i].actions

    def step(self, which: Sequence[int], actions: Sequence[np.ndarray]) -> list[StepResult | FailedStep]:
        """Steps the seeds `which` with actions [A] in [-1, 1]; where an episode ends, the next one begins.

        Raises:
          EnvironmentFailure: an environment failed more often than is allowed.
        """
        envs, starts = [self._training[i] for i in which], [self.obs[i] for i in which]
        results: list[StepResult | FailedStep] = self._together(which, _step, envs, starts, actions)
        for i, result in zip(which, results):
            self.obs[i] = result.next_start
        return results

    def evaluate(
        self, policies: Sequence[Policy], num_episodes: int, should_stop: Callable[[], bool]
    ) -> list[evaluations.Evaluation] | None:
        """Evaluates every seed; returns None if stopped."""
        seeds = range(len(self._evaluation))
        outcomes = self._together(
            seeds, self._evaluate, seeds, policies, [num_episodes] * len(seeds), [should_stop] * len(seeds)
        )
        finished = [outcome for outcome in outcomes if outcome is not None]
        return finished if len(finished) == len(outcomes) else None

    def _evaluate(
        self, i: int, policy: Policy, num_episodes: int, should_stop: Callable[[], bool]
    ) -> evaluations.Evaluation | None:
        """Evaluates seed number `i`; its training episode continues as if there had been no evaluation."""
        evaluation = self._evaluation[i]
        drawing = global_random.state() if self._alone else None
        if not self._shared:
            outcome = evaluations.evaluate(policy, evaluation, 0, num_episodes, should_stop)
        else:
            training = self._training[i]
            episode, actions, episode_return = training.episode, np.asarray(training.actions), training.episode_return
            training.hand_over(evaluation)
            outcome = evaluations.evaluate(policy, evaluation, 0, num_episodes, should_stop)
            evaluation.hand_over(training)
            self._not_repeated[i] = not self._repeat(i, episode, actions, episode_return, self.obs[i])
        if drawing is not None and not self._shared:  # a shared one has repeated all its draws
            global_random.restore(drawing)
        return outcome

    def _opened(self, i: int, stream: int, stack: ExitStack) -> Environment:
        if stream == EVALUATION and self._shared:
            env = self._training[i].twin(EVALUATION)
        else:
            env = self._made(i, stream)
        stack.callback(self._together, [i], Environment.close, [env])
        return env

    def _made(self, i: int, stream: int) -> Environment:
        run = self._run
        limits = Limits(run.env_nonfinite_episodes, run.env_restarts)
        arguments = (run.env, run.seeds[i], stream, run.max_episode_steps, run.env_timeout_s, limits, self._alone)
        try:
            (env,) = self._together([i], Environment, *([argument] for argument in arguments))
        except Broken as failure:
            if (stream, i) == (EVALUATION if run.dataset else TRAINING, 0):
                raise
            raise several(failure) from failure
        made: Environment = env
        return made

    def _together(self, which: Sequence[int], fn: Callable[..., Any], *arguments: Sequence[Any]) -> list[Any]:
        """Returns `fn` of the arguments of each of the seeds `which`, computed concurrently."""
        if not self._threads:
            return list(map(fn, *arguments))
        given = zip(which, *arguments, strict=True)
        futures = [self._threads[i % len(self._threads)].submit(fn, *mine) for i, *mine in given]
        while wait(futures, SIGNAL_CHECK_S).not_done:  # each turn handles signals that reached another thread
            pass
        return [future.result() for future in futures]

    def failure_counts(self) -> list[dict[str, int]]:
        """Returns how often the environments of each seed have failed so far, by metric."""
        counts = []
        for i in range(len(self._run.seeds)):
            envs = [*self._training[i : i + 1], *self._evaluation[i : i + 1]]
            failed = sum(env.nonfinite_episodes for env in envs)
            counts.append({"nonfinite_episodes": failed, "restarts": sum(env.restarts for env in envs)})
        return counts

    def take_failures(self) -> list[EnvironmentFailure]:
        """Returns the failures for which episodes were given up since the last call."""
        failures = []
        for env in (*self._training, *self._evaluation):
            failures += env.failures
            env.failures = []
        return failures

    def take_notices(self) -> list[str]:
        """Returns what else the user should know, since the last call."""
        lost = [seed for seed, not_repeated in zip(self._run.seeds, self._not_repeated) if not_repeated]
        self._not_repeated = [False for _ in self._not_repeated]
        return [
            f"seed {seed}: env {self._run.env} did not repeat its running episode after an evaluation in the same "
            "instance (--eval_env=shared); a new one begins"
            for seed in lost
        ]

    def arrays(self, i: int) -> dict[str, np.ndarray]:
        """Returns what a checkpoint holds for seed number `i`: its observation, and the actions that led there."""
        if not self._training:
            return {}
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
            "draws": not self._alone and global_random.draws(self._run.env),
            "faults": [
                [(env.nonfinite_episodes, env.restarts) for env in envs] for envs in (self._training, self._evaluation)
            ],
        }

    def restore(self, i: int, arrays: dict[str, np.ndarray], record: dict[str, Any]) -> bool:
        """Restores seed number `i`; returns False if its episode could not be repeated and a new one began.

        Args:
          record: what `to_json` returned.
        """
        if record.get("draws"):  # older checkpoints do not say
            global_random.expect_draws(self._run.env)
        for envs, saved in zip((self._training, self._evaluation), record["faults"]):
            for mine in envs[i : i + 1]:
                mine.nonfinite_episodes, mine.restarts = saved[i]
        if not self._training:
            return True
        episode, episode_return = record["episodes"][i], record["episode_returns"][i]
        given = (i, episode, arrays["episode_actions"][:-1], episode_return, arrays["obs"])
        (repeated,) = self._together([i], self._repeat, *([argument] for argument in given))
        return bool(repeated)

    def _repeat(self, i: int, episode: int, actions: np.ndarray, episode_return: float, obs: np.ndarray) -> bool:
        """Repeats an episode from its journal, up to `obs`; returns False if that fails and a new one began."""
        env = self._training[i]
        try:
            self.obs[i] = env.repeat(episode, actions, episode_return)
        except (NotFinite, Broken) as failure:
            self.obs[i] = env.recover(failure)
            return False
        if np.array_equal(self.obs[i], obs):
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
    return StepResult(_transition(obs, action, step), first, next_start, ended, episode_return)


def _transition(obs: np.ndarray, action: np.ndarray, step: Step) -> Transition:
    """Returns a batch of one transition, on the host. A time limit is not terminal."""
    leaves: dict[str, Any] = {
        "obs": obs,
        "action": action,
        "reward": np.asarray(step.reward, np.float32),
        "next_obs": step.next_obs,
        "terminal": np.asarray(step.terminal, np.float32),
    }
    return Transition(**{name: leaf[None] for name, leaf in leaves.items()})
