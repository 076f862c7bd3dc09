"""The bounds by hand, how they follow from each other, and what arguments they refuse."""

import inspect
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mbpo_jax import theory
from mbpo_jax.theory import StepErrors
from penalties import best, branched, from_data

DOCS = Path(__file__).parents[1] / "docs" / "theory.md"


# Hand-worked numbers: discount 0.99, so 1 / (1 - discount) is 100 and its square 10,000.


def test_hand_worked_gaps():
    # 2 (0.99 * 10,000 * 0.15 + 100 * 0.05) = 2 (1485 + 5)
    assert theory.returns_gap(model_error=0.1, policy_shift=0.05, discount=0.99) == pytest.approx(2980)
    # 2 (0.99 * 10,000 * 0.2) + 4 * 100 * 0.05 = 3960 + 20
    assert theory.full_rollout_penalty(model_error=0.1, policy_shift=0.05, discount=0.99) == pytest.approx(3980)
    gap = theory.branched_returns_gap(
        pre=StepErrors(0.01, 0.02), post=StepErrors(0.03, 0.04), rollout_length=5, discount=0.99
    )
    # 2 (0.94148015 * 300 + 500 * 0.07 + 0.95099005 * 2 + 4)
    assert gap == pytest.approx(646.692050, abs=1e-6)


@pytest.mark.parametrize(
    ("k", "current", "data"),
    [(0, 1000, 1020), (1, 992, 1032), (5, 960.990050, 1080.990050), (15, 890.058354, 1210.058355)],
)
def test_hand_worked_penalties(k, current, data):
    assert branched(0.01, 0.05, k) == pytest.approx(current, abs=1.5e-6)
    assert from_data(0.01, 0.05, k) == pytest.approx(data, abs=1.5e-6)


def test_hand_worked_bidirectional_penalty():
    both = theory.bidirectional_penalty(
        model_error=0.01, policy_shift=0.05, backward_length=3, forward_length=5, discount=0.99
    )
    assert both == pytest.approx(932.744694, abs=1e-6)  # 0.99^8 * 1000 + 2 * 5 * 0.01 * 100
    assert branched(0.01, 0.05, 8) == pytest.approx(938.744694, abs=1e-6)  # the same with 8 for 5


@pytest.mark.parametrize(
    ("model_error", "policy_shift", "length"),
    [(0.01, 0.05, 161), (0.04, 0.05, 23), (0.05, 0.05, 0), (0.001, 0.05, 390), (0.06, 0.05, 0)],
)
def test_hand_worked_best_lengths(model_error, policy_shift, length):
    assert best(model_error, policy_shift) == length


def test_distances_of_divergences_by_hand():
    assert [theory.distance_of_kl(kl) for kl in (0.0, 0.02, 0.5, math.inf)] == [0.0, 0.1, 0.5, 1.0]  # sqrt(kl / 2)
    assert theory.distance_of_kl(math.log(4.0)) == pytest.approx(math.sqrt(math.log(2.0)))  # sqrt(3 / 4) is more
    assert theory.distance_of_kl(math.log(100.0)) == pytest.approx(math.sqrt(0.99))  # sqrt(1 - 1 / 100)


def test_the_current_model_error_is_a_line_within_the_unit_interval():
    def error(slope):
        return theory.current_model_error(model_error=0.1, slope=slope, policy_shift=0.2)

    assert [error(slope) for slope in (0.0, 0.5, -0.25)] == pytest.approx([0.1, 0.2, 0.05])
    assert [error(slope) for slope in (100.0, -100.0)] == [1.0, 0.0]


# How the statements follow from each other.


@pytest.mark.parametrize("k", [0, 1, 7, 300])
@pytest.mark.parametrize("discount", [0.5, 0.99])
def test_the_theorems_are_sums_of_the_lemmas(k, discount):
    def gap(pre, post):
        return theory.branched_returns_gap(
            pre=StepErrors(*pre), post=StepErrors(*post), rollout_length=k, discount=discount, max_reward=3.0
        )

    error, shift = 0.02, 0.05
    assert branched(error, shift, k, discount, max_reward=3.0) == pytest.approx(gap((0, shift), (error, 0)))
    detours = gap((0, shift), (0, 0)) + gap((0, 0), (0, shift)) + gap((0, 0), (error, shift))
    assert from_data(error, shift, k, discount, max_reward=3.0) == pytest.approx(detours)
    by_lemma_b3 = [
        theory.returns_gap(model_error=e, policy_shift=shift, discount=discount, max_reward=3.0) for e in (0.0, error)
    ]
    full = theory.full_rollout_penalty(model_error=error, policy_shift=shift, discount=discount, max_reward=3.0)
    assert full == pytest.approx(sum(by_lemma_b3))


@pytest.mark.parametrize("k", [0, 1, 5, 40])
def test_the_two_terms_of_the_policy_shift_are_one(k):
    for discount in (0.3, 0.9, 0.999):
        printed = 2 * (
            discount ** (k + 1) * 0.05 / (1 - discount) ** 2
            + discount**k * 0.05 / (1 - discount)
            + k * 0.01 / (1 - discount)
        )
        assert branched(0.01, 0.05, k, discount) == pytest.approx(printed, rel=1e-11)


def test_without_a_branch_only_the_data_policy_is_left():
    for error in (0.0, 0.3, 1.0):
        plain = theory.returns_gap(model_error=0.0, policy_shift=0.05, discount=0.99)
        assert branched(error, 0.05, 0) == pytest.approx(plain)


