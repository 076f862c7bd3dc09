"""How the policies of all seeds act: with exploration in training, without it in evaluation."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mbpo_jax.driver.config import diverged
from mbpo_jax.driver.interaction.policy import Deterministic, Policy, compute_arrays, deterministic
from mbpo_jax.driver.interaction.seed_environments import FailedStep, SeedEnvironments, StepResult
from mbpo_jax.driver.interaction.spaces import Spaces
from mbpo_jax.driver.seeds import SeedAxis
from mbpo_jax.types import Algorithm, Array, Key, PyTree

ACT, EXPLORE, BEGIN = 0, 1, 2  # streams of keys; those of the phases begin at `phase_runner.FIRST_STREAM`


class ActingFunctions(NamedTuple):
    """How an algorithm's policies act, compiled for all seeds."""

    begin: Callable[..., Any]  # (roots, step, actors) -> carry
    act: Callable[..., Any]  # (roots, step, actors, carry, obs) -> (actions, carry)
    explore: Callable[..., Any]  # (roots, step) -> actions
    deterministic: Deterministic  # of one seed


def compile_acting(
    algorithm: Algorithm, axis: SeedAxis, action_dim: int, one_hot_actions: bool = False
) -> ActingFunctions:
    """Lifts an algorithm's acting over the seeds; it is compiled at its first call.

    Args:
      one_hot_actions: whether actions are discrete, as one-hot rows.
    """

    def begin(root: Key, step: Array, actor: PyTree) -> PyTree:
        return algorithm.begin_episode(_key(root, BEGIN, step), actor)

    def act(root: Key, step: Array, actor: PyTree, carry: PyTree, obs: Array) -> tuple[Array, PyTree]:
        return algorithm.act(_key(root, ACT, step), actor, carry, obs, True)

    def explore(root: Key, step: Array) -> Array:
        if one_hot_actions:
            return jax.nn.one_hot(jax.random.randint(_key(root, EXPLORE, step), (), 0, action_dim), action_dim)
        return jax.random.uniform(_key(root, EXPLORE, step), (action_dim,), minval=-1.0, maxval=1.0)

    return ActingFunctions(
        begin=axis.lift(begin, shared=(1,)),
        act=axis.lift(act, shared=(1,), outputs=2),
        explore=axis.lift(explore, shared=(1,)),
        deterministic=deterministic(algorithm),
    )


class Acting:
    """Steps the environments of all seeds with the actions of their policies.

    A policy's carry is initialised at its first action in an episode, and so after the phases that were due before it.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        functions: ActingFunctions,
        axis: SeedAxis,
        envs: SeedEnvironments,
        spaces: Spaces,
        seeds: Sequence[int],
    ) -> None:
        self._algorithm, self._axis, self._envs, self._seeds = algorithm, axis, envs, tuple(seeds)
        self._spaces = spaces
        self._begin, self._act, self._explore, self._deterministic = functions
        self._host = jax.local_devices(backend="cpu")[0]

    def actors(self, state: PyTree) -> PyTree:
        """Returns the part of the states of all seeds that acting reads."""
        return self._algorithm.actor(state) if self._axis.batched else tuple(map(self._algorithm.actor, state))

    def explores(self, step: int) -> bool:
        """Returns whether the actions of a step are drawn uniformly, without a policy."""
        return step < self._algorithm.exploration_steps

    def first_carry(self, roots: PyTree, state: PyTree) -> PyTree:
        """Returns the initial carry of all seeds, for the policies of `state`."""
        return compute_arrays(self._begin, roots, 0, self.actors(state))

    def step(self, roots: PyTree, step: int, state: PyTree, carry: PyTree) -> tuple[list[StepResult], PyTree]:
        """Steps every seed once. One whose environment fails begins another episode and acts again.

        Args:
          step: environment steps taken before.
          carry: what the policies carry from step to step of their running episodes.
        Returns:
          The result of each seed's step, and the carry.
        Raises:
          Diverged: an action is not finite.
          EnvironmentFailure: an environment failed more often than is allowed.
        """
        results: dict[int, StepResult] = {}
        waiting = list(range(len(self._seeds)))
        while waiting:
            actions, carry = self._actions(roots, step, state, carry, waiting)
            outcomes = self._envs.step(waiting, [actions[i] for i in waiting])
            results |= {i: outcome for i, outcome in zip(waiting, outcomes) if isinstance(outcome, StepResult)}
            waiting = [i for i, outcome in zip(waiting, outcomes) if isinstance(outcome, FailedStep)]
        return [results[i] for i in range(len(results))], carry

    def policies(self, state: PyTree) -> list[Policy]:
        """Returns the policy that each seed is evaluated with."""
        low, high = self._spaces.action_low, self._spaces.action_high
        # One observation at a time, for which the host's own device is the fastest, unless the policy plans.
        device = jax.local_devices()[0] if self._algorithm.acts_on_device else self._host
        actors = [jax.device_put(actor, device) for actor in self._axis.to_host(self.actors(state))]
        return [Policy(self._deterministic, actor, low, high) for actor in actors]

    def _actions(
        self, roots: PyTree, step: int, state: PyTree, carry: PyTree, which: Collection[int]
    ) -> tuple[list[np.ndarray], PyTree]:
        """Returns an action [A] of every seed, on the host, and the carry, advanced for the seeds `which` only."""
        if self.explores(step):
            return self._axis.to_host(self._explore(roots, step)), carry
        actors = self.actors(state)
        # When exploration ends, policies take over running episodes.
        new = [i for i in which if self._envs.at_start(i) or step == self._algorithm.exploration_steps]
        if new:
            carry = self._replaced(carry, compute_arrays(self._begin, roots, step, actors), new)
        actions, after = self._act(roots, step, actors, carry, self._axis.join(self._envs.obs))
        # One small array for each seed: `to_host`, which first starts the copies of all arrays, takes twice as long.
        on_host = self._axis.split(jax.tree.map(np.asarray, actions))
        self._check_finite(on_host, step)
        return on_host, self._replaced(carry, after, which)

    def _replaced(self, old: PyTree, new: PyTree, which: Collection[int]) -> PyTree:
        """Returns `old` of all seeds with the seeds `which` taken from `new`."""
        if len(which) == len(self._seeds):
            return new
        pairs = zip(self._axis.split(old), self._axis.split(new))
        return self._axis.join([mine[i in which] for i, mine in enumerate(pairs)])

    def _check_finite(self, actions: list[np.ndarray], step: int) -> None:
        """Raises Diverged if a policy's action is not finite, before its environment is blamed."""
        for seed, action in zip(self._seeds, actions, strict=True):
            if not np.isfinite(action).all():
                raise diverged(f"the policy's action is not finite at environment step {step + 1}", seed)


def _key(root: Key, stream: int, step: Array) -> Key:
    return jax.random.fold_in(jax.random.fold_in(root, stream), step)
