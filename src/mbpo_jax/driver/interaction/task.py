"""The task of a run: its spaces and the rules that a learnt model cannot know, resolved here and nowhere else.

`config.json` keeps the spaces, so that whoever opens a run directory later need not guess or open an environment.
"""

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mbpo_jax import rewards, terminations
from mbpo_jax.algorithms import REGISTRY
from mbpo_jax.driver.config import AUTO, NEVER, RunConfig
from mbpo_jax.driver.interaction.spaces import Spaces
from mbpo_jax.types import Algorithm, Array, RewardFn, Spec, TerminationFn

MOST_DISAGREEMENT = 0.001  # share of real rows on which a rule and its environment may differ by rounding
MOST_LEARNT_DISAGREEMENT = 0.01  # the same for a rule that was learnt


class Task(NamedTuple):
    """An environment as a run knows it."""

    spaces: Spaces
    spec: Spec  # the same as algorithms see it, with the rules that they may not learn


def resolve(env_id: str, spaces: Spaces, config: Any) -> Task:
    """Returns the task that results from an environment and an algorithm's knobs.

    Raises:
      ValueError: what `--termination_fn` or `--reward_fn` names cannot be imported, or has the wrong signature.
    """
    spec = with_rules(spec_of(spaces), config, env_id)
    if spec.termination_fn is not None:
        check_termination_fn(spec.termination_fn, str(rule_name(config)), spec)
    if spec.reward_fn is not None:
        _check_rule("reward_fn", spec.reward_fn, config.reward_fn, spec, jnp.float32)
    return Task(spaces, spec)


def with_rules(spec: Spec, config: Any, env_id: str) -> Spec:
    """Returns the spec with the rules that an algorithm's knobs name, if it has such knobs.

    Raises:
      ValueError: one of them cannot be imported.
    """
    reward_fn: str = getattr(config, "reward_fn", terminations.LEARNED)
    return spec._replace(
        termination_fn=resolve_termination_fn(rule_name(config), env_id),
        reward_fn=None if reward_fn == terminations.LEARNED else _imported("reward_fn", reward_fn, "'learned'"),
    )


def build(run: RunConfig, config: Any, spec: Spec, recorded_in: str | None = None) -> Algorithm:
    """Builds the algorithm of a run.

    Args:
      recorded_in: id of the environment of its data set, as far as that says.
    Raises:
      ValueError: it needs something that is not known about the environment; names it.
    """
    try:
        return REGISTRY[run.algorithm].build(config, spec)
    except ValueError as error:
        known = terminations.known_ids(run.env)
        close = f"; rules are known for {', '.join(known)}" if known else ""
        rule = None if recorded_in is None else terminations.lookup(recorded_in)
        if rule is not None:
            close += f"; the rule of {recorded_in}, where the data were recorded, is {rule.__module__}:{rule.__name__}"
        raise ValueError(f"{error} (env {run.env!r}{close})") from error


def check_supported(run: RunConfig, spaces: Spaces) -> None:
    """Checks that an environment's spaces are of the kind that the algorithm of a run takes.

    Raises:
      ValueError: they are not; names the environment, its space, and the algorithms that take it.
    """
    takes_discrete, is_discrete = REGISTRY[run.algorithm].discrete, spaces.action_start is not None
    if takes_discrete == is_discrete:
        return
    kind = "Discrete" if takes_discrete else "continuous (Box)"
    given = " and ".join(spaces.in_words())
    names = " and ".join(name for name, entry in REGISTRY.items() if entry.discrete)
    others = f"; {names} take such spaces" if is_discrete else ""
    raise ValueError(
        f"env must have {kind} observations and actions for {run.algorithm}, got {run.env!r} with {given}{others}"
    )


def spec_of(spaces: Spaces) -> Spec:
    """Returns the sizes of spaces and the time limit, without any rule."""
    return Spec(
        spaces.obs_dim,
        spaces.action_low.size,
        max_episode_steps=spaces.max_episode_steps,
        one_hot_actions=spaces.action_start is not None,
    )


def rule_name(config: Any) -> str | None:
    """Returns what `--termination_fn` was; None for an algorithm without this knob."""
    name: str | None = getattr(config, "termination_fn", None)
    return name


