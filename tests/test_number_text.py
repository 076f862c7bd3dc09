import math

import pytest

from mbpo_jax.number_text import short, whole


@pytest.mark.parametrize(
    ("value", "text"),
    [(1000.0, "1000.0"), (-57.25, "-57.2"), (1.0, "1.0"), (0.0, "0.0"), (-0.00023456, "-0.000235"), (0.4, "0.4")],
)
def test_a_small_number_is_not_rounded_away(value, text):
    assert short(value) == text


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_said(value):
    assert short(value) == str(value)


def test_a_deviation_has_the_decimals_of_its_mean():
    assert short(0.748, beside=14.8) == "0.7"
    assert short(0.000123456, beside=-0.0078) == "0.000123"
    assert short(12.0, beside=0.5) == "12"


@pytest.mark.parametrize(
    ("value", "text"),
    [(3122.4, "3122"), (-57.25, "-57"), (9.96, "10"), (9.94, "9.9"), (-0.27, "-0.27"), (-0.00023456, "-0.00023")],
)
def test_a_report_rounds_to_whole_numbers_those_that_stay_what_they_are(value, text):
    assert whole(value) == text
    assert [whole(0.0), whole(math.nan), whole(-math.inf)] == ["0", "nan", "-inf"]