@pytest.mark.parametrize(("backward", "forward"), [(0, 4), (4, 0), (1, 1), (3, 5), (5, 3), (9, 1)])
def test_the_bidirectional_penalty_lies_below_the_forward_one_of_the_same_length(backward, forward):
    def both(first, second):
        return theory.bidirectional_penalty(
            model_error=0.01, policy_shift=0.05, backward_length=first, forward_length=second, discount=0.99
        )

    saved = 2 * min(backward, forward) * 0.01 * 100
    assert both(backward, forward) == pytest.approx(branched(0.01, 0.05, backward + forward) - saved)
    assert both(backward, forward) == both(forward, backward)


@pytest.mark.parametrize("argument", ["model_error", "policy_shift", "max_reward", "discount"])
def test_every_penalty_grows_with_each_error_the_reward_and_the_discount(argument):
    base = {"model_error": 0.1, "policy_shift": 0.2, "max_reward": 2.0, "discount": 0.9}
    more = base | {argument: base[argument] * 1.05}
    for penalty, lengths in [
        (theory.returns_gap, {}),
        (theory.full_rollout_penalty, {}),
        (theory.branched_penalty, {"rollout_length": 3}),
        (theory.branched_penalty_from_data, {"rollout_length": 3}),
        (theory.bidirectional_penalty, {"backward_length": 2, "forward_length": 3}),
    ]:
        low, high = penalty(**base, **lengths), penalty(**more, **lengths)
        assert high > low
        if argument == "max_reward":
            assert high == pytest.approx(1.05 * low)


# What is refused.

GOOD = {"model_error": 0.1, "policy_shift": 0.2, "discount": 0.9}
LENGTH = {"rollout_length": 3}
ONE_SIDE = {"pre": StepErrors(0.1, 0.1), "post": StepErrors(0.1, 0.1), "discount": 0.9, **LENGTH}
MEASURED = {**GOOD, "slope": 0.1, "longest": 10}


@pytest.mark.parametrize(
    ("function", "good"),
    [
        (theory.returns_gap, GOOD),
        (theory.full_rollout_penalty, GOOD),
        (theory.branched_penalty, GOOD | LENGTH),
        (theory.branched_penalty_from_data, GOOD | LENGTH),
        (theory.bidirectional_penalty, GOOD | {"backward_length": 1, "forward_length": 2}),
        (theory.branched_returns_gap, ONE_SIDE),
        (theory.current_model_error, {"model_error": 0.1, "policy_shift": 0.2, "slope": 0.3}),
        (theory.state_distance, {"step_distance": 0.1, "steps": 3}),
        (theory.best_length_continuous, GOOD),
        (theory.best_length, GOOD | {"longest": 5}),
        (theory.recommend_length, MEASURED),
    ],
)
def test_every_argument_outside_its_range_is_named(function, good):
    wrong = {
        "model_error": (-0.1, 1.1, math.nan),
        "policy_shift": (-0.1, 1.1, math.nan),
        "step_distance": (-0.1, 1.1, math.nan),
        "discount": (0.0, 1.0, -0.5, 1.5, math.nan),
        "rollout_length": (-1, 1.5, 2.0, math.nan),
        "backward_length": (-1, 1.5),
        "forward_length": (-1, 1.5),
        "steps": (-1, 0.5),
        "longest": (-1, 2.5),
        "slope": (math.nan, math.inf),
    }
    function(**good)
    for name in good.keys() - {"pre", "post"}:
        for value in wrong[name]:
            with pytest.raises(ValueError, match=rf"^{name} must .*got {re.escape(repr(value))}$"):
                function(**good | {name: value})
    for side in good.keys() & {"pre", "post"}:
        for name in StepErrors._fields:
            with pytest.raises(ValueError, match=rf"^{side}\.{name} must .*got 1\.1$"):
                function(**good | {side: good[side]._replace(**{name: 1.1})})
    if "max_reward" in inspect.signature(function).parameters:
        for value in (-1.0, math.inf, math.nan):
            with pytest.raises(ValueError, match=r"^max_reward must"):
                function(**good, max_reward=value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policy_shift": None}, "policy_shift or policy_kl must be given, not both, got None and None"),
        ({"policy_kl": 0.1}, "policy_shift or policy_kl must be given, not both, got 0.2 and 0.1"),
        ({"policy_shift": None, "policy_kl": -0.1}, "kl must be a divergence in nats, 0 or more, got -0.1"),
        ({"policy_shift": None, "policy_kl": math.nan}, "kl must be a divergence in nats, 0 or more, got nan"),
        ({"longest": 0}, "longest must be a whole number, 1 or more, got 0"),
    ],
)
def test_a_recommendation_needs_one_shift_and_a_length_to_consider(changes, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        theory.recommend_length(**MEASURED | changes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"marginal": 1.5, "conditionals": [0.1]}, "marginal must"),
        ({"marginal": 0.1, "conditionals": [0.1, math.nan]}, r"conditionals\[1\] must"),
        ({"marginal": 0.1, "conditionals": []}, "conditionals must hold"),
        ({"marginal": 0.1, "conditionals": [0.1, 0.2], "probabilities": [1.0]}, "probabilities must be 2"),
        ({"marginal": 0.1, "conditionals": [0.1, 0.2], "probabilities": [0.5, 0.4]}, "probabilities must be 2"),
        ({"marginal": 0.1, "conditionals": [0.1, 0.2], "probabilities": [1.5, -0.5]}, "probabilities must be 2"),
        ({"marginal": 0.1, "conditionals": [0.1], "probabilities": [math.nan]}, "probabilities must be 1"),
    ],
)
def test_what_is_no_table_of_distances_is_refused(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        theory.joint_distance(**arguments)


def test_the_example_of_the_documentation_prints_what_it_says():
    example, printed = re.search(r"```python\n(.*?)```\n\n.*?```\n(.*?)```", DOCS.read_text(), re.DOTALL).groups()
    run = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout == printed
