"""Checks what should stay the same: with the same seed, in a second instance, after a reset, in another thread."""

import random
import threading
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete

from mbpo_jax.environment_check.finding import Finding, note, one_line, problem
from mbpo_jax.environment_check.playing import Trace, play

REPEATED_STEPS = 200
NOISE_STARTS = 20
PROBED_STEPS = 3
NAMES = ("observations", "next observations", "rewards", "terminated", "truncated")  # of `Trace.beginning`


def check_seeds(fresh: gymnasium.Env | None, used: gymnasium.Env, trace: Trace, seed: int) -> list[Finding]:
    """Compares the beginning of a trace with a replay of the same seed and actions.

    Args:
      fresh: a second, unused instance; None if there is none.
      used: the instance that the trace comes from.
    """
    actions = trace.actions[:REPEATED_STEPS]
    steps = len(actions)
    found = []
    before = _global_generators()
    if fresh is not None and (which := _difference(trace, play(fresh, actions, seed), steps)):
        found.append(
            problem(
                f"the same seed and actions gave other numbers in a second instance ({which})",
                "draw all random numbers from self.np_random, and keep no state outside the instance",
            )
        )
    again = play(used, actions, seed)
    if (which := _difference(trace, again, steps)) and not found:
        found.append(
            problem(
                f"reset(seed=...) does not repeat an episode of the same instance ({which})",
                "pass the seed to super().reset, draw from self.np_random, and carry no state from episode to episode",
            )
        )
    if _global_generators() != before:
        found.append(
            problem(
                "it uses a global random generator (np.random or random), which other seeds and instances use, too",
                "draw from self.np_random",
            )
        )
    return found


def _difference(trace: Trace, again: Trace, steps: int) -> str | None:
    """Returns what differs first, and where; None if nothing does."""
    if len(again) < steps:
        return again.findings[-1].text if again.findings else f"it ended after {len(again)} steps"
    differs = [_rows_differ(one, two) for one, two in zip(trace.beginning(steps), again.beginning(steps), strict=True)]
    if not any(rows.any() for rows in differs):
        return None
    step = min(int(np.argmax(rows)) for rows in differs if rows.any())
    return f"{' and '.join(name for name, rows in zip(NAMES, differs) if rows[step])} of step {step + 1}"


def _rows_differ(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Returns which rows differ, bool [T]; nan equals nan."""
    if one.dtype == np.bool_:
        return np.asarray(one != two)
    same = (one == two) | (np.isnan(one) & np.isnan(two))
    return ~same if same.ndim == 1 else ~same.all(axis=1)


def _global_generators() -> list[Any]:
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002 (only reads it)
    return [name, np.asarray(keys).tolist(), *rest, random.getstate()]


def measure_noise(env: gymnasium.Env, trace: Trace, seed: int) -> str:
    """Returns how random one step is from one state with one action, in words.

    Each start is made twice, and the second time the environment's generator is replaced before the step.
    """
    actions = trace.actions[:NOISE_STARTS]
    obs, rewards = [], []
    try:
        for number, action in enumerate(actions):
            outcomes = [_one_step(env, action, seed + number, noise) for noise in (None, number)]
            obs.append(np.abs(outcomes[0][0] - outcomes[1][0]).max(initial=0.0))
            rewards.append(outcomes[0][1] - outcomes[1][1])
    except Exception as error:  # an environment without such a generator, or one that fails
        return f"unknown ({one_line(error)})"
    if not (np.any(obs) or np.any(rewards)):
        return "none seen (one step from the same start with the same action, but another generator)"
    noise = float(np.std(rewards) / np.sqrt(2.0))
    return f"from the same start, one step's reward has sd {noise:.2g}, and observations differ by up to {max(obs):.2g}"


def _one_step(env: gymnasium.Env, action: np.ndarray, seed: int, noise: int | None) -> tuple[np.ndarray, float]:
    env.reset(seed=seed)
    if noise is not None:
        env.unwrapped.np_random = np.random.default_rng(noise)
    obs, reward, *_ = env.step(action.copy())
    return np.asarray(obs, np.float64), float(reward)


def check_actions(env: gymnasium.Env, seed: int) -> list[Finding]:
    """Plays the extremes of the action space: whether they are accepted, and whether actions change anything."""
    lowest, highest = _extremes(env.action_space)
    if not (np.isfinite(lowest).all() and np.isfinite(highest).all()):
        return []
    traces = {}
    for name, action in (("lowest", lowest), ("highest", highest)):
        traces[name] = play(env, [action.copy() for _ in range(PROBED_STEPS)], seed)
        if len(traces[name]) < PROBED_STEPS:
            why = traces[name].findings[-1].text
            return [
                problem(
                    f"the {name} action {action.tolist()} was not accepted ({why})", "accept it, or change the space"
                )
            ]
    if _difference(traces["lowest"], traces["highest"], PROBED_STEPS) is None:
        return [
            problem(
                f"the lowest and the highest action have the same effect for {PROBED_STEPS} steps",
                "check that actions arrive",
            )
        ]
    return []


def _extremes(space: Box | Discrete) -> tuple[Any, Any]:
    if isinstance(space, Box):
        return space.low, space.high
    return space.dtype.type(space.start), space.dtype.type(space.start + space.n - 1)


def check_thread(env: gymnasium.Env, seed: int) -> list[Finding]:
    """Resets and steps an instance in a thread other than the one that made it."""
    failures: list[BaseException] = []

    def use() -> None:
        try:
            env.reset(seed=seed)
            lowest, highest = _extremes(env.action_space)
            env.step(0.5 * (lowest + highest).astype(lowest.dtype) if isinstance(env.action_space, Box) else lowest)
        except (Exception, SystemExit) as error:
            failures.append(error)

    thread = threading.Thread(target=use, daemon=True)
    thread.start()
    thread.join()
    if not failures:
        return []
    return [note(f"only the thread that made it can use it ({one_line(failures[0])}); runs use it in that thread only")]
