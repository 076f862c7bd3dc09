"""The phases that algorithms are made of: fit a model, roll it out, update an agent.

Each is `Programs` over fields of the caller's state. `fit_model` takes the name of its field; the others require
`agent`, `imagined` (a `Replay` of imagined rows) and `rollout` (a `branched.Rollout`).
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from mbpo_jax import health, replay, terminations
from mbpo_jax.agents import scaled
from mbpo_jax.models import learned_termination
from mbpo_jax.replay import Replay
from mbpo_jax.rollouts import branched
from mbpo_jax.types import (
    FINISHED,
    OWN,
    Agent,
    Array,
    Dynamics,
    Key,
    Learning,
    Metrics,
    Phase,
    PolicyFn,
    ProgramFn,
    Programs,
    PyTree,
    Report,
    Spec,
    TerminationFn,
    Transition,
    WorldModel,
)

ONCE = 2**31 - 1  # `Phase.every` of a phase that runs at its first step and never again

TERMINATION_HELP = (
    "When imagined episodes end: package.module:function of (obs, action, next_obs) [B, ...] -> bool [B]; 'never'; "
    "'learned', to learn it; or 'auto', for environments with a known rule."
)
RULE_HELP = (
    "When imagined episodes end: package.module:function of (obs, action, next_obs) [B, ...] -> bool [B]; 'never'; or "
    "'auto', for environments with a known rule."
)
REWARD_HELP = (
    "Reward of imagined steps: 'learned', or package.module:function of (obs, action in [-1, 1], next_obs) [B, ...] -> "
    "float [B]."
)

BatchesFn = Callable[[Key, PyTree, Replay], tuple[Transition, Report]]
"""(key, state, real) -> (batches [G, B, ...], report on them)."""


def update_every(num_updates: int, update: Programs) -> Phase:
    """Returns the phase that updates an offline algorithm's agent, `num_updates` at a time, once that many are due."""
    return Phase("update_agent", num_updates, num_updates, update)


def scaled_agent(agent: Agent, spec: Spec, scaling: str) -> tuple[Agent, tuple[Phase, ...]]:
    """Returns an agent that sees scaled observations, and the phase that measures their scale, if any."""
    if scaling == scaled.NONE:
        return agent, ()
    return scaled.build(agent, spec), (Phase("measure_scale", ONCE, 1, scaled.measure(scaling)),)


def over_field(field: str, programs: Programs) -> Programs:
    """Lifts programs over one field of a state to programs over the whole state."""

    def lift(run: ProgramFn) -> ProgramFn:
        def program(key: Key, state: PyTree, real: Replay) -> tuple[PyTree, Report]:
            part, report = run(key, getattr(state, field), real)
            return state.replace(**{field: part}), report

        return program

    return Programs(tuple(map(lift, programs.functions)), lambda state: programs.due(getattr(state, field)))


def fit_model(world: WorldModel, field: str = "model") -> Programs:
    """Returns the programs that fit a world model to the real rows."""
    return over_field(field, world.fit)


# -- rollouts --------------------------------------------------------------------------------------------------------


def known_rule(spec: Spec) -> TerminationFn:
    """Returns the termination function of a task, for algorithms that imagine.

    Raises:
      ValueError: there is none; the message says which flag sets one.
    """
    if spec.termination_fn is None:
        raise ValueError(
            "termination_fn is not known for this environment: pass --termination_fn=package.module:function, a "
            "function of (obs, action, next_obs), each [B, ...], to bool [B]; --termination_fn=never if episodes only "
            "end by time limit; or --termination_fn=learned to learn when they end"
        )
    return spec.termination_fn


def check_rule(spec: Spec, termination_fn: str) -> None:
    """Checks that a task has a termination function, for algorithms that cannot learn one.

    Raises:
      ValueError: it has none; the message says which flag sets one.
    """
    if termination_fn == terminations.LEARNED or spec.termination_fn is None:
        why = "it cannot learn one" if termination_fn == terminations.LEARNED else "none is known"
        raise ValueError(
            f"termination_fn must be a rule for this algorithm, got {termination_fn!r}, and {why}: pass "
            "--termination_fn=package.module:function, a function of (obs, action, next_obs), each [B, ...], to bool "
            "[B]; --termination_fn=never if episodes only end by time limit; or auto, where a rule is known"
        )


