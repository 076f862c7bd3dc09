import math

import pytest

from mbpo_jax.number_text import short


@pytest.mark.parametrize(
    ("value", "text"),
    [(1000.0, "1000.0"), (-57.25, "-57.2"), (1.0, "1.0"), (0.0, "0.0"), (-0.00023456, "-0.000235"), (0.4, "0.4")],
)
def test_a_small_number_is_not_rounded_away(value, text):
    assert short(value) == text


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_said(value):
    assert short(value) == str(value)
