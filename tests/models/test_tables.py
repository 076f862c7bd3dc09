"""Tabular models: what they expect after a few visits, worked by hand."""

import jax
import numpy as np
import pytest

from mbpo_jax.models import tables
from mbpo_jax.models.tables import COUNTING, DETERMINISTIC, Outcome, TableModel

VALUES = np.float32([8.0, 2.0, 4.0])  # of three states
MODELS = {
    name: TableModel(model.init, *map(jax.jit, model[1:]))
    for name, model in ((name, tables.build(name)) for name in (DETERMINISTIC, COUNTING))
}


def outcome(state, action, reward, next_state, terminal=0.0):
    return Outcome(np.int32(state), np.int32(action), np.float32(reward), np.int32(next_state), np.float32(terminal))


def learnt(name, *outcomes):
    model = MODELS[name]
    table = model.init(3, 2)
    for one in outcomes:
        table = model.learn(table, one)
    return model, table


FOUR_VISITS = outcome(0, 1, 1, 1), outcome(0, 1, 0, 2), outcome(0, 1, 0, 1), outcome(0, 1, 1, 0, terminal=1)


def test_the_counting_model_expects_the_mean_of_what_followed():
    model, table = learnt(COUNTING, *FOUR_VISITS)
    reward, follows = model.expect(table, VALUES, np.int32(0), np.int32(1))
    assert reward == pytest.approx(0.5)
    assert follows == pytest.approx((2 + 4 + 2 + 0) / 4)  # the last visit ended the episode in a state of value 8


def test_the_deterministic_model_expects_the_newest_outcome():
    model, table = learnt(DETERMINISTIC, *FOUR_VISITS[:2])
    assert [float(x) for x in model.expect(table, VALUES, np.int32(0), np.int32(1))] == [0.0, 4.0]
    model, table = learnt(DETERMINISTIC, *FOUR_VISITS)
    assert [float(x) for x in model.expect(table, VALUES, np.int32(0), np.int32(1))] == [1.0, 0.0]


@pytest.mark.parametrize("name", [DETERMINISTIC, COUNTING])
def test_all_pairs_at_once_are_the_pairs_one_by_one(name):
    model, table = learnt(name, *FOUR_VISITS, outcome(2, 0, -1, 0), outcome(1, 1, 3, 2))
    rewards, follow = model.expect_all(table, VALUES)
    for state in range(3):
        for action in range(2):
            one = model.expect(table, VALUES, np.int32(state), np.int32(action))
            assert [float(x) for x in one] == pytest.approx(
                [float(rewards[state, action]), float(follow[state, action])]
            )
    np.testing.assert_array_equal(table.visits, [[0, 4], [0, 1], [1, 0]])


@pytest.mark.parametrize("name", [DETERMINISTIC, COUNTING])
def test_what_leads_to_a_state_was_seen_to(name):
    model, table = learnt(name, outcome(0, 0, 0, 2), outcome(1, 1, 0, 2), outcome(2, 0, 1, 2, terminal=1))
    np.testing.assert_array_equal(model.leads_to(table, np.int32(2)), [[True, False], [False, True], [False, False]])
    assert not model.leads_to(table, np.int32(0)).any()  # where an empty table points to


def test_pairs_are_drawn_by_state_first_and_only_where_something_was_seen():
    visits = np.int32([[0, 9, 0], [1, 1, 1], [0, 0, 0], [0, 0, 2]])
    states, actions = jax.jit(tables.draw_pairs, static_argnums=2)(jax.random.key(0), visits, 6000)
    counts = np.zeros((4, 3))
    np.add.at(counts, (states, actions), 1)
    expected = np.float64([[0, 1, 0], [1 / 3, 1 / 3, 1 / 3], [0, 0, 0], [0, 0, 1]]) / 3
    assert (counts[expected == 0] == 0).all()
    np.testing.assert_allclose(counts / 6000, expected, atol=0.025)  # four standard deviations