def disagreement(name: str | None, env_id: str, fraction: float) -> str | None:
    """Returns a warning if the rule and the environment disagree too often to be rounding.

    Args:
      name: what `--termination_fn` was.
      fraction: of real rows, `roll_out/termination_disagreement_fraction`.
    """
    if name == terminations.LEARNED:
        return _learnt_badly(env_id, fraction) if fraction > MOST_LEARNT_DISAGREEMENT else None
    if fraction <= MOST_DISAGREEMENT:
        return None
    return (
        f"--termination_fn={name} and env {env_id} disagree on {100.0 * fraction:.2g} % of the real rows, so imagined "
        "episodes end where real ones do not, or the other way round. Give the environment's own rule; a time limit is "
        f"not an end: report it as truncated, not terminated (more than {100.0 * MOST_DISAGREEMENT:g} % is not "
        "rounding, docs/metrics.md)"
    )


def _learnt_badly(env_id: str, fraction: float) -> str:
    return (
        f"the rule that --termination_fn=learned learnt and env {env_id} disagree on {100.0 * fraction:.2g} % of the "
        "real rows: fit_model/termination_precision and _recall show how; more episodes that end may help, or the "
        "environment's own rule"
    )


def named_function(name: str) -> Callable[..., Any]:
    """Returns what `package.module:function` names. Raises what its module raises; TypeError: it is not a function."""
    module, _, function = name.partition(":")
    found = getattr(importlib.import_module(module), function)
    if not callable(found):
        raise TypeError(f"{function} is not a function")
    return found  # type: ignore[no-any-return]


def resolve_termination_fn(name: str | None, env_id: str) -> TerminationFn | None:
    """Returns the termination function of that name; None without one, if 'auto' knows none, or if it is to be learnt.

    Raises:
      ValueError: it cannot be imported.
    """
    if name is None or name == terminations.LEARNED:
        return None
    if name in (AUTO, NEVER):
        return terminations.lookup(env_id) if name == AUTO else terminations.never
    return _imported("termination_fn", name, "'auto', 'never'")


def check_termination_fn(termination_fn: TerminationFn, name: str, spec: Spec) -> None:
    """Tries a termination function on the shapes that it will receive.

    Args:
      name: what `--termination_fn` was.
    Raises:
      ValueError: it raises, or does not return bool [B].
    """
    _check_rule("termination_fn", termination_fn, name, spec, jnp.bool_)


def _check_rule(knob: str, rule: Callable[..., Any], name: str, spec: Spec, dtype: Any) -> None:
    """Tries a function of (obs, action, next_obs) on three rows: it must return one value of `dtype` for each."""
    num_rows = 3
    obs, action = (jax.ShapeDtypeStruct((num_rows, dim), jnp.float32) for dim in (spec.obs_dim, spec.action_dim))
    must = f"{knob} {name!r} must return {jnp.dtype(dtype).name} [{num_rows}] for {num_rows} rows"
    try:
        returned = jax.eval_shape(rule, obs, action, obs)
    except Exception as error:  # whatever a user's function raises
        raise ValueError(f"{must}, but it raised {type(error).__name__}: {error}") from error
    shape, returned_dtype = getattr(returned, "shape", None), getattr(returned, "dtype", None)
    if shape != (num_rows,) or returned_dtype != dtype:
        got = type(returned).__name__ if shape is None else f"{returned_dtype} {list(shape)}"
        raise ValueError(f"{must}, got {got}")


def _imported(knob: str, name: str, others: str) -> Callable[..., Any]:
    try:
        return named_function(name)
    except Exception as error:  # whatever a module raises that is imported
        raise ValueError(
            f"{knob} must be {others} or package.module:function that can be imported, got {name!r} "
            f"({type(error).__name__}: {error})"
        ) from error


def saved_termination_fn(run: RunConfig, config: Any) -> TerminationFn | None:
    """Returns the rule by which the run ended imagined episodes; one that raises ValueError if it must be imported."""
    name = rule_name(config)

    def not_imported(obs: Array, action: Array, next_obs: Array) -> Array:
        raise ValueError(f"termination_fn must be given to load this policy, which plans with the run's own, {name!r}")

    return resolve_termination_fn(name, run.env) if name in (None, AUTO, NEVER) else not_imported


def saved_reward_fn(config: Any) -> RewardFn | None:
    """Returns the rule by which the run rewarded imagined steps; one that raises ValueError if it must be imported."""
    name = getattr(config, "reward_fn", terminations.LEARNED)

    def not_imported(obs: Array, action: Array, next_obs: Array) -> Array:
        raise ValueError(f"reward_fn must be given to load this policy, which plans with the run's own, {name!r}")

    return None if name == terminations.LEARNED else rewards.KNOWN.get(name, not_imported)
