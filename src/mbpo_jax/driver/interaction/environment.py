"""One Gymnasium environment of one seed, with checks on everything that goes in and comes out.

Actions are in [-1, 1] outside and rescaled here. Episode n of a seed is reset with a seed of its own, so that
a running episode can be repeated from its number and its actions alone: that is what a checkpoint holds.

An environment may fail. Then `reset` and `step` raise; `recover` gives up the running episode and begins the next
one, in a new instance if need be, as often as the limits allow. Nothing is ever learnt from a faulty step.
"""

import copy
from typing import NamedTuple, Self

import numpy as np

from mbpo_jax.driver.config import DIVERGENCE_ADVICE, Broken, Diverged, EnvironmentFailure, NotFinite
from mbpo_jax.driver.interaction.environment_process import SimulatorProcess
from mbpo_jax.driver.interaction.simulator import Failure, Simulator, Step
from mbpo_jax.driver.interaction.spaces import Unfit, same

TRAINING, EVALUATION = 0, 1  # streams of episode seeds
FLOAT32_OVERFLOW = 2.0**128 - 2.0**103  # the smallest number that becomes infinite in float32


class Limits(NamedTuple):
    """How often an environment may fail, by kind of failure."""

    nonfinite_episodes: int = 0  # --env_nonfinite_episodes
    restarts: int = 0  # --env_restarts


