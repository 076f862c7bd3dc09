import math

import numpy as np
import pytest
from rliable import library
from rliable import metrics as rliable_metrics

from mbpo_jax.reports import statistics

STEPS = [1000, 5000, 5001, 10000, 15000, 15001, 25000]
RETURNS = [1000.0, 500.0, 2.0, 4.0, 8.0, 16.0, 32.0]


@pytest.mark.parametrize(
    ("step", "wanted"),
    [
        (10_000, 3.0),  # (5,000, 10,000], as exploration is left out: 2 and 4
        (15_000, 14.0 / 3.0),  # (5,000, 15,000]
        (15_001, 28.0 / 3.0),  # (5,001, 15,001]: 5,001 itself is out
        (25_000, 24.0),  # (15,000, 25,000]: 15,000 itself is out, 25,000 is in
        (5000, None),  # nothing but exploration
        (25_001, None),  # not reached
    ],
)
def test_a_value_is_the_mean_of_the_window_open_at_its_start(step, wanted):
    value = statistics.value_at(STEPS, RETURNS, step, 10_000)
    assert value == wanted if wanted is None else value == pytest.approx(wanted, rel=1e-12)


def test_a_longer_window_takes_more():
    assert statistics.value_at(STEPS, RETURNS, 25_000, 50_000) == pytest.approx(62.0 / 5.0)


def test_a_gap_as_long_as_the_window_has_no_value():
    assert statistics.value_at([6000, 30_000], [1.0, 2.0], 20_000, 10_000) is None


@pytest.mark.parametrize(
    ("step", "wanted"),
    [
        (100, 5.5),  # (90, 100]: 91 and 100, and not 90
        (99, 4.0),  # (89.1, 99]: 90 and 91
        (89, 1.0),  # (80.1, 89] has none: the last one before
    ],
)
def test_a_short_run_is_judged_by_its_last_tenth(step, wanted):
    assert statistics.last_value([50, 90, 91, 100], [1.0, 3.0, 5.0, 6.0], step) == wanted


def test_what_begins_later_has_no_last_value():
    assert statistics.last_value([5000, 6000], [1.0, 2.0], 1000) is None


@pytest.mark.parametrize(
    ("returns", "wanted"),
    [
        ([10.0, 99.0, 98.9, 99.0, 100.0], (200, 400)),  # 99 is within 1 % of 100, and 98.9 is not
        ([100.0, 99.0, 99.5, 99.0, 99.9], (100, 100)),
        ([1.0, 2.0, 3.0, 4.0, 100.0], (500, 500)),
        ([1.0, 2.0, 3.0, 100.0, 98.0], (400, None)),
        ([-300.0, -101.1, -101.0, -100.0, -100.5], (300, 300)),  # 1 % of -100 is 1
        ([100.0, 100.0, math.nan, 100.0, 100.0], (100, 400)),
        ([100.0, math.inf, 100.0, 100.0, 100.0], (100, 300)),
        ([0.0, 0.0, -0.1, 0.0, 0.0], (100, 400)),
        ([math.inf, math.nan, -math.inf, math.nan, -math.inf], (None, None)),
    ],
)
def test_a_seed_reaches_its_best_and_settles_where_it_leaves_it_no_more(returns, wanted):
    assert statistics.steps_near_best([100, 200, 300, 400, 500], returns) == wanted


def test_the_iqm_cuts_a_quarter_at_either_end():
    assert statistics.iqm([5.0, 1.0, 100.0, 3.0]) == 4.0
    assert statistics.iqm([100.0, 1.0, 2.0, 6.0, -50.0]) == 3.0  # floor(5 / 4) at either end
    assert statistics.iqm([1.0, 2.0, 9.0]) == 4.0  # nothing to cut
    np.testing.assert_array_equal(statistics.iqm([[1, 2, 3, 9], [0, 0, 4, 5]], axis=1), [2.5, 2.0])


def test_the_iqm_is_rliable_s():
    generator = np.random.default_rng(3)
    for shape in ((1, 1), (3, 2), (5, 5), (10, 6)):
        scores = generator.normal(size=shape)
        assert statistics.iqm(scores) == rliable_metrics.aggregate_iqm(scores)


