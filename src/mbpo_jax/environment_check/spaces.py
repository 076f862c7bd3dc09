"""Checks the spaces, the time limit and the wrappers of an environment."""

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete

from mbpo_jax.environment_check.finding import Finding, numbers, problem

MOST_VECTOR_NUMBERS = 10_000  # a larger observation space does not hold features
RUNNING = ("NormalizeObservation", "NormalizeReward")  # Gymnasium's wrappers with running statistics
STATISTICS = "RunningMeanStd"  # the class that they and others keep them in


def check(env: gymnasium.Env) -> tuple[list[Finding], bool]:
    """Returns the findings, and whether the environment can still be stepped with random actions."""
    observations, actions = env.observation_space, env.action_space
    if isinstance(observations, Discrete) and isinstance(actions, Discrete):
        return _check_limit(env) + _check_wrappers(env), True
    found = []
    if not isinstance(actions, Box):
        found.append(problem(f"actions are {actions}", "runs need continuous ones (Box)"))
    if not isinstance(observations, Box):
        found.append(
            problem(f"observations are {observations}", "flatten them to a Box (gymnasium.wrappers.FlattenObservation)")
        )
    if found:
        return found, False
    if observations.shape and np.prod(observations.shape) == 0:
        return [problem(f"the observation space {observations} is empty", "return at least one number")], False
    if np.prod(actions.shape) == 0:
        return [problem(f"the action space {actions} is empty", "runs need at least one number")], False
    found += _check_actions(actions)
    if len(observations.shape) > 2 or np.prod(observations.shape) > MOST_VECTOR_NUMBERS:
        found.append(problem(f"observations look like images {observations.shape}", "return features instead"))
    found += _check_limit(env)
    return found + _check_wrappers(env), True


def _check_actions(actions: Box) -> list[Finding]:
    found = []
    low, high = actions.low.reshape(-1), actions.high.reshape(-1)
    if open_ends := np.flatnonzero(~(np.isfinite(low) & np.isfinite(high))).tolist():
        found.append(
            problem(
                f"actions {numbers(open_ends)} have no bounds",
                "give them bounds; a run's actions lie in [-1, 1] and are rescaled to the bounds",
            )
        )
    if fixed := np.flatnonzero(low >= high).tolist():
        found.append(problem(f"actions {numbers(fixed)} can take only one value", "leave them out of the action space"))
    return found


def _check_limit(env: gymnasium.Env) -> list[Finding]:
    if env.spec is not None and env.spec.max_episode_steps is not None:
        return []
    advice = "register it with max_episode_steps, or pass --max_episode_steps to runs (and to this check)"
    return [problem("it has no time limit", advice)]


def _check_wrappers(env: gymnasium.Env) -> list[Finding]:
    found = []
    layer: gymnasium.Env = env
    while True:
        name = type(layer).__name__
        held = [attribute for attribute, value in vars(layer).items() if type(value).__name__ == STATISTICS]
        if name in RUNNING or held:
            found.append(
                problem(
                    f"{name} has running statistics",
                    "training and evaluation have an instance each, whose statistics would differ; use constants, or "
                    "leave the wrapper out (the model normalises its own inputs)",
                )
            )
        if not isinstance(layer, gymnasium.Wrapper):
            return found
        layer = layer.env
