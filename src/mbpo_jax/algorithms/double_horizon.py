"""Two horizons: long imagined rollouts provide the states, short ones through the model the learning signal.

Every `fit_every_steps`, the model is fitted and the agent takes a burst of updates. Every few of them, a long rollout
of the policy fills a buffer of states (the distribution rollout). From these, each update imagines a few steps (the
training rollout): critics regress on their value, and the actor maximises it by the gradient through the model
(`double_horizon_update.py`).

References: DHMBPO (arXiv 2512.15439). What agrees and what differs: docs/through_the_model.md.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from mbpo_jax import health, replay
from mbpo_jax.agents import bounded_sac, critics, scaled
from mbpo_jax.agents.bounded_sac import BoundedSac, BoundedSacConfig, BoundedSacState
from mbpo_jax.algorithms import double_horizon_update, phases, reporting
from mbpo_jax.algorithms.reactive import reactive
from mbpo_jax.models import homoscedastic
from mbpo_jax.models.state import GaussianConfig
from mbpo_jax.options import check, option
from mbpo_jax.replay import Replay
from mbpo_jax.rollouts import trajectories
from mbpo_jax.rollouts.trajectories import Trajectory
from mbpo_jax.types import (
    FINISHED,
    Algorithm,
    Array,
    Dynamics,
    Key,
    Phase,
    Programs,
    PyTree,
    Report,
    Spec,
    TerminationFn,
    Transition,
    WorldModel,
)

MODEL = GaussianConfig(
    num_members=8,
    num_elites=8,
    model_hidden_units=256,
    model_weight_decays=(0.0, 0.0, 0.0, 0.0),
    scale_targets=True,
    fixed_holdout=True,
    fit_decay_fraction=0.5,
    fit_patience_epochs=50,
    fit_max_gradient_steps=1000,
)


@dataclasses.dataclass(frozen=True)
class DoubleHorizonConfig:
    """Knobs of the double-horizon agent. One setting is meant for all tasks."""

    exploration_steps: int = option(5000, "Environment steps of uniformly random actions before learning.", minimum=1)
    replay_capacity: int = option(
        1_000_000, "Maximum number of real rows kept; new rows replace the oldest.", minimum=1
    )
    fit_every_steps: int = option(
        1000, "Environment steps between model fits, and between bursts of agent updates.", minimum=1
    )
    updates_per_step: int = option(1, "Updates of actor and critics per environment step.", minimum=1)
    critic_updates: int = option(
        250, "Updates of the critics alone at the beginning of a burst, rounded up to whole rollouts.", minimum=0
    )
    updates_per_rollout: int = option(20, "Updates between rollouts of the policy, in one compiled call.", minimum=1)
    rollout_batch: int = option(256, "Start states of such a rollout, drawn from the real rows.", minimum=1)
    rollout_length: int = option(20, "Steps of such a rollout.", minimum=1)
    retain_rounds: int = option(10, "Rollouts whose states are kept; more if rows end early.", minimum=1)
    horizon: int = option(5, "Imagined steps in the targets and in the actor's gradient.", minimum=1)
    batch_size: int = option(256, "States of an agent update.", minimum=1)
    dropout: float = option(
        0.0,
        "Dropout of the model's fits: a share of the hidden units that falls from here, at the inputs, to 0, at the "
        "outputs; the paper has 0.01.",
        minimum=0.0,
        maximum=0.9,
        before=0.0,
    )
    log_std_pace: float = option(
        10.0,
        "Speed at which the model's standard deviations are learnt, relative to its weights; the paper has 1.",
        minimum=0.1,
        maximum=100.0,
        before=10.0,
    )
    early_fit_factor: int = option(
        1,
        "Factor of fit_max_gradient_steps for fits over at most early_fit_rows rows; the paper's first fit has 5.",
        minimum=1,
        before=1,
    )
    early_fit_rows: int = option(8000, "Real rows up to which early_fit_factor applies.", minimum=0, before=8000)
    termination_fn: str = option("auto", phases.TERMINATION_HELP)
    reward_fn: str = option("learned", phases.REWARD_HELP)
    model: GaussianConfig = MODEL
    agent: BoundedSacConfig = BoundedSacConfig()

    def __post_init__(self) -> None:
        check(self)


TINY = {
    "exploration_steps": 40, "replay_capacity": 400, "fit_every_steps": 10, "critic_updates": 2,
    "updates_per_rollout": 2, "rollout_batch": 16, "rollout_length": 2, "retain_rounds": 2, "horizon": 2,
    "batch_size": 16, "dropout": 0.2, "model.num_members": 3, "model.num_elites": 2, "model.model_hidden_units": 8,
    "model.model_weight_decays": (5e-5, 1e-4), "model.fit_epoch_minibatches": 1, "model.fit_patience_epochs": 0,
    "agent.hidden_units": 8, "agent.num_hidden_layers": 1, "agent.num_critics": 3,
}  # fmt: skip
"""Changes to the defaults, by full path, with which tests run every phase within seconds."""


class DoubleHorizonState(struct.PyTreeNode, kw_only=True):
    """Everything the phases read, apart from the real rows."""

    model: PyTree
    agent: BoundedSacState
    imagined: Replay
    critic_rounds: Array  # [], int32, rollouts left in the burst that only update the critics
    rounds: Array  # [], int32, rollouts left in it that also update the actor


class Parts(NamedTuple):
    """The static parts of the algorithm, passed to the functions below: knobs and pure functions."""

    config: DoubleHorizonConfig
    spec: Spec
    world: WorldModel
    agent: BoundedSac


def build(config: DoubleHorizonConfig, spec: Spec) -> Algorithm:
    """Builds the algorithm from its config.

    Raises:
      ValueError: the spec has no termination function, and none is to be learnt.
    """
    parts = build_parts(config, spec)
    burst = Programs(
        (
            functools.partial(start_burst, parts),
            functools.partial(roll_out_and_update, parts, False),
            functools.partial(roll_out_and_update, parts, True),
        ),
        due,
    )
    burst = reporting.with_rule(burst, functools.partial(rule_of, parts))
    every, first = config.fit_every_steps, config.exploration_steps
    return Algorithm(
        init=functools.partial(init, parts),
        phases=(
            Phase("fit_model", every, first, phases.fit_model(parts.world)),
            Phase("update_agent", every, first, burst),
        ),
        exploration_steps=first,
        replay_capacity=config.replay_capacity,
        dynamics=functools.partial(dynamics, parts),
        **reactive(bounded_sac.acting(parts.agent)),
    )


def build_parts(config: DoubleHorizonConfig, spec: Spec) -> Parts:
    """Builds the parts from the config and the task."""
    few_rows = config.early_fit_rows, config.early_fit_factor
    model = homoscedastic.build(config.model, spec, config.dropout, config.log_std_pace, few_rows)
    world = phases.with_ends(model, spec, config.termination_fn)
    return Parts(config, spec, world, bounded_sac.build(config.agent, spec))


def rule_of(parts: Parts, state: DoubleHorizonState) -> TerminationFn:
    """Returns the termination function of imagined rows."""
    return phases.rule_of(parts.world, parts.world.belief(state.model), parts.spec)


def init(parts: Parts, key: Key) -> DoubleHorizonState:
    """Returns the state before the first step: untrained networks, and no imagined rows."""
    config = parts.config
    key_model, key_agent = jax.random.split(key)
    return DoubleHorizonState(
        model=parts.world.init(key_model),
        agent=bounded_sac.init(parts.agent, key_agent),
        imagined=replay.init(parts.spec, config.retain_rounds * config.rollout_batch * config.rollout_length),
        critic_rounds=jnp.zeros((), jnp.int32),
        rounds=jnp.zeros((), jnp.int32),
    )


def dynamics(parts: Parts, state: DoubleHorizonState) -> Dynamics:
    """Returns the current model as dynamics."""
    return phases.learned_dynamics(parts.world, parts.world.belief(state.model), parts.spec)


# -- the programs of a burst -----------------------------------------------------------------------------------------


def due(state: DoubleHorizonState) -> Array:
    """Returns the index [] of the next program."""
    return jnp.where(state.critic_rounds > 0, 1, jnp.where(state.rounds > 0, 2, FINISHED))


def start_burst(parts: Parts, key: Key, state: DoubleHorizonState, real: Replay) -> tuple[DoubleHorizonState, Report]:
    """Sets the observation scale from the real rows, resets the optimisers, and counts the rollouts of the burst.

    The first burst makes up for all exploration steps.
    """
    del key
    config = parts.config
    scale = scaled.spread(real)
    agent = bounded_sac.begin_burst(parts.agent, state.agent, scale)
    first = state.agent.num_updates == 0
    times = jnp.where(first, max(config.exploration_steps // config.fit_every_steps, 1), 1)
    num_steps = jnp.where(first, config.exploration_steps, config.fit_every_steps)
    state = state.replace(
        agent=agent,
        critic_rounds=_rounds(config, times * config.critic_updates),
        rounds=_rounds(config, num_steps * config.updates_per_step),
    )
    return state, Report({}, (health.watch({"the scale of observations": scale}),))


def _rounds(config: DoubleHorizonConfig, num_updates: Array) -> Array:
    """Returns the number of rollouts [] for `num_updates` updates, rounded up."""
    return jnp.asarray(-(-num_updates // config.updates_per_rollout), jnp.int32)


def roll_out_and_update(
    parts: Parts, with_actor: bool, key: Key, state: DoubleHorizonState, real: Replay
) -> tuple[DoubleHorizonState, Report]:
    """Rolls out the policy for new states, and takes the updates between this rollout and the next.

    Args:
      with_actor: whether the actor learns as well, or only the critics.
    """
    left = state.rounds if with_actor else state.critic_rounds
    key_states, key_draw, key_updates = jax.random.split(jax.random.fold_in(key, 2 * left + with_actor), 3)
    config, moves = parts.config, dynamics(parts, state)
    is_due = due(state) == (2 if with_actor else 1)
    imagined, num_alive = imagine_states(parts, moves, key_states, state, real, is_due)
    obs = replay.sample(key_draw, imagined, (config.updates_per_rollout, config.batch_size)).obs
    keys = jax.random.split(key_updates, config.updates_per_rollout)
    once = functools.partial(double_horizon_update.update_once, parts.agent, config.horizon, moves, with_actor)
    agent, metrics, watched = critics.scan_updates(once, state.agent, (obs, keys))
    state = state.replace(
        agent=agent,
        imagined=imagined,
        critic_rounds=state.critic_rounds if with_actor else state.critic_rounds - 1,
        rounds=state.rounds - 1 if with_actor else state.rounds,
    )
    weights = bounded_sac.watch_state(parts.agent, agent)
    metrics |= {"states": imagined.size, "rollout_rows": num_alive}
    return state, Report(metrics, (watched, weights.replace(first=jnp.asarray(config.updates_per_rollout - 1))))


def imagine_states(
    parts: Parts, moves: Dynamics, key: Key, state: DoubleHorizonState, real: Replay, is_due: Array
) -> tuple[Replay, Array]:
    """Returns the buffer, with the rows of a rollout added if `is_due`, and the number of these rows."""
    config, agent = parts.config, state.agent
    actor = bounded_sac.policy(agent)
    key_start, key_path = jax.random.split(key)

    def choose(key: Key, number: Array, obs: Array) -> tuple[Array, tuple[()]]:
        return bounded_sac.act(parts.agent, key, actor, obs, True), ()

    start = replay.sample(key_start, real, (config.rollout_batch,)).obs
    path = trajectories.unroll(key_path, moves, choose, start, config.rollout_length)
    return store(state.imagined, path, is_due)


def store(buffer: Replay, path: Trajectory, is_due: Array) -> tuple[Replay, Array]:
    """Adds the steps that the rows of trajectories took, if `is_due`; also returns their number."""
    continues = jnp.concatenate([path.alive[1:], path.survives[None]])
    rows = Transition(
        obs=path.obs[:-1],
        action=path.action,
        reward=path.reward,
        next_obs=path.obs[1:],
        terminal=1.0 - continues.astype(jnp.float32),
    )
    alive = path.alive.reshape(-1)
    order = jnp.argsort(~alive, stable=True)
    rows = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[order], rows)
    num_alive = jnp.sum(alive)
    return replay.add(buffer, rows, jnp.where(is_due, num_alive, 0)), num_alive
