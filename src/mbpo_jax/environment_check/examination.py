"""Runs all checks on an environment, and collects their findings."""

import contextlib
import warnings
from typing import NamedTuple

import gymnasium
import numpy as np
from gymnasium.spaces import Discrete

from mbpo_jax.driver.config import AUTO
from mbpo_jax.driver.interaction import task
from mbpo_jax.environment_check import ends, playing, repeats, spaces, values
from mbpo_jax.environment_check.finding import Finding, note, one_line, problem
from mbpo_jax.environment_check.playing import Trace
from mbpo_jax.terminations import LEARNED
from mbpo_jax.types import Spec

SLOW_STEPS_PER_SECOND = 100


class Examination(NamedTuple):
    """Facts about an environment, and the findings."""

    facts: dict[str, str]  # one line each, keyed by what it is about
    findings: list[Finding]

    @property
    def problems(self) -> list[Finding]:
        """Returns the findings that matter."""
        return [finding for finding in self.findings if finding.matters]


def examine(env_id: str, termination_fn: str, num_steps: int, seed: int, max_episode_steps: int) -> Examination:
    """Steps an environment, and further instances of it, with random actions.

    Args:
      termination_fn: as --termination_fn of a run.
    Raises:
      ValueError: there is no such environment, or the termination rule cannot be used.
    """
    with contextlib.ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env = _open(env_id, max_episode_steps, stack)
        if isinstance(env, Finding):
            return Examination({}, [env])
        facts = {"observations": _space(env.observation_space), "actions": _space(env.action_space)}
        found, playable = spaces.check(env)
        if not playable:
            return Examination(facts, found)
        env.action_space.seed(seed)
        trace = playing.play(env, (env.action_space.sample() for _ in range(num_steps)), seed)
        found += trace.findings
        if len(trace):
            found += _check_trace(env, env_id, termination_fn, trace, facts)
            found += _again(env, env_id, max_episode_steps, trace, seed, facts, stack)
        return Examination(facts, found)


def _open(env_id: str, max_episode_steps: int, stack: contextlib.ExitStack) -> gymnasium.Env | Finding:
    """Returns an instance, which `stack` closes; a finding if it cannot be made."""
    try:
        env = playing.make(env_id, max_episode_steps)
    except ValueError:
        raise
    except (Exception, SystemExit) as error:
        return problem(f"its constructor raised {one_line(error)}", "a run would end there")
    stack.callback(_close, env)
    return env


def _close(env: gymnasium.Env) -> None:
    with contextlib.suppress(Exception, SystemExit):
        env.close()


def _check_trace(
    env: gymnasium.Env, env_id: str, termination_fn: str, trace: Trace, facts: dict[str, str]
) -> list[Finding]:
    """Checks what was played; adds to the facts."""
    facts["rewards"] = (
        f"mean {trace.reward.mean():.4g}, sd {trace.reward.std():.4g}, from {trace.reward.min():.4g} to "
        f"{trace.reward.max():.4g}"
    )
    limit = None if env.spec is None else env.spec.max_episode_steps
    facts["episodes"] = _episodes(trace, limit)
    found = values.check_observations(env.observation_space, trace) + values.check_rewards(trace)
    found += ends.check_ends(trace, limit)
    found += _check_rule(env, env_id, termination_fn, trace, facts)
    rate = len(trace) / max(trace.seconds, 1e-9)
    facts["speed"] = f"{rate:,.0f} steps/s"
    if rate < SLOW_STEPS_PER_SECOND:
        found.append(note(f"one step takes {1000 / rate:.0f} ms; 100,000 steps take {1e5 / rate / 3600:.1f} h"))
    return found


def _check_rule(
    env: gymnasium.Env, env_id: str, termination_fn: str, trace: Trace, facts: dict[str, str]
) -> list[Finding]:
    """Compares the termination function with what was played; adds to the facts."""
    if isinstance(env.action_space, Discrete):
        facts["rule"] = "none is needed: a tabular model records which steps end an episode"
        return []
    low, high = (np.asarray(bound, np.float64).reshape(-1) for bound in (env.action_space.low, env.action_space.high))
    spec = Spec(trace.obs.shape[1], trace.action.shape[1])
    if termination_fn == LEARNED:
        facts["rule"] = f"--termination_fn={LEARNED} is fitted to a run's own rows; nothing is compared here"
        return []
    name = termination_fn if termination_fn != AUTO else f"known for {env_id}"
    rule = task.resolve_termination_fn(termination_fn, env_id)
    if rule is None:
        facts["rule"] = "none is known for this id; mbpo needs --termination_fn=never or module:function"
        return []
    task.check_termination_fn(rule, name, spec)
    disagreements = ends.check_rule(rule, name, trace, low, high)
    facts["rule"] = f"{name}: {'disagrees' if disagreements else 'agrees'} with the {len(trace):,} steps"
    return disagreements


def _again(
    env: gymnasium.Env,
    env_id: str,
    max_episode_steps: int,
    trace: Trace,
    seed: int,
    facts: dict[str, str],
    stack: contextlib.ExitStack,
) -> list[Finding]:
    """Makes a second instance and plays again; adds to the facts."""
    other = _open(env_id, max_episode_steps, stack)
    found = []
    if isinstance(other, Finding):
        found.append(
            problem(
                f"a second instance cannot be made while one is open ({other.text})",
                "a run has one for training and one for evaluation, for each seed: give each resources of its own",
            )
        )
        facts["instances"] = "one at a time"
    else:
        facts["instances"] = "two can be open at once"
    found += repeats.check_seeds(None if isinstance(other, Finding) else other, env, trace, seed)
    same = not any(finding.matters for finding in found)
    facts["seeds"] = "the same seed and actions give the same numbers" if same else "see below"
    facts["noise"] = repeats.measure_noise(env, trace, seed)
    found += repeats.check_actions(env, seed)
    if not isinstance(other, Finding):
        in_thread = repeats.check_thread(other, seed)
        facts["threads"] = "only the one that made it" if in_thread else "any"
        found += in_thread
    return found


def _space(space: gymnasium.Space) -> str:
    text = " ".join(str(space).split())
    return text if len(text) < 100 else f"{text[:100]}..."


def _episodes(trace: Trace, limit: int | None) -> str:
    lengths = [length for length, _, _ in trace.lengths]
    terminated = sum(ends for _, ends, _ in trace.lengths)
    shown = f", {min(lengths):,} to {max(lengths):,} steps long" if lengths else ""
    return (
        f"{len(lengths):,} complete{shown}; {terminated:,} ended by terminated, {len(lengths) - terminated:,} by "
        f"truncated; time limit {'none' if limit is None else f'{limit:,}'}"
    )