def with_ends(world: WorldModel, spec: Spec, termination_fn: str) -> WorldModel:
    """Returns the world model; with `--termination_fn=learned`, one that also learns when episodes end.

    Raises:
      ValueError: termination is not to be learnt, and no termination function is known.
    """
    if termination_fn == terminations.LEARNED:
        return learned_termination.build(world, spec)
    known_rule(spec)
    return world


def rule_of(world: WorldModel, belief: PyTree, spec: Spec) -> TerminationFn:
    """Returns the termination function of imagined episodes: the one that the model learnt, or the task's own."""
    return known_rule(spec) if world.ends is None else functools.partial(world.ends, belief)


def learned_dynamics(world: WorldModel, belief: PyTree, spec: Spec, noise: bool = True) -> Dynamics:
    """Returns a learned model as dynamics, with a version for each elite. A known reward function replaces its own.

    Args:
      noise: whether steps are drawn with the model's noise, or are its mean predictions.
    """
    ends = rule_of(world, belief, spec)

    def step(key: Key, group: Array, obs: Array, action: Array) -> tuple[Array, Array, Array]:
        if noise:
            next_obs, reward = world.sample(key, belief, group, obs, action)
        else:
            next_obs, reward = world.expect(belief, group, obs, action)
        if spec.reward_fn is not None:
            reward = spec.reward_fn(obs, action, next_obs)
        return next_obs, reward, ends(obs, action, next_obs)

    return Dynamics(step, world.num_groups)


def exploring(agent: Agent, state: PyTree) -> PolicyFn:
    """Returns the policy of an agent with its exploration noise."""
    actor = agent.actor(state)
    return lambda key, obs: agent.act(key, actor, obs, True)


def roll_out(
    num_starts: int,
    length: Callable[[Replay], Array],
    limit: Callable[[Array], Array | int],
    policy: Callable[[PyTree], PolicyFn],
    dynamics: Callable[[PyTree], Dynamics],
    rule: Callable[[PyTree], TerminationFn],
    max_block_rows: int,
) -> Programs:
    """Returns the programs that fill `state.imagined` with rollouts from real states, one step of all rows per call.

    Args:
      num_starts: number of real rows drawn to start from.
      length: (real) -> steps [] of this round.
      limit: (length) -> most rows that the buffer may keep.
      policy, dynamics: (state) -> what acts and what moves.
      rule: (state) -> termination function, compared with the real terminals on the rows that rollouts start from.
    """

    def start(key: Key, state: PyTree, real: Replay) -> tuple[PyTree, Report]:
        key_start, _ = jax.random.split(key)
        rows, num_steps = replay.sample(key_start, real, (num_starts,)), length(real)
        rollout, watched = branched.start(rows.obs, num_steps, jnp.asarray(limit(num_steps)))
        metrics = {"length": rollout.length, "buffer_rows_limit": rollout.limit} | start_metrics(rule(state), rows)
        return state.replace(rollout=rollout), Report(metrics, (watched,))

    def step(key: Key, state: PyTree, real: Replay) -> tuple[PyTree, Report]:
        _, key_roll = jax.random.split(key)
        imagined, rollout, watched = branched.step(
            key_roll, policy(state), dynamics(state), state.imagined, state.rollout, max_block_rows
        )
        report = Report(branched.metrics(rollout, imagined), (watched,))
        return state.replace(imagined=imagined, rollout=rollout), report

    return Programs((start, step), lambda state: jnp.where(branched.is_running(state.rollout), 1, FINISHED))


