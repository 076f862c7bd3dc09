import pytest

from mbpo_jax.driver.time_left import TimeLeft


def test_what_is_left_costs_what_it_has_cost():
    left = TimeLeft({"act": lambda step: 100 - step, "fit": lambda step: (100 - step) // 50})
    left.add("act", 5.0)  # compiles
    assert left.seconds(0) is None  # no fit yet
    assert left.seconds(60) == pytest.approx(40 * 5.0)  # none is left
    left.add("fit", 9.0)
    left.add("act", 0.1)
    left.add("act", 0.3)
    assert left.seconds(0) == pytest.approx(100 * 0.2 + 2 * 9.0)
    left.add("fit", 3.0)
    assert left.seconds(0) == pytest.approx(100 * 0.2 + 2 * 3.0)
    assert left.seconds(100) == 0.0


def test_what_takes_little_is_not_waited_for():
    left = TimeLeft({"act": lambda step: 10, "save": lambda step: 2}, minor=("save",))
    left.add("act", 1.0)
    assert left.seconds(0) == pytest.approx(10.0)
    left.add("save", 3.0)
    assert left.seconds(0) == pytest.approx(16.0)


def test_old_samples_fade():
    left = TimeLeft({"fit": lambda step: 1})
    for seconds in [1.0] * 50 + [2.0] * 60:
        left.add("fit", seconds)
    assert 1.9 < left.seconds(0) < 2.0
