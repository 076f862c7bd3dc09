"""The records and function types that all other files use.

Shape letters used in every docstring:

  B batch rows   M ensemble members   E elites   S seeds   G gradient updates   N buffer capacity
  T time         H horizon            O observation dims   A action dims        D model target dims (1 + O)
  I model input dims (O + A)          U updates and Q quantities that `health` watches

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
Metrics: TypeAlias = dict[str, Array]  # by name

TerminationFn: TypeAlias = Callable[[Array, Array, Array], Array]  # (obs, action, next_obs) [B, ...] -> bool [B]
RewardFn: TypeAlias = Callable[[Array, Array, Array], Array]  # (obs, action, next_obs) [B, ...] -> float [B]
PolicyFn: TypeAlias = Callable[[Key, Array], Array]  # (key, obs [B, O]) -> action [B, A]
StepFn: TypeAlias = Callable[[Key, Array, Array, Array], tuple[Array, Array, Array]]
"""(key, group [], obs [B, O], action [B, A]) -> (next_obs [B, O], reward [B], terminal bool [B]).

`group` says which of several equally likely dynamics (the elites of an ensemble) moves these rows; dynamics with
only one version ignore it."""


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
    """What an algorithm must know about an environment. Actions are always in [-1, 1]; the driver rescales them."""

    obs_dim: int
    action_dim: int
    termination_fn: TerminationFn | None = None  # None: not known, and the algorithm must not need it
    reward_fn: RewardFn | None = None  # None: not known, or to be learnt
    one_hot_actions: bool = False  # whether an action is one of `action_dim` choices, as a one-hot row
    max_episode_steps: int | None = None  # time limit; None: not known


class Watched(struct.PyTreeNode):
    """Holds the largest magnitudes of named quantities, in causal order; `health` finds the first that went wrong."""

    values: Array  # [Q], or [U, Q] of U updates
    first: Array | None = None  # [], int32, number, from 0, of the first of the updates; None: 0
    names: tuple[str, ...] = struct.field(pytree_node=False, kw_only=True)  # Q, such as "critic 1's loss"
    unit: str = struct.field(pytree_node=False, default="update", kw_only=True)  # what is counted


class Report(struct.PyTreeNode):
    """Holds what a program reports: metrics for the user, and magnitudes that the driver checks."""

    metrics: Metrics
    watched: tuple[Watched, ...] = ()  # in causal order, all of one unit


class Dynamics(NamedTuple):
    """What moves imagined states, in `num_groups` equally likely versions (the elites of an ensemble)."""

    step_fn: StepFn
    num_groups: int = 1
    backward: bool = False
    """Whether steps lead to the previous observation. The last output of `step_fn` then says where no step can have led
    to the given one; rows are still stored in time order."""


class WorldModel(NamedTuple):
    """A learned model of reward and dynamics, as pure functions.

    `belief` is the part of its arrays that predicting reads: no optimiser, no running fit.
    """

    init: Callable[[Key], PyTree]  # (key) -> model
    fit: "Programs"  # each (key, model, replay) -> (model, report)
    belief: Callable[[PyTree], PyTree]  # (model) -> belief
    predict: Callable[[PyTree, Array, Array], tuple[Array, Array]]
    """(belief, obs [B, O], action [B, A]) -> (mean, log_var) of the targets, [M, B, D] each, by every member."""
    sample: Callable[[Key, PyTree, Array, Array, Array], tuple[Array, Array]]
    """(key, belief, group [], obs [B, O], action [B, A]) -> (next_obs [B, O], reward [B]) drawn from one group."""
    expect: Callable[[PyTree, Array, Array, Array], tuple[Array, Array]]
    """(belief, group [], obs [B, O], action [B, A]) -> (next_obs [B, O], reward [B]) without the noise of `sample`."""
    num_groups: int  # equally likely versions that `sample` draws from
    ends: Callable[[PyTree, Array, Array, Array], Array] | None = None
    """(belief, obs [B, O], action [B, A], next_obs [B, O]) -> whether the episode ends there, bool [B]. None: the model
    does not learn this."""


class Regression(NamedTuple):
    """What critics regress on, in R rows."""

    obs: Array  # [R, O]
    action: Array  # [R, A]
    target: Array  # [R]
    weight: Array | None = None  # [R], 0 or more, of each row in the mean; None: all equal


class Learning(NamedTuple):
    """What an agent's update learns from, where it is not the agent's own choice. May close over arrays."""

    regression: Callable[[Key, PyTree, Transition], "Regression"] | None = None
    """(key, agent, batch [B, ...]) -> what every critic regresses on."""
    actor_loss: Callable[[Key, PyTree, PyTree, Transition], tuple[Array, Array]] | None = None
    """(key, actor, agent, batch [B, ...]) -> (loss [], log_prob [B]); the latter is only for SAC's temperature."""
    target_entropy: Array | None = None  # [], nats, towards which SAC's temperature steers the policy


OWN = Learning()  # the agent's own targets and losses