class Environment:
    """An environment with Box or Discrete observations and actions, and the journal of its running episode.

    Args:
      timeout_s: seconds that a reset or step may take, in a process of its own; 0: no limit, in this process.
      alone: whether no environment of another seed is in this process, see `global_random`.
      renders: whether `render` will be called; in this process only.
    Raises:
      ValueError: there is no such environment, or it cannot be used.
      Broken: it failed while it was made.
    """

    def __init__(
        self,
        env_id: str,
        seed: int,
        stream: int = TRAINING,
        max_episode_steps: int = 0,
        timeout_s: int = 0,
        limits: Limits = Limits(),  # noqa: B008 (it is immutable)
        alone: bool = True,
        renders: bool = False,
    ) -> None:
        self._env_id, self._seed, self._stream = env_id, seed, stream
        self._renders, self._alone = renders, alone
        self._wanted_limit, self._timeout_s, self._limits = max_episode_steps, timeout_s, limits
        self._simulator: Simulator | SimulatorProcess | None = self._make()
        self.spaces = self._simulator.spaces
        self.obs_dim, self.action_dim = self.spaces.obs_dim, self.spaces.action_low.size
        self.action_low, self.action_high = self.spaces.action_low, self.spaces.action_high
        self.max_episode_steps = self.spaces.max_episode_steps
        self.episode = -1  # number of the running episode
        self.actions: list[np.ndarray] = []  # [A] each, of the running episode
        self.episode_return = 0.0
        self.nonfinite_episodes = 0  # given up because of a value that is not finite
        self.restarts = 0  # times that the environment was made anew
        self.failures: list[EnvironmentFailure] = []  # those counted above that have not been reported yet

    def twin(self, stream: int) -> Self:
        """Returns an environment with another stream of episodes, for use once `hand_over` gives it this instance."""
        twin = copy.copy(self)
        twin._stream, twin._simulator = stream, None
        twin.actions, twin.failures = [], []
        return twin

    def hand_over(self, other: Self) -> None:
        """Gives the instance to a twin. The episode that runs here is lost; `repeat` restores it."""
        other._simulator, self._simulator = self._simulator, None

    def begin(self) -> np.ndarray:
        """Begins the next episode that can be begun, recovering from faults; returns its first observation [O]."""
        try:
            return self.reset()
        except EnvironmentFailure as failure:
            return self.recover(failure)

    def recover(self, failure: EnvironmentFailure) -> np.ndarray:
        """Gives up the running episode and begins the next one; returns its first observation [O].

        Raises:
          EnvironmentFailure: see `give_up`.
        """
        while True:
            self.give_up(failure)
            try:
                return self.reset()
            except EnvironmentFailure as another:
                failure = another

    def give_up(self, failure: EnvironmentFailure) -> None:
        """Counts a failure and, unless only a value was not finite, closes the environment: `reset` makes a new one.

        Raises:
          NotFinite, Broken, like the failure: the limits allow no more of them, so it is not counted. Names the flag.
        """
        if isinstance(failure, NotFinite):
            if self.nonfinite_episodes >= (limit := self._limits.nonfinite_episodes):
                done = f"{limit} episodes had already been given up, and " if limit else ""
                raise _beyond(failure, f"{done}--env_nonfinite_episodes={limit} allows no more") from failure
            self.nonfinite_episodes += 1
            self.failures.append(failure)
            return
        if self.restarts >= (limit := self._limits.restarts):
            done = f"it had already been made again {limit} times, and " if limit else ""
            raise _beyond(failure, f"{done}--env_restarts={limit} allows no more") from failure
        self.restarts += 1
        self.failures.append(failure)
        self.close()

    def reset(self, episode: int | None = None) -> np.ndarray:
        """Begins the next episode, or the one of the given number; returns its first observation [O].

        Raises:
          EnvironmentFailure: as `step`.
        """
        if self._simulator is None:
            self._simulator = self._make_anew()
        self.episode = self.episode + 1 if episode is None else episode
        self.actions, self.episode_return = [], 0.0
        entropy = np.random.SeedSequence([self._seed, self._stream, self.episode])
        try:
            obs = self._simulator.reset(int(entropy.generate_state(1)[0]))
        except Failure as failure:
            raise self._broken(failure, self._where()) from failure
        self._check_finite(obs, 0.0)
        return obs

    def step(self, action: np.ndarray) -> Step:
        """Takes one step with an action [A] in [-1, 1], and adds it to the journal.

        Raises:
          Diverged: the action is not finite, so that the environment is not to blame for what it would do.
          NotFinite: an observation or reward is not finite in float32.
          Broken: it raised, exited, hung, or returned something of the wrong form. Both name environment and step.
        """
        if not np.isfinite(action).all():
            raise Diverged(
                f"the policy's action is not finite at step {len(self.actions) + 1} of episode {self.episode} "
                f"(seed {self._seed}).",
                DIVERGENCE_ADVICE,
            )
        if self._simulator is None:
            raise RuntimeError("an environment that was given up or closed must be reset before it steps")
        self.actions.append(np.asarray(action, np.float32))
        try:
            step = self._simulator.step(self.spaces.to_environment(action))
        except Failure as failure:
            raise self._broken(failure, self._where()) from failure
        self._check_finite(step.next_obs, step.reward)
        self.episode_return += step.reward
        return step

    def repeat(self, episode: int, actions: np.ndarray, episode_return: float) -> np.ndarray:
        """Repeats an episode from its journal of actions [T, A]; returns the observation after the last of them."""
        obs = self.reset(episode)
        for action in actions:
            obs = self.step(action).next_obs
        self.episode_return = episode_return
        return obs

    def render(self) -> np.ndarray:
        """Returns an image of the current state, uint8 [height, width, 3].

        Raises:
          Broken: it cannot be rendered; names environment and step.
        """
        if not isinstance(self._simulator, Simulator):
            raise RuntimeError("an environment renders in this process, after its reset")
        try:
            return self._simulator.render()
        except Failure as failure:
            raise self._broken(failure, self._where()) from failure

    @property
    def frames_per_second(self) -> float:
        """Returns how many steps make a second of video."""
        return self._simulator.frames_per_second if isinstance(self._simulator, Simulator) else 30.0

    def close(self) -> None:
        """Frees what the simulator holds, its process included; raises nothing."""
        if self._simulator is not None:
            self._simulator.close()
            self._simulator = None

    def _make(self) -> Simulator | SimulatorProcess:
        try:
            # One for both streams: what is drawn while it is made is the same for training and evaluation.
            seed = int(np.random.SeedSequence(self._seed).generate_state(1)[0])
            if self._timeout_s:
                return SimulatorProcess(self._env_id, self._wanted_limit, self._timeout_s, seed)
            return Simulator(self._env_id, self._wanted_limit, seed, self._alone, self._renders)
        except Failure as failure:
            raise self._broken(failure, self._at_making()) from failure

    def _make_anew(self) -> Simulator | SimulatorProcess:
        """Makes the environment again. Raises Broken, not Unfit, if it has changed: the user's choice was valid."""
        try:
            simulator = self._make()
        except Unfit as unfit:
            raise self._broken(Failure(f"no longer fits the run ({unfit})"), self._at_making()) from unfit
        if not same(simulator.spaces, self.spaces):
            simulator.close()
            raise self._broken(Failure("has spaces other than before"), self._at_making())
        return simulator

    def _check_finite(self, obs: np.ndarray, reward: float) -> None:
        obs_finite = np.isfinite(obs).all()
        if not (obs_finite and abs(reward) < FLOAT32_OVERFLOW):  # false for NaN, too
            what = f"reward {reward}" if obs_finite else f"observation {obs.tolist()}"
            raise NotFinite(
                f"environment {self._env_id} returned a value that is not finite in float32, {what}, {self._where()}; "
                "nothing of this step was stored"
            )

    def _broken(self, failure: Failure, where: str) -> Broken:
        return _broken(f"environment {self._env_id} {failure.reason} {where}", failure.traceback)

    def _at_making(self) -> str:
        return f"while it was made (seed {self._seed})"

    def _where(self) -> str:
        return f"at step {len(self.actions)} of episode {self.episode} (seed {self._seed})"


def several(failure: Broken) -> Broken:
    """Returns the error of an instance that is not the first of its run, with a hint that this may be the cause."""
    return _broken(
        f"{failure}; it is not the first instance: a run makes two for each seed, to train and to evaluate in. If it "
        "holds something that exists only once, such as a port, give --eval_env=shared and one seed",
        failure.environment_traceback,
    )


def _beyond(failure: EnvironmentFailure, why: str) -> EnvironmentFailure:
    """Returns the error that says that the limit of a flag is reached."""
    line = f"{failure}; {why}"
    if isinstance(failure, Broken):
        return _broken(line, failure.environment_traceback)
    return type(failure)(line)


def _broken(line: str, environment_traceback: str | None) -> Broken:
    failure = Broken(line)
    failure.environment_traceback = environment_traceback
    if environment_traceback is not None:
        failure.add_note(environment_traceback)
    return failure
