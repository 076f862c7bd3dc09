"""The task of a run: its spaces and the rules that a learnt model cannot know, resolved here and nowhere else.

`config.json` keeps the spaces, so that whoever opens a run directory later guesses nothing and opens no environment.
"""

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mbpo_jax import terminations
from mbpo_jax.algorithms import REGISTRY
from mbpo_jax.driver.config import AUTO, NEVER, RunConfig
from mbpo_jax.driver.interaction.spaces import Spaces
from mbpo_jax.types import Algorithm, Spec, TerminationFn

MOST_DISAGREEMENT = 0.001  # share of real rows on which a rule and its environment may differ by rounding
MOST_LEARNT_DISAGREEMENT = 0.01  # and one that was learnt


class Task(NamedTuple):
    """An environment as a run knows it."""

    spaces: Spaces
    spec: Spec  # the same as algorithms see it, with the rules that they may not learn


def resolve(env_id: str, spaces: Spaces, config: Any) -> Task:
    """Returns the task that an algorithm's knobs make of an environment.

    Raises:
      ValueError: what `--termination_fn` names cannot be imported, or is no such function.
    """
    spec, name = spec_of(spaces), rule_name(config)
    termination_fn = resolve_termination_fn(name, env_id)
    if termination_fn is not None:
        check_termination_fn(termination_fn, str(name), spec)
    return Task(spaces, spec._replace(termination_fn=termination_fn))


def build(run: RunConfig, config: Any, spec: Spec) -> Algorithm:
    """Builds the algorithm of a run.

    Raises:
      ValueError: it needs what is not known of the environment; names that.
    """
    try:
        return REGISTRY[run.algorithm].build(config, spec)
    except ValueError as error:
        known = terminations.known_ids(run.env)
        close = f"; rules are known for {', '.join(known)}" if known else ""
        raise ValueError(f"{error} (env {run.env!r}{close})") from error


def spec_of(spaces: Spaces) -> Spec:
    """Returns the sizes of spaces, without any rule."""
    return Spec(spaces.obs_dim, spaces.action_low.size)


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
        f"no end: report it as truncated, not terminated (more than {100.0 * MOST_DISAGREEMENT:g} % is no rounding, "
        "docs/metrics.md)"
    )


def _learnt_badly(env_id: str, fraction: float) -> str:
    return (
        f"what --termination_fn=learned learnt and env {env_id} disagree on {100.0 * fraction:.2g} % of the real rows: "
        "fit_model/termination_precision and _recall say how; more episodes that end may help, or the environment's "
        "own rule"
    )


def named_function(name: str) -> Callable[..., Any]:
    """Returns what `package.module:function` names. Raises whatever its module raises; TypeError: it is no function."""
    module, _, function = name.partition(":")
    found = getattr(importlib.import_module(module), function)
    if not callable(found):
        raise TypeError(f"{function} is not a function")
    return found  # type: ignore[no-any-return]


def resolve_termination_fn(name: str | None, env_id: str) -> TerminationFn | None:
    """Returns the termination function of that name; None without a name, or where 'auto' knows none.

    Raises:
      ValueError: it cannot be imported.
    """
    if name is None or name == terminations.LEARNED:
        return None
    if name in (AUTO, NEVER):
        return terminations.lookup(env_id) if name == AUTO else terminations.never
    try:
        return named_function(name)
    except Exception as error:  # whatever a module raises that is imported
        raise ValueError(
            "termination_fn must be 'auto', 'never' or package.module:function that can be imported, got "
            f"{name!r} ({type(error).__name__}: {error})"
        ) from error


def check_termination_fn(termination_fn: TerminationFn, name: str, spec: Spec) -> None:
    """Tries a termination function on the shapes that it will get.

    Args:
      name: what `--termination_fn` was.
    Raises:
      ValueError: it raises, or does not return bool [B].
    """
    num_rows = 3
    obs, action = (jax.ShapeDtypeStruct((num_rows, dim), jnp.float32) for dim in (spec.obs_dim, spec.action_dim))
    must = f"termination_fn {name!r} must return bool [{num_rows}] for {num_rows} rows"
    try:
        ends = jax.eval_shape(termination_fn, obs, action, obs)
    except Exception as error:  # whatever a user's function raises
        raise ValueError(f"{must}, but it raised {type(error).__name__}: {error}") from error
    shape, dtype = getattr(ends, "shape", None), getattr(ends, "dtype", None)
    if shape != (num_rows,) or dtype != jnp.bool_:
        got = type(ends).__name__ if shape is None else f"{dtype} {list(shape)}"
        raise ValueError(f"{must}, got {got}")