class Critic(NamedTuple):
    """The critics, as pure functions of the state that is passed in."""

    q_values: Callable[[PyTree, Array, Array], Array]  # (state, obs [B, O], action [B, A]) -> q [M, B], every critic
    target_q_values: Callable[[PyTree, Array, Array], Array]  # the same by the slowly moving target critics
    target_action: Callable[[Key, PyTree, Array], tuple[Array, Array]]
    """(key, state, obs [B, O]) -> (action [B, A], bonus [B]): the action of targets at obs, and the bonus that they add
    to the value there: -temperature * log-probability of the action, 0 for an agent without an entropy bonus."""
    has_entropy: bool = False  # whether q includes such bonuses, from the next step on, of a policy acting with noise


class Agent(NamedTuple):
    """A learner that acts, as pure functions. `actor` is the part of its state that acting reads."""

    init: Callable[[Key], PyTree]  # (key) -> agent
    actor: Callable[[PyTree], PyTree]  # (agent) -> actor
    act: Callable[[Key, PyTree, Array, bool], Array]  # (key, actor, obs [B, O], explore) -> action [B, A]
    update: Callable[[Key, PyTree, Transition, Learning], tuple[PyTree, Report]]
    """(key, agent, batches [G, B, ...], learning) -> (agent, report): G updates in one scan."""
    critic: Critic | None = None  # of the agent's state; None: it learns without critics
    draw: Callable[[Key, PyTree, PyTree, Array], tuple[Array, Array, Array]] | None = None
    """(key, agent, actor, obs [B, O]) -> (action [B, A], bonus [B], log_prob [B]), differentiable with respect to actor
    and obs: how the policy of `actor` acts in a loss of the agent, with the bonus as in `Critic.target_action` and the
    log-probability. Both are zeros for an agent without noise of its own."""


class Acting(NamedTuple):
    """A policy and its critics, without an update: the fields of `Agent` with these names."""

    actor: Callable[[PyTree], PyTree]
    act: Callable[[Key, PyTree, Array, bool], Array]
    critic: Critic | None = None


class ProgramFn(Protocol):
    """One compiled program of a phase: state in, `(state, report)` out."""

    def __call__(self, key: Key, state: PyTree, replay: PyTree, /) -> tuple[PyTree, Report]:
        """Maps (key, state, replay) to (state, report)."""
        ...


FINISHED = -1  # what `Programs.due` returns when there is nothing more to run


def nothing_more(state: PyTree) -> int:
    """Returns FINISHED: the `Programs.due` of work that is done after one call."""
    del state
    return FINISHED


class Programs(NamedTuple):
    """Work cut into compiled calls of bounded length, so that it can be shown, stopped and saved between them.

    The first of `functions` starts the work. After each call, `due(state)` says which one is next, until it returns
    FINISHED, as it must whenever no work is under way, including in the initial state. All calls get the same key; the
    progress of the work is in `state`. Loops over gradient steps have static trip counts, because a GPU waits for the
    host at each iteration of a loop of unknown length.

    The programs may report different metrics: those of a phase are the newest of each name. A program that is called
    while another is due must leave the buffers in the state unchanged: this is how batched seeds wait for each other,
    and the driver restores everything else for those that wait.
    """

    functions: tuple[ProgramFn, ...]
    due: Callable[[PyTree], Array | int] = nothing_more  # (state) -> int [], an index of `functions`, or FINISHED


class Phase(NamedTuple):
    """Work that is due at regular steps of the run.

    A step is one of the real environment; offline, without an environment, it is an update of the agent.
    """

    name: str  # metric prefix, progress label
    every: int  # steps between runs
    first: int  # step of the first run
    programs: Programs


class Algorithm(NamedTuple):
    """What the driver trains. The driver steps the environment, if any, and runs the phases, in order, when due."""

    init: Callable[[Key], PyTree]  # (key) -> state
    actor: Callable[[PyTree], PyTree]  # (state) -> what acting reads; this is what a saved policy holds
    begin_episode: Callable[[Key, PyTree], PyTree]  # (key, actor) -> carry; () if actions only depend on observations
    act: Callable[[Key, PyTree, PyTree, Array, bool], tuple[Array, PyTree]]
    """(key, actor, carry, obs [O], explore) -> (action [A], carry); callers with many observations lift it."""
    phases: tuple[Phase, ...]
    exploration_steps: int = 0  # environment steps of uniformly random actions before `act` is used
    replay_capacity: int = 0  # most real rows kept; 0: it learns from a data set, all of which is kept
    dynamics: Callable[[PyTree], Dynamics] | None = None  # (state) -> what it imagines with; None: it has no model
    backward_dynamics: Callable[[PyTree], Dynamics] | None = None  # the same, backwards
    critic: Critic | None = None  # of the algorithm's state
    learns_from_episodes: bool = False  # whether its updates come after each episode instead of each step
    acts_on_device: bool = False  # whether acting is so expensive that policies are evaluated where phases run
