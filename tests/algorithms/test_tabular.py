"""Q-planning and Dyna-Q on worked transitions, a chain, and the textbook's maze, whose values are known."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax import replay
from mbpo_jax.algorithms import dyna_q, q_planning, tabular
from mbpo_jax.algorithms.tabular import Planning, TableConfig, TableState
from mbpo_jax.environments import maze
from mbpo_jax.launch import flags
from mbpo_jax.launch.flags import FlagsError
from mbpo_jax.models import tables as models
from mbpo_jax.models.tables import Outcome
from mbpo_jax.types import Spec, Transition

CONFIG = TableConfig(learning_rate=0.1, discount=0.9)
KEY = jax.random.key(0)


def outcome(state, action, reward, next_state, terminal=0.0):
    return Outcome(np.int32(state), np.int32(action), np.float32(reward), np.int32(next_state), np.float32(terminal))


def begin(q, name="deterministic"):
    q = np.float32(q)
    return TableState(q=q, model=models.build(name).init(*q.shape), priority=np.zeros_like(q))


@functools.partial(jax.jit, static_argnames=("config", "planning"))
def learn(state, one, key=KEY, config=CONFIG, planning=Planning(0, from_rows=True)):  # noqa: B008 (it is immutable)
    return tabular.learn(config, planning, models.build(config.table_model), key, state, one)


Q = [[0.0, 0.5], [2.0, -1.0]]


def test_an_update_from_a_step():
    state, report = learn(begin(Q), outcome(0, 1, 1.0, 1))
    np.testing.assert_allclose(state.q, [[0.0, 0.5 + 0.1 * (1 + 0.9 * 2 - 0.5)], Q[1]], rtol=1e-6)
    assert float(report.metrics["td_error"]) == pytest.approx(2.3)
    assert int(report.metrics["visited_pairs"]) == 1


def test_nothing_is_bootstrapped_after_an_end():
    state, _ = learn(begin(Q), outcome(0, 1, 1.0, 1, terminal=1.0))
    np.testing.assert_allclose(state.q, [[0.0, 0.5 + 0.1 * (1 - 0.5)], Q[1]], rtol=1e-6)


@pytest.mark.parametrize("name", ["deterministic", "counting"])
def test_planning_bootstraps_nothing_after_an_end_either(name):
    config = dataclasses.replace(CONFIG, table_model=name)
    planning = Planning(1, from_rows=False)
    state, _ = learn(begin(Q, name), outcome(0, 1, 1.0, 1, terminal=1.0), config=config, planning=planning)
    np.testing.assert_allclose(state.q, [[0.0, 0.55], Q[1]], rtol=1e-6)


def test_planning_touches_what_was_seen_alone():
    state, planning = begin(np.full((4, 3), 5.0)), Planning(40, from_rows=True)
    for one in (outcome(0, 2, 0.0, 3), outcome(3, 1, 0.0, 0)):
        state, _ = learn(state, one, planning=planning)
    touched = np.asarray(state.q) != 5.0
    np.testing.assert_array_equal(np.argwhere(touched), [[0, 2], [3, 1]])


def test_counting_plans_towards_the_expectation():
    config = TableConfig(learning_rate=0.5, discount=0.9, table_model="counting")
    idle, one_update = Planning(0, from_rows=False), Planning(1, from_rows=False)
    state = begin([[0.0], [2.0], [4.0]], "counting")
    for one in (outcome(0, 0, 1, 1), outcome(0, 0, 0, 2), outcome(0, 0, 0, 1)):
        state, _ = learn(state, one, config=config, planning=idle)
    state, _ = learn(state, outcome(0, 0, 1, 0, terminal=1), config=config, planning=one_update)
    assert float(state.q[0, 0]) == pytest.approx(0.5 * (0.5 + 0.9 * (2 + 4 + 2) / 4))


CHAIN = outcome(0, 0, 0, 1), outcome(1, 0, 0, 2), outcome(2, 0, 1, 2, terminal=1)  # the goal is entered from state 2


@pytest.mark.parametrize(
    "num_updates, threshold, q, urgent",
    [
        (3, 0.01, [0.25, 0.5, 1.0], [0, 0, 0]),
        (5, 0.01, [0.25, 0.5, 1.0], [0, 0, 0]),  # nothing is urgent any more
        (1, 0.01, [0.0, 0.0, 1.0], [0, 0.5, 0]),  # the rest is left for the next step
        (3, 0.3, [0.0, 0.5, 1.0], [0, 0, 0]),  # a quarter is not urgent
        (3, 1.0, [0.0, 0.0, 0.0], [0, 0, 0]),
    ],
)
@pytest.mark.parametrize("name", ["deterministic", "counting"])
def test_sweeping_goes_backwards_from_a_surprise(name, num_updates, threshold, q, urgent):
    config = TableConfig(learning_rate=1.0, discount=0.5, table_model=name)
    planning = Planning(num_updates, from_rows=False, priority_threshold=threshold)
    state = begin(np.zeros((3, 1)), name)
    for one in CHAIN:
        state, _ = learn(state, one, config=config, planning=planning)
    np.testing.assert_allclose(state.q[:, 0], q)
    np.testing.assert_allclose(state.priority[:, 0], urgent)


@pytest.mark.parametrize(
    "q, priority, error",
    [
        (0.0, 3.5, 5.0),  # it expects a reward of (1 + 3) / 2, and then 0.5 * (2 + 4) / 2
        (3.5, 0.0, 1.5),  # chance alone: what was drawn is off, and what is expected is not
    ],
)
def test_a_pair_is_as_urgent_as_it_is_far_from_what_is_expected_of_it(q, priority, error):
    config = TableConfig(learning_rate=1.0, discount=0.5, table_model="counting")
    idle = Planning(0, from_rows=False)
    state, _ = learn(begin([[q], [2.0], [4.0]], "counting"), outcome(0, 0, 1, 1), config=config, planning=idle)
    sweeping = dataclasses.replace(idle, priority_threshold=0.01)
    state, report = learn(state, outcome(0, 0, 3, 2), config=config, planning=sweeping)
    np.testing.assert_allclose(state.priority[:, 0], [priority, 0, 0], rtol=1e-6)
    assert float(report.metrics["td_error"]) == pytest.approx(error)  # of the step itself


# -- the maze ----------------------------------------------------------------------------------------------------


def value_iteration(discount):
    """Q [54, 4] of the maze, in float64."""
    follows, q = maze.transitions(), np.zeros((maze.NUM_CELLS, maze.NUM_ACTIONS))
    enters = (follows == maze.GOAL) & (np.arange(maze.NUM_CELLS) != maze.GOAL)[:, None]
    for _ in range(60):
        q = np.where(enters, 1.0, discount * q.max(axis=1)[follows])
    return q


def test_what_planning_learns_of_the_maze_is_what_value_iteration_says():
    exact = value_iteration(0.95)
    assert exact[maze.START].max() == pytest.approx(0.95**13)  # the shortest path has 14 steps, the last is paid
    config, model = TableConfig(learning_rate=1.0, discount=0.95), models.build("deterministic")
    follows = maze.transitions()
    open_cells = [cell for cell in range(maze.NUM_CELLS) if (follows[cell] != cell).any()]
    pairs = [(cell, action) for cell in open_cells for action in range(maze.NUM_ACTIONS)]
    cells, actions = (jnp.asarray(column, jnp.int32) for column in zip(*pairs))
    arrived = jnp.asarray(follows[cells, actions], jnp.int32)
    enters = (arrived == maze.GOAL).astype(jnp.float32)

    @jax.jit
    def run(key):
        table = model.init(maze.NUM_CELLS, maze.NUM_ACTIONS)
        rows = Outcome(cells, actions, enters, arrived, enters)
        table, _ = jax.lax.scan(lambda table, row: (model.learn(table, row), None), table, rows)
        drawn = models.draw_pairs(key, table.visits, 20_000)
        return tabular.plan(config, model, table, jnp.zeros(table.visits.shape), drawn)[0]

    learnt = np.asarray(run(KEY))
    np.testing.assert_allclose(learnt[open_cells], exact[open_cells], rtol=1e-5)


# -- both rows ---------------------------------------------------------------------------------------------------

SPEC = Spec(3, 2, one_hot_actions=True)


def real_rows(capacity=5):
    """Two steps: from state 2 by action 1 to state 0, and on by action 0 to an end, paid 4."""
    rows = Transition(
        obs=np.eye(3, dtype=np.float32)[[2, 0]],
        action=np.eye(2, dtype=np.float32)[[1, 0]],
        reward=np.float32([0.0, 4.0]),
        next_obs=np.eye(3, dtype=np.float32)[[0, 1]],
        terminal=np.float32([0.0, 1.0]),
    )
    return jax.jit(replay.add)(replay.init(SPEC, capacity), rows)


def test_the_newest_row_is_read_as_numbers():
    read = jax.jit(tabular.newest_outcome)(real_rows())
    assert [float(x) for x in read] == [0, 0, 4, 1, 1]


@pytest.mark.parametrize(
    "build, config, learnt",
    [
        (dyna_q.build, dyna_q.DynaQConfig(planning_updates=0), 0.1 * 4),
        (dyna_q.build, dyna_q.DynaQConfig(planning_updates=1), 0.1 * 4 + 0.1 * (4 - 0.4)),
        (dyna_q.build, dyna_q.DynaQConfig(planning_updates=1, prioritised_sweeping=True), 0.1 * 4),
        (q_planning.build, q_planning.QPlanningConfig(planning_updates=1), 0.1 * 4),
    ],
)
def test_what_each_row_learns_from_one_step(build, config, learnt):
    algorithm = build(config, SPEC)
    state, _ = jax.jit(algorithm.phases[0].programs.functions[0])(KEY, algorithm.init(KEY), real_rows())
    expected = np.zeros((3, 2))
    expected[0, 0] = learnt
    np.testing.assert_allclose(state.q, expected, rtol=1e-6)


def test_sweeping_without_updates_from_the_model_is_refused():
    """It would never learn."""
    with pytest.raises(FlagsError) as refused:
        flags.parse(["--algorithm=dyna_q", "--prioritised_sweeping=true", "--planning_updates=0"])
    assert "--planning_updates must be 1 or more with prioritised_sweeping=true, got 0" in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
    dyna_q.DynaQConfig(planning_updates=0)  # Q-learning


def test_a_policy_acts_greedily_where_it_does_not_explore():
    algorithm = dyna_q.build(dyna_q.DynaQConfig(epsilon=1.0), SPEC)
    q = np.float32([[0, 1], [3, 2], [5, 5]])
    act = jax.jit(algorithm.act, static_argnums=4)
    for obs, action in ((0, 1), (1, 0)):
        np.testing.assert_array_equal(act(KEY, q, (), np.eye(3, dtype=np.float32)[obs], False)[0], np.eye(2)[action])
