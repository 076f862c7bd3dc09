"""Tabular models of tasks with few states and actions: tables of what followed each state-action pair.

A deterministic table keeps the newest outcome of a pair. A counting one keeps the mean reward and how often each state
followed, the maximum-likelihood model of a stochastic task. In both, a terminal step leads to no state, so that nothing
is bootstrapped there.

References: Sutton and Barto 2018, sections 8.2 and 8.5.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from mbpo_jax.types import Array, Key, PyTree

DETERMINISTIC, COUNTING = "deterministic", "counting"


class Outcome(NamedTuple):
    """One step of the environment, with states and actions as indices."""

    state: Array  # [], int32
    action: Array  # [], int32
    reward: Array  # []
    next_state: Array  # [], int32
    terminal: Array  # [], 1 where the MDP ended; a time limit does not end it


class TableModel(NamedTuple):
    """A tabular model of O states and A actions, as pure functions. Every table has `visits`, int32 [O, A]."""

    init: Callable[[int, int], PyTree]  # (O, A) -> an empty table
    learn: Callable[[Any, Outcome], PyTree]  # (table, outcome) -> table
    expect: Callable[[Any, Array, Array, Array], tuple[Array, Array]]
    """(table, values of states [O], state [], action []) -> (expected reward [], expected value of what follows [])."""
    expect_all: Callable[[Any, Array], tuple[Array, Array]]  # (table, values [O]) -> the same for all pairs [O, A]
    leads_to: Callable[[Any, Array], Array]  # (table, state []) -> whether a pair was seen to lead there, bool [O, A]


def build(name: str) -> TableModel:
    """Returns the model with this name, DETERMINISTIC or COUNTING."""
    return {DETERMINISTIC: _NEWEST, COUNTING: _COUNTS}[name]


def draw_pairs(key: Key, visits: Array, count: int) -> tuple[Array, Array]:
    """Draws states uniformly among those visited, and actions uniformly among those taken there.

    Args:
      visits: [O, A], at least one of them positive.
    Returns:
      (states, actions), int32 [count] each.
    """
    key_state, key_action = jax.random.split(key)
    visited = visits > 0
    state = _draw(key_state, jnp.broadcast_to(jnp.any(visited, axis=1), (count, visited.shape[0])))
    return state, _draw(key_action, visited[state])


def _draw(key: Key, allowed: Array) -> Array:
    """Draws one true column of each row of a mask [B, K], uniformly; [B]."""
    rank = jnp.cumsum(allowed, axis=1)  # the n-th true column is the first whose rank exceeds n
    drawn = jax.random.randint(key, rank.shape[:1], 0, rank[:, -1])
    return jnp.argmax(rank > drawn[:, None], axis=1).astype(jnp.int32)


# -- the newest outcome of each pair -----------------------------------------------------------------------------


class Newest(struct.PyTreeNode, kw_only=True):
    """The newest outcome of each pair."""

    visits: Array  # [O, A], int32
    reward: Array  # [O, A]
    next_state: Array  # [O, A], int32
    survives: Array  # [O, A], 0 where the MDP ended or nothing was seen


def _init_newest(num_states: int, num_actions: int) -> Newest:
    shape = num_states, num_actions
    return Newest(
        visits=jnp.zeros(shape, jnp.int32),
        reward=jnp.zeros(shape),
        next_state=jnp.zeros(shape, jnp.int32),
        survives=jnp.zeros(shape),
    )


def _learn_newest(table: Newest, outcome: Outcome) -> Newest:
    at = outcome.state, outcome.action
    return Newest(
        visits=table.visits.at[at].add(1),
        reward=table.reward.at[at].set(outcome.reward),
        next_state=table.next_state.at[at].set(outcome.next_state),
        survives=table.survives.at[at].set(1.0 - outcome.terminal),
    )


def _expect_newest(table: Newest, values: Array, state: Array, action: Array) -> tuple[Array, Array]:
    at = state, action
    return table.reward[at], table.survives[at] * values[table.next_state[at]]


def _expect_all_newest(table: Newest, values: Array) -> tuple[Array, Array]:
    return table.reward, table.survives * values[table.next_state]


def _newest_leads_to(table: Newest, state: Array) -> Array:
    return (table.survives > 0) & (table.next_state == state)


_NEWEST = TableModel(_init_newest, _learn_newest, _expect_newest, _expect_all_newest, _newest_leads_to)


# -- counts ------------------------------------------------------------------------------------------------------


class Counts(struct.PyTreeNode, kw_only=True):
    """How often each pair was visited, and what followed."""

    visits: Array  # [O, A], int32
    reward: Array  # [O, A], the mean
    next_visits: Array  # [O, A, O], int32, only visits after which the MDP went on


def _init_counts(num_states: int, num_actions: int) -> Counts:
    shape = num_states, num_actions
    return Counts(
        visits=jnp.zeros(shape, jnp.int32),
        reward=jnp.zeros(shape),
        next_visits=jnp.zeros((*shape, num_states), jnp.int32),
    )


def _learn_counts(table: Counts, outcome: Outcome) -> Counts:
    at = outcome.state, outcome.action
    visits = table.visits.at[at].add(1)
    survives = (1.0 - outcome.terminal).astype(jnp.int32)
    return Counts(
        visits=visits,
        reward=table.reward.at[at].add((outcome.reward - table.reward[at]) / visits[at]),
        next_visits=table.next_visits.at[(*at, outcome.next_state)].add(survives),
    )


def _expect_counts(table: Counts, values: Array, state: Array, action: Array) -> tuple[Array, Array]:
    at = state, action
    return table.reward[at], table.next_visits[at] @ values / jnp.maximum(table.visits[at], 1)


def _expect_all_counts(table: Counts, values: Array) -> tuple[Array, Array]:
    return table.reward, table.next_visits @ values / jnp.maximum(table.visits, 1)


def _counts_lead_to(table: Counts, state: Array) -> Array:
    return table.next_visits[:, :, state] > 0


_COUNTS = TableModel(_init_counts, _learn_counts, _expect_counts, _expect_all_counts, _counts_lead_to)
