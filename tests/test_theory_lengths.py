"""The best length of rollouts, and the length that is recommended."""

import itertools
import math

import numpy as np
import pytest

from mbpo_jax import theory
from penalties import PAIRS, best, branched, continuous, from_data


@pytest.mark.parametrize("discount", [0.5, 0.9, 0.99, 0.999])
@pytest.mark.parametrize(("error", "shift"), [*PAIRS, (0.5, 0.4), (0.0, 0.2), (0.2, 0.0)])
def test_the_best_length_is_the_least_penalty_of_all(error, shift, discount):
    longest = 4000
    penalties = [branched(error, shift, k, discount) for k in range(longest + 1)]
    length = best(error, shift, discount, longest)
    if error == 0.0:  # discount^k is no longer seen beside itself, but it falls for ever
        assert length == longest
        assert penalties[length] == min(penalties)
    else:
        assert length == penalties.index(min(penalties))


@pytest.mark.parametrize("discount", [0.5, 0.9, 0.99, 0.999])
@pytest.mark.parametrize(("error", "shift"), PAIRS)
def test_the_continuous_minimum_lies_below_its_neighbours_and_beside_the_whole_one(error, shift, discount):
    def penalty(k):
        return discount**k * shift / (1 - discount) ** 2 + k * error / (1 - discount)

    found = continuous(error, shift, discount)
    assert penalty(found) < penalty(found + 0.01)
    assert found == 0.0 or penalty(found) < penalty(found - 0.01)
    assert best(error, shift, discount, longest=4000) in (math.floor(found), math.ceil(found))


def test_the_best_length_ties_to_the_smaller():
    # discount 0.5 is exact: eps_m' = 0.5^j eps_pi makes lengths j and j + 1 alike, bit for bit
    for j in range(6):
        assert branched(0.5**j * 0.75, 0.75, j, 0.5) == branched(0.5**j * 0.75, 0.75, j + 1, 0.5)
        assert best(0.5**j * 0.75, 0.75, 0.5) == j
    # where it is not, rounding must not decide
    for discount in (0.9, 0.99, 0.999):
        for j in range(100):
            assert best(discount**j * 0.05, 0.05, discount) == j
    assert best(0.1 * 3, 0.3) == 0
    assert best(0.05 * (1 - 1e-8), 0.05) == 1  # a difference that counts
    assert branched(0.05, 0.05, 0) == pytest.approx(branched(0.05, 0.05, 1), abs=1e-9)


@pytest.mark.parametrize("discount", [0.01, 0.5, 0.99, 0.9999])
def test_a_model_helps_exactly_where_its_error_is_below_the_policy_shift(discount):
    for error in np.linspace(0.0, 1.0, 21).tolist():
        for shift in np.linspace(0.0, 1.0, 21).tolist():
            gains = branched(error, shift, 1, discount) < branched(error, shift, 0, discount) * (1 - 1e-12)
            assert (best(error, shift, discount) > 0) == (error < shift) == gains


def test_an_error_measured_on_data_never_justifies_a_model():
    for discount in (0.1, 0.9, 0.999):
        for error, shift in [*PAIRS, (0.0, 0.5), (1e-6, 1.0), (0.5, 0.1)]:
            penalties = [from_data(error, shift, k, discount) for k in range(300)]
            assert all(later > earlier for earlier, later in itertools.pairwise(penalties))


def test_the_best_length_falls_with_the_model_error_and_grows_with_shift_and_discount():
    errors, shifts, discounts = [0.001 * 1.5**i for i in range(15)], [0.03 * 1.2**i for i in range(15)], [0.9, 0.99]
    by_error = [best(error, 0.3) for error in errors]
    by_shift = [best(0.02, shift) for shift in shifts]
    assert by_error == sorted(set(by_error), reverse=True)
    assert by_shift == sorted(set(by_shift))
    assert best(0.01, 0.05, discounts[0]) < best(0.01, 0.05, discounts[1])


def test_extreme_arguments_give_an_answer():
    assert continuous(0.0, 0.1) == math.inf
    assert continuous(0.1, 0.0) == continuous(0.0, 0.0) == best(0.0, 0.0) == 0
    assert continuous(1.0, 1e-320) == 0.0
    assert best(5e-324, 1.0) == 1000
    assert continuous(5e-324, 1.0, 1e-300) == pytest.approx(744.44 / 690.78 + math.log(690.78) / 690.78, abs=1e-3)
    assert branched(0.0, 1.0, 10**6) == 0.0
    assert best(0.5, 1.0, 1 - 2**-50, longest=2**62) == pytest.approx(math.log(2) * 2**50, rel=1e-9)


# The recommendation.


def test_the_recommendation_by_hand():
    # eps_m' = 0.006 + 0.05 * 0.08 = 0.01; TV from KL: sqrt(0.005 / 2) = 0.05
    measured = {"model_error": 0.006, "slope": 0.08, "discount": 0.99, "longest": 1000}
    advice = theory.recommend_length(**measured, policy_shift=0.05)
    assert advice.rollout_length == 161
    assert advice.model_helps is True
    assert advice.penalty == pytest.approx(1000 * 0.99**161 + 2 * 161)
    assert advice.penalty_without_model == pytest.approx(1000)
    assert advice.penalty_one_step == pytest.approx(992)
    assert advice.model_error == pytest.approx(0.01)
    assert advice.policy_shift == 0.05
    assert theory.recommend_length(**measured, policy_kl=0.005) == pytest.approx(advice)
    short = theory.recommend_length(**measured | {"longest": 15}, policy_shift=0.05)
    assert short.rollout_length == 15
    assert short.penalty == pytest.approx(890.058354)


def test_a_steep_model_is_not_worth_using():
    # worth it exactly where eps_m < eps_pi (1 - slope): 0.02 < 0.05 (1 - slope) up to a slope of 0.6
    def advice(slope):
        return theory.recommend_length(model_error=0.02, slope=slope, policy_shift=0.05, discount=0.99, longest=1000)

    assert advice(0.59).model_helps
    assert not advice(0.61).model_helps
    useless = advice(0.61)
    assert useless.rollout_length == 0
    assert useless.penalty == useless.penalty_without_model < useless.penalty_one_step