def start_metrics(rule: TerminationFn, rows: Transition) -> Metrics:
    """Returns metrics of real rows [B, ...]: their rewards, and how often rule and environment disagree."""
    disagree = rule(rows.obs, rows.action, rows.next_obs) != (rows.terminal > 0.5)
    return {
        "real_reward_min": jnp.min(rows.reward),
        "real_reward_max": jnp.max(rows.reward),
        "termination_disagreement_fraction": jnp.mean(disagree.astype(jnp.float32)),
    }


def keep_newest(num_rounds: int, roll_out: Programs) -> Programs:
    """Makes each round first drop all but the newest `num_rounds - 1` rounds before it, however short they were.

    A limit in rows would keep more rounds if episodes end early. Requires the field `round_rows` [num_rounds], int32.
    """
    start, *others = roll_out.functions

    def forget_and_start(key: Key, state: PyTree, real: Replay) -> tuple[PyTree, Report]:
        rows = jnp.roll(state.round_rows, 1).at[0].set(state.rollout.tally.num_stored)
        size = jnp.where(branched.is_running(state.rollout), state.imagined.size, jnp.sum(rows[: num_rounds - 1]))
        return start(key, state.replace(round_rows=rows, imagined=state.imagined.replace(size=size)), real)

    return Programs((forget_and_start, *others), roll_out.due)


# -- updates ---------------------------------------------------------------------------------------------------------


def real_batches(num_batches: int, batch_size: int) -> BatchesFn:
    """Returns a function that draws batches of real rows."""

    def draw(key: Key, state: PyTree, real: Replay) -> tuple[Transition, Report]:
        del state
        batches = replay.sample(key, real, (num_batches, batch_size))
        return batches, Report({}, (health.watch({"a real row": batches}, keep=1),))

    return draw


def mixed_batches(num_batches: int, num_real: int, num_imagined: int) -> BatchesFn:
    """Returns a function that draws batches with exactly `num_real` real rows, which come first, and imagined rows."""

    def draw(key: Key, state: PyTree, real: Replay) -> tuple[Transition, Report]:
        batches = draw_mixed(key, real, state.imagined, num_batches, num_real, num_imagined)
        rows = {
            "a real row": jax.tree.map(lambda leaf: leaf[:, :num_real], batches),
            "an imagined row": jax.tree.map(lambda leaf: leaf[:, num_real:], batches),
        }
        metrics = {"real_row_fraction": jnp.asarray(num_real / (num_real + num_imagined))}
        return batches, Report(metrics, (health.watch(rows, keep=1),))

    return draw


def draw_mixed(
    key: Key, real: Replay, imagined: Replay, num_batches: int, num_real: int, num_imagined: int
) -> Transition:
    """Draws batches [num_batches, num_real + num_imagined, ...], with exactly these numbers of rows in every batch."""
    key_real, key_imagined = jax.random.split(key)
    parts = []
    if num_real:
        parts.append(replay.sample(key_real, real, (num_batches, num_real)))
    if num_imagined:
        parts.append(replay.sample(key_imagined, imagined, (num_batches, num_imagined)))
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=1), *parts)


def own_targets(state: PyTree) -> Learning:
    """Returns the default of `update_agent`: the agent's own targets and losses, whatever the state."""
    del state
    return OWN


def update_agent(agent: Agent, batches: BatchesFn, learning: Callable[[PyTree], Learning] = own_targets) -> Programs:
    """Returns the program that takes G updates of `state.agent`.

    Args:
      learning: (state) -> targets or losses that replace the agent's own.
    """
    return Programs((functools.partial(_update_agent, agent, batches, learning),))


def _update_agent(
    agent: Agent,
    batches: BatchesFn,
    learning: Callable[[PyTree], Learning],
    key: Key,
    state: PyTree,
    real: Replay,
) -> tuple[PyTree, Report]:
    key_batches, key_update = jax.random.split(key)
    rows, drawn = batches(key_batches, state, real)
    agent_state, updated = agent.update(key_update, state.agent, rows, learning(state))
    report = Report(drawn.metrics | updated.metrics, (*drawn.watched, *updated.watched))
    return state.replace(agent=agent_state), report
