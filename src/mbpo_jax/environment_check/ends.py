"""Checks how episodes end, and whether the rule that a learnt model uses agrees."""

import numpy as np

from mbpo_jax.environment_check.finding import Finding, note, problem
from mbpo_jax.environment_check.playing import Trace
from mbpo_jax.types import TerminationFn

CLOCK_ADVICE = "return truncated where a time limit ends the episode: terminated means that nothing comes after"
CLOCK_SHARE, CLOCK_STEPS = 0.2, 20  # if this share of episodes ends at one step, this late, a clock ends them
MISSED_SHARE = 0.05  # of the terminated steps
FALSE_SHARE = 0.002  # of all steps


def check_ends(trace: Trace, limit: int | None) -> list[Finding]:
    """Checks how episodes end; returns the findings.

    Args:
      limit: the time limit of an episode in steps, if there is one.
    """
    terminated = [length for length, ends, _ in trace.lengths if ends]
    truncated = [length for length, ends, cut in trace.lengths if cut and not ends]
    found = []
    if trace.limit_in_info:
        found.append(
            problem(
                f"{trace.limit_in_info:,} steps are terminated although their info says TimeLimit.truncated",
                CLOCK_ADVICE,
            )
        )
    elif terminated and (clock := _clock(terminated, len(trace.lengths))):
        found.append(problem(f"{clock} as terminated", CLOCK_ADVICE))
    early = [length for length in truncated if limit is None or length < limit]
    if len(early) > 2 and len(set(early)) > 1:
        found.append(
            problem(
                f"{len(early):,} episodes are truncated before the time limit, after {min(early):,} to {max(early):,} "
                "steps",
                "return terminated where the task ends: a truncated episode counts as if it went on",
            )
        )
    if len(trace.lengths) > 4 and all(length == 1 for length, _, _ in trace.lengths):
        found.append(problem("every episode ends at its first step", "check the states that reset begins with"))
    if not trace.lengths:
        found.append(note(f"no episode ended in {len(trace):,} steps"))
    return found


def _clock(terminated: list[int], num_episodes: int) -> str | None:
    """Returns which episodes a clock seems to have ended, as the beginning of a sentence; None if there are none."""
    longest = max(terminated)
    at_longest = terminated.count(longest)
    if longest > 1 and at_longest == num_episodes > 1:
        return f"all {num_episodes:,} episodes end after {longest:,} steps"
    if longest >= CLOCK_STEPS and at_longest > 2 and at_longest >= CLOCK_SHARE * num_episodes:
        return f"{at_longest:,} of {num_episodes:,} episodes end after {longest:,} steps, none later,"
    return None


def check_rule(rule: TerminationFn, name: str, trace: Trace, low: np.ndarray, high: np.ndarray) -> list[Finding]:
    """Compares a termination rule with the environment; returns where they disagree.

    Args:
      name: what the rule is called in messages.
      low, high: [A], bounds of the actions.
    """
    whole = np.isfinite(trace.next_obs).all(axis=1) & np.isfinite(trace.obs).all(axis=1)
    width = np.where(high > low, high - low, 1.0)
    with np.errstate(over="ignore", invalid="ignore"):
        action = (2.0 * (trace.action - low) / width - 1.0).astype(np.float32)
        rows = [values[whole] for values in (trace.obs.astype(np.float32), action, trace.next_obs.astype(np.float32))]
    by_rule = np.asarray(rule(*rows))
    ends = trace.terminated[whole]
    missed, false = int((ends & ~by_rule).sum()), int((by_rule & ~ends).sum())
    if not missed + false:
        return []
    where = int(np.flatnonzero(by_rule != ends)[0])
    text = (
        f"the rule {name} disagrees with the environment in {missed + false:,} of {len(ends):,} steps: it misses "
        f"{missed:,} of {int(ends.sum()):,} ends and reports {false:,} where there is none (first at step {where + 1}, "
        f"next_obs {_short(trace.next_obs[whole][where])})"
    )
    if missed > MISSED_SHARE * ends.sum() or false > FALSE_SHARE * len(ends):
        return [problem(text, "correct the rule: imagined episodes would end where it says")]
    return [note(text)]


def _short(obs: np.ndarray) -> str:
    return f"[{', '.join(f'{value:.4g}' for value in obs[:6])}{', ...' * (len(obs) > 6)}]"
