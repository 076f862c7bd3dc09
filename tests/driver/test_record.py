import math

import pytest

from mbpo_jax.driver.record import Record


def noted(*evaluations):
    """A record of one seed, and whether each of (return_mean, complete) was the best when it came."""
    record = Record((5,))
    return record, [record.add_evaluation(0, step, *given) for step, given in enumerate(evaluations)]


def test_the_best_evaluation_is_the_highest_and_the_first_of_equals():
    _, was_best = noted((1.0, True), (3.0, True), (2.0, True), (3.0, True))
    assert was_best == [True, True, False, False]


@pytest.mark.parametrize("odd", [(9.0, False), (math.nan, True), (math.inf, True)])
def test_what_lacks_episodes_or_is_no_number_is_not_better_than_a_whole_one(odd):
    record, was_best = noted((1.0, True), odd, (2.0, True))
    assert was_best == [True, False, True]
    assert record.score(2) == 2.0
    assert noted((1.0, True), odd)[0].score(1) is None


def test_until_there_is_a_whole_one_one_that_lacks_episodes_is_the_best():
    _, was_best = noted((5.0, False), (7.0, False), (-1.0, True), (8.0, False))
    assert was_best == [True, True, True, False]


def test_an_evaluation_of_an_older_checkpoint_counts_as_whole():
    record, _ = noted((1.0, True))
    record.restore(record.to_json())
    assert record.to_json()["evaluations"] == [[{"step": 0, "return_mean": 1.0}]]
    assert not record.add_evaluation(0, 1, 2.0, complete=False)
