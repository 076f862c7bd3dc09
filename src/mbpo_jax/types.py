"""The records and function types that every other file speaks in.

Shape letters used in every docstring:

  B batch rows   M ensemble members   E elites   S seeds   G gradient updates   N buffer capacity
  T time         H horizon            O observation dims   A action dims        D model target dims (1 + O)
  I model input dims (O + A)          U updates and Q quantities that `health` looks at

Three kinds of record never mix: knobs are frozen dataclasses, arrays are `flax.struct.PyTreeNode`s, and bundles of
pure functions are the NamedTuples of this file.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias

import jax
from flax import struct

Array: TypeAlias = jax.Array
Key: TypeAlias = jax.Array  # a typed key, `jax.random.key`; consumed once
PyTree: TypeAlias = Any
Metrics: TypeAlias = dict[str, PyTree]  # arrays by name; "health" is a `health.Health`, which the driver reads

TerminationFn: TypeAlias = Callable[[Array, Array, Array], Array]  # (obs, action, next_obs) [B, ...] -> bool [B]
PolicyFn: TypeAlias = Callable[[Key, Array], Array]  # (key, obs [B, O]) -> action [B, A]
StepFn: TypeAlias = Callable[[Key, Array, Array, Array], tuple[Array, Array, Array]]
"""(key, group [], obs [B, O], action [B, A]) -> (next_obs [B, O], reward [B], terminal bool [B]).

`group` says which of several equally likely dynamics (the elites of an ensemble) moves these rows; dynamics that
come in one version ignore it."""


class Transition(struct.PyTreeNode, kw_only=True):
    """One environment step, or a batch of them with leading axes.

    `terminal` is 1.0 where the MDP ended and 0.0 elsewhere. A time limit is not terminal: the value of `next_obs`
    is bootstrapped there.
    """

    obs: Array  # [..., O]
    action: Array  # [..., A], each in [-1, 1]
    reward: Array  # [...]
    next_obs: Array  # [..., O]
    terminal: Array  # [...], float32


class Spec(NamedTuple):
    """What an algorithm must know of an environment. Actions are always in [-1, 1]; the driver rescales them."""

    obs_dim: int
    action_dim: int
    termination_fn: TerminationFn | None = None  # None: not known, and the algorithm must not need it


class WorldModel(NamedTuple):
    """A learned model of reward and dynamics, as pure functions."""

    init: Callable[[Key], PyTree]  # (key) -> model
    fit: "Programs"  # each (key, model, replay) -> (model, metrics)
    predict: Callable[[PyTree, Array, Array], tuple[Array, Array]]  # -> (mean, log_var) [M, B, D], every member
    sample: Callable[[Key, PyTree, Array, Array, Array], tuple[Array, Array]]
    """(key, model, group [], obs [B, O], action [B, A]) -> (next_obs [B, O], reward [B]); `group` counts elites."""


class Agent(NamedTuple):
    """A learner that acts, as pure functions. `actor` is the part of its state that acting reads."""

    init: Callable[[Key], PyTree]  # (key) -> agent
    actor: Callable[[PyTree], PyTree]  # (agent) -> actor
    act: Callable[[Key, PyTree, Array, bool], Array]  # (key, actor, obs [B, O], explore) -> action [B, A]
    update: Callable[[Key, PyTree, Transition], tuple[PyTree, Metrics]]  # batches [G, B, ...]: G updates, one scan
    q_values: Callable[[PyTree, Array, Array], Array]  # (agent, obs [B, O], action [B, A]) -> q [M, B], every critic
    entropy_bonus: Callable[[Key, PyTree, Array], Array] | None = None
    """(key, agent, obs [B, O]) -> [B]: -temperature * log-probability of an action drawn there, which q counts from
    the next step on. None: q is of the policy without noise, and has no such term."""


class ProgramFn(Protocol):
    """One compiled program of a phase: state in, `(state, metrics)` out."""

    def __call__(self, key: Key, state: PyTree, replay: PyTree, /) -> tuple[PyTree, Metrics]:
        """(key, state, replay) -> (state, metrics)."""
        ...


FINISHED = -1  # what `Programs.due` says when there is nothing more to run


def nothing_more(state: PyTree) -> int:
    """`Programs.due` of work that is done after one call."""
    del state
    return FINISHED


class Programs(NamedTuple):
    """Work cut into compiled calls of bounded length, so that it can be shown, stopped and saved between them.

    The first of `functions` begins the work. After each call `due(state)` says which is next, until it says FINISHED.
    All calls have the same key; what is under way lives in `state`. Trip counts of the loops over gradient steps are
    static, for a GPU waits for the host at each turn of a loop whose end it does not know.
    """

    functions: tuple[ProgramFn, ...]
    due: Callable[[PyTree], Array | int] = nothing_more  # (state) -> int [], an index of `functions`, or FINISHED


class Phase(NamedTuple):
    """Work that is due every so many real environment steps."""

    name: str  # metric prefix, progress label
    every: int  # real environment steps between runs
    first: int  # real environment step of the first run
    programs: Programs


class Algorithm(NamedTuple):
    """What the driver trains. It steps the environment and runs the phases, in order, when they are due."""

    init: Callable[[Key], PyTree]  # (key) -> state
    actor: Callable[[PyTree], PyTree]  # (state) -> what acting reads; this is what a saved policy holds
    begin_episode: Callable[[Key, PyTree], PyTree]  # (key, actor) -> carry; () where the observation alone decides
    act: Callable[[Key, PyTree, PyTree, Array, bool], tuple[Array, PyTree]]
    """(key, actor, carry, obs [O], explore) -> (action [A], carry); whoever has many observations lifts it."""
    phases: tuple[Phase, ...]
    exploration_steps: int  # environment steps of uniformly random actions before `act` is asked
    replay_capacity: int  # most real rows kept
