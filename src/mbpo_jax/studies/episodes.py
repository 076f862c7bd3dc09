"""Plays real episodes for studies, with numbered starts; no run was trained on them."""

import contextlib
import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mbpo_jax.driver.interaction import policy
from mbpo_jax.driver.interaction.environment import EVALUATION, Environment
from mbpo_jax.driver.trained import Trained
from mbpo_jax.types import Array, PyTree, Transition

ACTION_KEY = 7  # folded into a study's key for the noise of real actions
BEGIN_KEY = 0  # folded into the key of an action for its initial carry


class Episode(NamedTuple):
    """One episode, or its beginning."""

    obs: np.ndarray  # [T + 1, O]
    action: np.ndarray  # [T, A], in [-1, 1]
    reward: np.ndarray  # [T]
    terminal: bool  # whether the MDP ended after the last step


def open_environment(trained: Trained, steps_past_limit: int = 0) -> Environment:
    """Opens the environment of a run, with the starts of its evaluations.

    Args:
      steps_past_limit: by how many steps the time limit exceeds that of the run.
    """
    run = trained.run
    limit = most_steps(trained) + steps_past_limit if steps_past_limit else run.max_episode_steps
    return Environment(run.env, trained.seed, EVALUATION, limit, run.env_timeout_s)


def most_steps(trained: Trained) -> int:
    """Returns the time limit of an episode, in environment steps."""
    with contextlib.closing(open_environment(trained)) as env:
        return env.max_episode_steps


def deterministic_policy(
    trained: Trained, env: Environment, acting: policy.Deterministic | None = None
) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the policy as evaluations use it: observation [O] to action [A] in [-1, 1].

    Args:
      acting: from `policy.deterministic`, if it has already been compiled.
    """
    acting = policy.deterministic(trained.algorithm) if acting is None else acting
    actor = trained.algorithm.actor(trained.state)
    return policy.Policy(acting, actor, env.action_low, env.action_high).normalized_action


def exploring_policy(trained: Trained, key: jax.Array) -> Callable[[PyTree], Callable[[np.ndarray], np.ndarray]]:
    """Returns a function from an actor to its policy as training uses it, with independent noise for every action."""
    algorithm, numbers = trained.algorithm, itertools.count()

    @jax.jit
    def act(actor: PyTree, number: int, obs: Array) -> Array:
        own = jax.random.fold_in(jax.random.fold_in(key, ACTION_KEY), number)
        carry = algorithm.begin_episode(jax.random.fold_in(own, BEGIN_KEY), actor)
        return algorithm.act(own, actor, carry, obs, True)[0]

    def make_policy(actor: PyTree) -> Callable[[np.ndarray], np.ndarray]:
        def choose(obs: np.ndarray) -> np.ndarray:
            return np.asarray(act(actor, next(numbers), jnp.asarray(obs)))

        return choose

    return make_policy


def play(env: Environment, choose: Callable[[np.ndarray], np.ndarray], number: int, num_steps: int) -> Episode:
    """Plays episode `number` of an environment, to its end or for `num_steps`."""
    obs, actions = [env.reset(number)], []
    rewards: list[float] = []
    terminal = ended = False
    while not ended and len(rewards) < num_steps:
        actions.append(choose(obs[-1]))
        step = env.step(actions[-1])
        obs.append(step.next_obs)
        rewards.append(step.reward)
        terminal, ended = step.terminal, step.terminal or step.truncated
    return Episode(np.stack(obs), np.stack(actions), np.asarray(rewards, np.float32), terminal)


def returns(played: list[Episode]) -> list[float]:
    """Returns undiscounted sums of rewards."""
    return [float(np.sum(episode.reward, dtype=np.float64)) for episode in played]


def collect(
    env: Environment, choose: Callable[[np.ndarray], np.ndarray], first_number: int, num_steps: int
) -> tuple[Transition, int]:
    """Collects exactly `num_steps` transitions [num_steps, ...] of episodes numbered from `first_number` on.

    Returns:
      The transitions, and the number of the first episode that was not played.
    """
    episodes: list[Episode] = []
    missing = num_steps
    while missing:
        episodes.append(play(env, choose, first_number + len(episodes), missing))
        missing -= len(episodes[-1].reward)
    rows = Transition(
        obs=_joined([episode.obs[:-1] for episode in episodes]),
        action=_joined([episode.action for episode in episodes]),
        reward=_joined([episode.reward for episode in episodes]),
        next_obs=_joined([episode.obs[1:] for episode in episodes]),
        terminal=_joined([_ends(episode) for episode in episodes]),
    )
    return rows, first_number + len(episodes)


def _joined(parts: list[np.ndarray]) -> Array:
    return jnp.asarray(np.concatenate(parts))


def _ends(episode: Episode) -> np.ndarray:
    terminal = np.zeros(len(episode.reward), np.float32)
    terminal[-1] = episode.terminal
    return terminal
