"""Walks through environments, and whether two are the same."""

import numpy as np

from mbpo_jax.driver.interaction.environment import Environment


def walk(env, obs, actions):
    """Steps with all actions, beginning the next episode where one ends; returns everything seen."""
    seen = [obs]
    for action in actions:
        step = env.step(action)
        ended = step.terminal or step.truncated
        seen.append((step, env.reset() if ended else None, env.episode, env.episode_return))
    return seen


def assert_same(seen, expected):
    assert len(seen) == len(expected)
    np.testing.assert_array_equal(seen[0], expected[0])
    for (step, first, *rest), (step_, first_, *rest_) in zip(seen[1:], expected[1:], strict=True):
        np.testing.assert_array_equal(step.next_obs, step_.next_obs)
        assert step[1:] == step_[1:]
        assert rest == rest_
        assert (first is None) == (first_ is None)
        np.testing.assert_array_equal(0.0 if first is None else first, 0.0 if first_ is None else first_)


def random_actions(num_steps, action_dim, seed=0):
    return np.random.default_rng(seed).uniform(-1.0, 1.0, (num_steps, action_dim)).astype(np.float32)


def play(env, num_episodes=2, num_steps=5):
    """Plays whole episodes; returns everything seen."""
    return [[env.reset(), *(env.step(np.zeros(2)) for _ in range(num_steps))] for _ in range(num_episodes)]


def assert_healthy(env, obs, episode, num_steps=7):  # into the episode after it
    """It has begun the episode, and steps as an environment does that never failed."""
    other = Environment("odd_worlds:odd/World-v0", 17)
    actions = random_actions(num_steps, 2)
    expected = other.reset(episode)
    assert (env.episode, env.actions, env.episode_return) == (episode, [], 0.0)
    assert_same(walk(env, obs, actions), walk(other, expected, actions))
