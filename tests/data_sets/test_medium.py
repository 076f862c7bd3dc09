import pytest

from mbpo_jax.data_sets import medium


def test_it_is_the_first_checkpoint_with_one_to_two_thirds_of_the_best():
    returns = {1000: -5.0, 2000: 99.0, 3000: 100.0, 4000: 250.0, 5000: 300.0, 6000: 150.0}
    assert medium.step(returns, [2000, 3000, 5000, 6000]) == 3000
    assert medium.step(returns, [2000, 2500, 4000, 5000, 6000]) == 6000  # 250 is too good, 2,500 was not evaluated


@pytest.mark.parametrize(
    ("returns", "checkpoints", "reason"),
    [
        ({}, [1000], "the run has no evaluation yet"),
        ({1000: 3.0}, [], "the run has no checkpoints; those of several processes are in its part_"),
        ({1000: -3.0, 2000: -1.0}, [1000, 2000], "must be above 0 to have a third, got -1"),
        ({1000: 1.0, 2000: 3.0}, [3000, 2000], "no checkpoint has an evaluation of 1 to 2, .*: 2000, 3000 are kept"),
    ],
)
def test_what_is_no_third_or_is_not_kept_is_refused(returns, checkpoints, reason):
    with pytest.raises(ValueError, match=reason):
        medium.step(returns, checkpoints)
