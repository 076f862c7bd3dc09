"""What Q-planning and Dyna-Q share: a Q table that learns from a tabular model of the task.

Observations and actions are one-hot rows outside and indices in here.

References: Sutton and Barto 2018, "Reinforcement Learning: An Introduction", chapter 8.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from mbpo_jax import health, replay
from mbpo_jax.agents import q_table
from mbpo_jax.models import tables
from mbpo_jax.models.tables import Outcome, TableModel
from mbpo_jax.options import check, option
from mbpo_jax.types import Algorithm, Array, Key, Phase, Programs, PyTree, Report, Spec


@dataclasses.dataclass(frozen=True)
class TableConfig:
    """Knobs of a Q table and of its model. The defaults are the textbook's for its maze."""

    learning_rate: float = option(
        0.1, "Share of the distance to its target by which a Q update moves Q.", minimum=0.0, maximum=1.0
    )
    discount: float = option(0.95, "Reward discount per environment step.", minimum=0.0, maximum=1.0)
    table_model: str = option(
        tables.DETERMINISTIC,
        "What the model keeps for a state and action: the newest outcome; or counts of all, for stochastic tasks.",
        choices=(tables.DETERMINISTIC, tables.COUNTING),
    )

    def __post_init__(self) -> None:
        check(self)


@dataclasses.dataclass(frozen=True)
class Planning:
    """How the phase learns in one call."""

    num_updates: int
    from_rows: bool  # whether Q is also updated from the real row itself
    priority_threshold: float | None = None  # of prioritised sweeping; None: pairs are drawn uniformly


class TableState(struct.PyTreeNode, kw_only=True):
    """Everything the phase reads, apart from the real rows."""

    q: Array  # [O, A]
    model: PyTree
    priority: Array  # [O, A], of the updates of prioritised sweeping; 0: nothing to do there


def build(config: TableConfig, spec: Spec, planning: Planning, epsilon: float, replay_capacity: int) -> Algorithm:
    """Builds an algorithm that learns from every step and acts greedily, in training epsilon-greedily."""
    model, num_states, num_actions = tables.build(config.table_model), spec.obs_dim, spec.action_dim

    def init(key: Key) -> TableState:
        del key
        zeros = jnp.zeros((num_states, num_actions))
        return TableState(q=zeros, model=model.init(num_states, num_actions), priority=jnp.zeros_like(zeros))

    def act(key: Key, q: Array, carry: tuple[()], obs: Array, explore: bool) -> tuple[Array, tuple[()]]:
        values = q[jnp.argmax(obs)]
        action = q_table.epsilon_greedy(key, values, epsilon) if explore else q_table.greedy(key, values)
        return jax.nn.one_hot(action, num_actions), carry

    def update(key: Key, state: TableState, real: PyTree) -> tuple[TableState, Report]:
        return learn(config, planning, model, key, state, newest_outcome(real))

    return Algorithm(
        init=init,
        actor=lambda state: state.q,
        begin_episode=lambda key, actor: (),
        act=act,
        phases=(Phase("update_agent", 1, 1, Programs((update,))),),
        replay_capacity=replay_capacity,
    )


def newest_outcome(real: replay.Replay) -> Outcome:
    """Returns the newest real row, with the indices of its states and action."""
    row = replay.take(real, real.size - 1)
    state, action, next_state = (jnp.argmax(x).astype(jnp.int32) for x in (row.obs, row.action, row.next_obs))
    return Outcome(state, action, row.reward, next_state, row.terminal)


def learn(
    config: TableConfig, planning: Planning, model: TableModel, key: Key, state: TableState, outcome: Outcome
) -> tuple[TableState, Report]:
    """Learns from one step: the model first, then Q, from the step itself and from the model."""
    q, at = state.q, (outcome.state, outcome.action)
    table = model.learn(state.model, outcome)
    target = outcome.reward + config.discount * (1.0 - outcome.terminal) * jnp.max(q[outcome.next_state])
    error = target - q[at]
    priority = state.priority
    if planning.from_rows:
        q, _ = q_table.move(q, *at, target, config.learning_rate)
    if planning.priority_threshold is None:
        pairs = tables.draw_pairs(key, table.visits, planning.num_updates)
        q, errors = plan(config, model, table, q, pairs)
    else:
        reward, follows = model.expect(table, jnp.max(q, axis=1), *at)
        distance = jnp.abs(reward + config.discount * follows - q[at])
        priority = priority.at[at].max(jnp.where(distance > planning.priority_threshold, distance, 0.0))
        q, priority, errors = prioritised_sweep(config, planning, model, table, q, priority)
    metrics = {"td_error": jnp.abs(error), "q_max": jnp.max(q), "visited_pairs": jnp.sum(table.visits > 0)}
    if planning.num_updates:
        metrics["planning_td_error_mean"] = jnp.mean(jnp.abs(errors))
    watched = health.watch({"the temporal-difference error": error, "the Q table": q})
    return state.replace(q=q, model=table, priority=priority), Report(metrics, (watched,))


def plan(
    config: TableConfig, model: TableModel, table: Any, q: Array, pairs: tuple[Array, Array]
) -> tuple[Array, Array]:
    """Updates Q at pairs of states and actions, int32 [G] each, one after the other, with the model's expectation.

    Returns:
      Q [O, A], and the error of each pair before its update, target - Q, [G].
    """

    def update(q: Array, pair: tuple[Array, Array]) -> tuple[Array, Array]:
        reward, follows = model.expect(table, jnp.max(q, axis=1), *pair)
        return q_table.move(q, *pair, reward + config.discount * follows, config.learning_rate)

    return jax.lax.scan(update, q, pairs)


def prioritised_sweep(
    config: TableConfig, planning: Planning, model: TableModel, table: Any, q: Array, priority: Array
) -> tuple[Array, Array, Array]:
    """Updates Q at the most urgent pairs; each update makes the pairs that lead to it urgent.

    Returns:
      Q and the priorities, [O, A] each, and the error of each pair before its update, [G]; 0 once nothing is urgent.
    References: Sutton and Barto 2018, section 8.4.
    """
    assert planning.priority_threshold is not None
    threshold = planning.priority_threshold

    def update(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        q, priority = carry
        state, action = jnp.unravel_index(jnp.argmax(priority), priority.shape)
        is_due = priority[state, action] > 0
        reward, follows = model.expect(table, jnp.max(q, axis=1), state, action)
        target = jnp.where(is_due, reward + config.discount * follows, q[state, action])
        q, error = q_table.move(q, state, action, target, config.learning_rate)
        rewards, all_follow = model.expect_all(table, jnp.max(q, axis=1))
        errors = jnp.abs(rewards + config.discount * all_follow - q)
        urgent = is_due & model.leads_to(table, state) & (errors > threshold)
        priority = jnp.maximum(priority.at[state, action].set(0.0), jnp.where(urgent, errors, 0.0))
        return (q, priority), error

    (q, priority), errors = jax.lax.scan(update, (q, priority), None, length=planning.num_updates)
    return q, priority, errors
