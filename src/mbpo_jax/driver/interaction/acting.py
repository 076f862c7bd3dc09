"""How the agents of all seeds act: in their environments while they train, and when they are evaluated."""

from collections.abc import Sequence

import jax
import numpy as np

from mbpo_jax.driver.config import diverged
from mbpo_jax.driver.interaction.policy import Policy, deterministic_act
from mbpo_jax.driver.interaction.seed_environments import GivenUp, SeedEnvironments, Taken
from mbpo_jax.driver.seeds import SeedAxis
from mbpo_jax.types import Algorithm, Array, Key, PyTree

ACT, EXPLORE = 0, 1  # streams of keys; those of the phases begin at `phase_runner.FIRST_STREAM`


class Acting:
    """`carry` is what the policies of all seeds carry from step to step of their running episodes."""

    def __init__(self, algorithm: Algorithm, axis: SeedAxis, envs: SeedEnvironments, seeds: Sequence[int]) -> None:
        self._algorithm, self._axis, self._envs, self._seeds = algorithm, axis, envs, seeds
        self.carry: PyTree = None
        action_dim = envs.first.action_dim

        def act(root: Key, step: Array, actor: PyTree, carry: PyTree, obs: Array) -> tuple[Array, PyTree]:
            key = jax.random.fold_in(jax.random.fold_in(root, ACT), step)
            action, carry = algorithm.act(key, actor, carry, obs[None], True)
            return action[0], carry

        def explore(root: Key, step: Array) -> Array:
            key = jax.random.fold_in(jax.random.fold_in(root, EXPLORE), step)
            return jax.random.uniform(key, (action_dim,), minval=-1.0, maxval=1.0)

        self._act = axis.lift(act, shared=(1,), outputs=2)
        self._explore = axis.lift(explore, shared=(1,))
        self._evaluation_act = deterministic_act(algorithm)
        self._host = jax.local_devices(backend="cpu")[0]

    def actors(self, state: PyTree) -> PyTree:
        """The part of the states of all seeds that acting reads."""
        return self._algorithm.actor(state) if self._axis.batched else tuple(map(self._algorithm.actor, state))

    def explores(self, step: int) -> bool:
        """Whether the actions of a step are drawn uniformly, without a policy."""
        return step < self._algorithm.exploration_steps

    def begin(self, state: PyTree) -> None:
        """Begins the first episode of every seed."""
        self.carry = self._axis.join(list(map(self._algorithm.begin_episode, self._axis.to_host(self.actors(state)))))

    def begin_episodes(self, state: PyTree, which: Sequence[int]) -> None:
        """Puts the carry of the seeds `which` to the beginning of an episode."""
        if not which:
            return
        actors, carries = self._axis.to_host(self.actors(state)), self._axis.split(self.carry)
        for i in which:
            carries[i] = self._algorithm.begin_episode(actors[i])
        self.carry = self._axis.join(carries)

    def step(self, roots: PyTree, step: int, state: PyTree) -> list[Taken]:
        """A step of every seed. One whose environment fails begins another episode and acts again.

        Args:
          step: environment steps taken before.
        Raises:
          Diverged: an action is not finite.
          EnvironmentFailure: an environment failed more often than is allowed.
        """
        taken: dict[int, Taken] = {}
        waiting = list(range(len(self._seeds)))
        while waiting:
            actions = self._actions(roots, step, state, waiting)
            outcomes = self._envs.step(waiting, [actions[i] for i in waiting])
            failed = []
            for i, outcome in zip(waiting, outcomes):
                if isinstance(outcome, GivenUp):
                    failed.append(i)
                else:
                    taken[i] = outcome
            waiting = failed
            self.begin_episodes(state, failed)
        self.begin_episodes(state, [i for i, outcome in taken.items() if outcome.ended])
        return [taken[i] for i in range(len(taken))]

    def policies(self, state: PyTree) -> list[Policy]:
        """The policies that every seed is evaluated with."""
        low, high = self._envs.first.action_low, self._envs.first.action_high
        # One observation at a time, which the host's own device is the quickest for.
        actors = [jax.device_put(actor, self._host) for actor in self._axis.to_host(self.actors(state))]
        return [Policy(self._evaluation_act, self._algorithm, actor, low, high) for actor in actors]

    def _actions(self, roots: PyTree, step: int, state: PyTree, which: list[int]) -> list[np.ndarray]:
        """An action of every seed; only the seeds in `which` count as having acted."""
        if self.explores(step):
            return self._axis.to_host(self._explore(roots, step))
        obs = self._axis.join(self._envs.obs)
        actions, carry = self._act(roots, step, self.actors(state), self.carry, obs)
        if len(which) < len(self._seeds):
            old, new = self._axis.split(self.carry), self._axis.split(carry)
            carry = self._axis.join([new[i] if i in which else old[i] for i in range(len(old))])
        self.carry = carry
        on_host = self._axis.to_host(actions)
        self._check(on_host, step)
        return on_host

    def _check(self, actions: list[np.ndarray], step: int) -> None:
        """Stops a run whose policy is broken before the environment is blamed."""
        for seed, action in zip(self._seeds, actions, strict=True):
            if not np.isfinite(action).all():
                raise diverged(f"the policy's action is not finite at environment step {step + 1}", seed)