def test_the_interval_is_rliable_s(monkeypatch):
    """Within Monte-Carlo error: both draw 20,000 times; the ends of two such draws differ by about 0.01 here."""
    generator = np.random.default_rng(5)
    scores = generator.normal([0.0, 3.0, -4.0], [1.0, 0.2, 2.0], size=(6, 3))  # environments that differ
    monkeypatch.setattr(np.random, "choice", np.random.RandomState(1).choice)  # rliable draws from the global one
    _, intervals = library.get_interval_estimates(
        {"a": scores}, lambda values: np.array([rliable_metrics.aggregate_iqm(values)]), reps=20_000
    )
    ours = statistics.bootstrap_interval(scores.T, num_resamples=20_000)
    np.testing.assert_allclose(ours, intervals["a"][:, 0], atol=0.04)
    pooled = statistics.bootstrap_interval([scores.ravel()], num_resamples=20_000)
    assert pooled[1] - pooled[0] > 1.5 * (ours[1] - ours[0])  # so strata matter, and the tolerance would see it


def test_the_interval_of_two_seeds_is_known():
    """Means of two draws from {0, 1}: 0 and 1 with a quarter each, so 2.5 % lie below nothing but 0."""
    low, high = statistics.bootstrap_interval([[0.0, 1.0]], statistics.mean)
    assert (low, high) == (0.0, 1.0)


def test_the_interval_of_many_seeds_is_the_normal_one():
    values = np.random.default_rng(1).normal(size=200)
    low, high = statistics.bootstrap_interval([values], statistics.mean)
    half = 1.96 * values.std() / math.sqrt(200)
    np.testing.assert_allclose([low, high], [values.mean() - half, values.mean() + half], atol=0.01)


def test_ragged_strata_are_resampled_within_themselves():
    """One environment has one seed, and it is in every resample: two thirds of the mean can change."""
    low, high = statistics.bootstrap_interval([[100.0], [0.0, 3.0]], statistics.mean)
    assert (low, high) == (pytest.approx(100.0 / 3.0), pytest.approx(106.0 / 3.0))


def test_single_seeds_have_no_interval():
    assert statistics.bootstrap_interval([[1.0], [5.0]]) is None


def test_an_interval_is_the_same_each_time_and_goes_along_steps():
    values = np.random.default_rng(2).normal(size=(4, 3))
    low, high = statistics.bootstrap_interval([values], statistics.mean, 500)
    again = statistics.bootstrap_interval([values], statistics.mean, 500)
    np.testing.assert_array_equal((low, high), again)
    for i in range(3):
        np.testing.assert_allclose(
            (low[i], high[i]), statistics.bootstrap_interval([values[:, i]], statistics.mean, 500), rtol=1e-12
        )
    assert not np.array_equal(low, statistics.bootstrap_interval([values], statistics.mean, 500, seed=1)[0])


@pytest.mark.parametrize(
    ("value", "wanted"), [(100.0, 50.0), (110.0, 84.134474606854), (90.0, 15.865525393146), (119.6, 97.500210485178)]
)
def test_the_percentile_is_that_of_the_normal_distribution(value, wanted):
    assert statistics.percentile(value, 100.0, 10.0) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize(("value", "wanted"), [(999.0, 0.0), (1000.0, 50.0), (1001.0, 100.0)])
def test_without_spread_the_percentile_is_a_side(value, wanted):
    assert statistics.percentile(value, 1000.0, 0.0) == wanted


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (110.0, "inside"),
        (90.0, "inside"),
        (110.001, "above"),
        (89.999, "below"),
        (math.nan, "not finite"),
        (math.inf, "not finite"),
    ],
)
def test_the_verdict_counts_one_deviation_as_inside(value, wanted):
    assert statistics.verdict(value, 100.0, 10.0) == wanted


def test_the_interval_of_a_mean_is_students():
    """By hand: mean 4, sd 2, t(2 degrees, 97.5 %) = 4.30265, 4.30265 * 2 / sqrt(3) = 4.96828."""
    assert statistics.sample_std([2.0, 4.0, 6.0]) == 2.0
    assert statistics.t_interval([2.0, 4.0, 6.0]) == pytest.approx((4.0 - 4.96828, 4.0 + 4.96828), abs=1e-4)
    assert statistics.t_interval([5.0, 5.0]) == (5.0, 5.0)
    assert statistics.t_interval([5.0]) is statistics.sample_std([5.0]) is None
