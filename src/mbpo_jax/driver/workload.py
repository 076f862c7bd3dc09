"""What a run is going to do: how often each kind of work is done, and whether anything can be learnt from it."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

from mbpo_jax.driver.config import NO_ENVIRONMENT, RunConfig
from mbpo_jax.driver.fitted_model import FIT
from mbpo_jax.driver.interaction import task as tasks
from mbpo_jax.driver.interaction.spaces import Spaces
from mbpo_jax.driver.interaction.task import Task
from mbpo_jax.driver.setup import Setup
from mbpo_jax.number_text import short
from mbpo_jax.types import Algorithm, Metrics

EXPLORE, ACT, EVALUATE, CHECKPOINT = "explore", "act", "evaluate", "checkpoint"
UPDATE = "update_agent"
MINOR = (EVALUATE, CHECKPOINT)  # kinds that take little of a run's time
FEW_UPDATES = 1000  # fewer teach no agent anything: experiments/inverted_pendulum.flags has 40,000


def fit_progress(seeds: Sequence[int], i: int, reported: Metrics) -> str:
    """Returns how far the fit of seed number `i` is, from what it reports at the end of an epoch; otherwise nothing."""
    if "epochs" not in reported:
        return ""
    whose = f"seed {seeds[i]}, " if len(seeds) > 1 else ""
    return f"{whose}epoch {reported['epochs']:,}, held-out error {short(float(reported['holdout_mse_elite_mean']))}"


def num_left(run: RunConfig, algorithm: Algorithm) -> dict[str, Callable[[int], int]]:
    """Returns, by kind of work, (step) -> how often it is still done after that environment step."""
    last, explored = run.num_steps, algorithm.exploration_steps
    found: dict[str, Callable[[int], int]] = {}
    if not run.dataset:
        found[EXPLORE] = lambda step: max(min(explored, last) - step, 0)
        found[ACT] = lambda step: max(last - max(explored, step), 0)
    for phase in algorithm.phases:
        found[phase.name] = functools.partial(_num_due, phase.first, phase.every, last)
    for kind, every in ((EVALUATE, run.eval_every_steps), (CHECKPOINT, run.checkpoint_every_steps)):
        found[kind] = functools.partial(_num_due_and_at_end, every, last)
    return found


def _num_due(first: int, every: int, last: int, step: int) -> int:
    """Returns how many of the steps first, first + every, ... lie in (step, last]."""

    def up_to(limit: int) -> int:
        return 0 if limit < first else (limit - first) // every + 1

    return up_to(last) - min(up_to(step), up_to(last))


def _num_due_and_at_end(every: int, last: int, step: int) -> int:
    return _num_due(every, every, last, step) + (last % every != 0 and step < last)


def num_updates(run: RunConfig, algorithm: Algorithm, config: Any) -> int:
    """Returns the agent updates of a whole run; if they follow episodes, as many as if every step ended one."""
    count = num_left(run, algorithm).get(UPDATE, lambda step: 0)(0)
    if run.dataset:
        return count * int(getattr(config, "updates_per_call", 1))
    per_step = int(getattr(config, "updates_per_step", 1))
    phase = next((phase for phase in algorithm.phases if phase.name == UPDATE), None)
    if phase is None or phase.every == 1 or count == 0:
        return count * per_step
    return (phase.first + (count - 1) * phase.every) * per_step  # bursts: the first makes up for all steps before it


def describe(run: RunConfig, task: Task, algorithm: Algorithm, config: Any) -> list[str]:
    """Returns what a reader wants to know before the first step, as lines: spaces, termination function, and work."""
    spaces = task.spaces
    where = run.env if run.env != NO_ENVIRONMENT else "no environment, so returns are unknown"
    if run.env != NO_ENVIRONMENT and run.eval_episodes == 0:
        where += ", not evaluated (--eval_episodes=0)"
    lines = [f"{where}: {_describe_spaces(spaces)}; at most {spaces.max_episode_steps:,} steps an episode"]
    if algorithm.dynamics is not None:
        name = tasks.rule_name(config)
        rewards = (
            "" if task.spec.reward_fn is None else f"; imagined rewards are those of --reward_fn={config.reward_fn}"
        )
        lines.append(f"imagined episodes end by --termination_fn={name}{_meaning(task)}{rewards}")
    work = {kind: count(0) for kind, count in num_left(run, algorithm).items()}
    stepped = ((EXPLORE, "random steps"), (ACT, "steps of the policy"))
    parts = [f"{work[kind]:,} {name}" for kind, name in stepped if kind in work]
    if FIT in work:
        parts.append(_count(work[FIT], "model fit"))
    if UPDATE in work:
        parts.append(_describe_updates(run, algorithm, config))
    return [*lines, f"this run, for each seed: {', '.join(parts)}"]


def notes(setup: Setup, config: Any) -> list[str]:
    """Returns what the user should know before the first step, as lines: data, work, and what is odd about the work."""
    run, algorithm = setup.run, setup.programs.algorithm
    odd = problem(run, algorithm, config)
    return [*setup.data_set_lines, *describe(run, setup.task, algorithm, config), *([] if odd is None else [odd])]


def _describe_updates(run: RunConfig, algorithm: Algorithm, config: Any) -> str:
    if algorithm.learns_from_episodes:
        return f"{_count(config.updates_per_step, 'agent update')} after each episode of the policy"
    return _count(num_updates(run, algorithm, config), "agent update")


def _describe_spaces(spaces: Spaces) -> str:
    if spaces.action_start is not None:
        return f"one of {_count(spaces.obs_dim, 'state')}, one of {_count(spaces.action_low.size, 'action')}"
    bounds = sorted({f"[{low:g}, {high:g}]" for low, high in zip(spaces.action_low, spaces.action_high)})
    in_bounds = bounds[0] if len(bounds) == 1 else f"{len(bounds)} different ranges"
    sizes = f"{_count(spaces.obs_dim, 'observation')}, {_count(spaces.action_low.size, 'action')}"
    return f"{sizes} in {in_bounds}, to which the policy's [-1, 1] is scaled"


def problem(run: RunConfig, algorithm: Algorithm, config: Any) -> str | None:
    """Returns why a run can learn nothing, or next to nothing, and what to change; None if it can."""
    if run.dataset:
        return None  # as many updates as steps
    first_of = {phase.name: phase.first for phase in algorithm.phases}
    if UPDATE in first_of:
        number, noun, first, enough = num_updates(run, algorithm, config), "agent update", first_of[UPDATE], FEW_UPDATES
    elif FIT in first_of:  # it plans with what it fits
        number, noun, first, enough = num_left(run, algorithm)[FIT](0), "model fit", first_of[FIT], 1
    else:
        return None
    if number >= enough:
        return None
    much = "nothing" if number == 0 else "next to nothing"
    knobs = [name for name in ("exploration_steps", "min_replay_rows") if getattr(config, name, None) == first]
    flags = " and ".join(f"--{name}" for name in (*knobs, "num_steps"))
    return (
        f"warning: this run will learn {much}: {_count(number, noun)} in {run.num_steps:,} steps, the first at step "
        f"{first:,}. Change {flags}"
    )


def _meaning(task: Task) -> str:
    return f", {task.spec.termination_fn.__name__}" if task.spec.termination_fn is not None else ""


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
