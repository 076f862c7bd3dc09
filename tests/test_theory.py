import inspect
import itertools
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mbpo_jax import theory
from mbpo_jax.theory import StepErrors

DOCS = Path(__file__).parents[1] / "docs" / "theory.md"
PAIRS = [(0.01, 0.05), (0.04, 0.05), (0.049, 0.05), (0.001, 0.05), (0.3, 1.0), (0.02, 0.021)]  # model error < shift
KINDS = ["pre.model_error", "pre.policy_shift", "post.model_error", "post.policy_shift"]


def branched(model_error, policy_shift, k, discount=0.99, **more):
    return theory.branched_penalty(
        model_error=model_error, policy_shift=policy_shift, rollout_length=k, discount=discount, **more
    )


def from_data(model_error, policy_shift, k, discount=0.99, **more):
    return theory.branched_penalty_from_data(
        model_error=model_error, policy_shift=policy_shift, rollout_length=k, discount=discount, **more
    )


def best(model_error, policy_shift, discount=0.99, longest=1000):
    return theory.best_length(model_error=model_error, policy_shift=policy_shift, discount=discount, longest=longest)


def continuous(model_error, policy_shift, discount=0.99):
    return theory.best_length_continuous(model_error=model_error, policy_shift=policy_shift, discount=discount)


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


def test_the_distance_of_a_divergence_holds_for_random_distributions():
    generator = np.random.default_rng(0)
    for concentration in (0.1, 1.0, 30.0):
        first, second = generator.dirichlet(np.full(4, concentration), size=(2, 500)) + 1e-12
        kl = (first * np.log(first / second)).sum(axis=-1)
        assert all(theory.distance_of_kl(max(d, 0.0)) >= tv - 1e-9 for d, tv in zip(kl, distance(first, second)))


def test_the_current_model_error_is_a_line_within_the_unit_interval():
    def error(slope):
        return theory.current_model_error(model_error=0.1, slope=slope, policy_shift=0.2)

    assert [error(slope) for slope in (0.0, 0.5, -0.25)] == pytest.approx([0.1, 0.2, 0.05])
    assert [error(slope) for slope in (100.0, -100.0)] == [1.0, 0.0]


# Exact values on small tables: the bounds hold, and where an instance is known they are met.


def distance(first, second):
    """[..., S] and [..., S] -> [...]"""
    return 0.5 * np.abs(np.asarray(first) - np.asarray(second)).sum(axis=-1)


def policies(generator, shift, num_states=4, num_actions=3):
    """[S, A] twice, about `shift` apart."""
    first, other = generator.dirichlet(np.ones(num_actions), size=(2, num_states))
    return first, (1 - shift) * first + shift * other


def dynamics(generator, error, num_states=4, num_actions=3):
    """[S, A, S] twice, about `error` apart."""
    first, other = generator.dirichlet(np.full(num_states, 0.5), size=(2, num_states, num_actions))
    return first, (1 - error) * first + error * other


def chain(policy, step):
    """[S, A] and [S, A, S] -> [S, S]"""
    return np.einsum("sa,sat->st", policy, step)


def marginals(start, matrix, horizon):
    """[S] and [S, S] -> [T, S]"""
    states = [start]
    for _ in range(horizon - 1):
        states.append(states[-1] @ matrix)
    return np.array(states)


def horizon_of(discount):
    return math.ceil(40 / (1 - discount))  # discount^T < 1e-17


def branched_return(start, reward, pre, post, length, discount, last="post"):
    """t - k steps of `pre` (policy, dynamics), k of `post` and a last action: the sum over t of discount^t reward."""
    before = marginals(start, chain(*pre), horizon_of(discount))
    total, after = 0.0, np.linalg.matrix_power(chain(*post), length)
    for t in range(len(before)):
        if t < length:
            states, action = start @ np.linalg.matrix_power(chain(*post), t), post[0]
        else:
            states, action = before[t - length] @ after, {"pre": pre[0], "post": post[0]}[last]
        total += discount**t * np.einsum("s,sa,sa->", states, action, reward)
    return total


def exact_return(start, reward, policy, step, discount):
    matrix = np.eye(len(start)) - discount * chain(policy, step)
    return start @ np.linalg.solve(matrix, (policy * reward).sum(axis=1))


def model_error(start, policy, step, other, discount):
    """The largest over time of the mean distance under `policy` in `step`."""
    apart = (policy * distance(step, other)).sum(axis=1)
    return (marginals(start, chain(policy, step), horizon_of(discount)) @ apart).max()


def small_mdps():
    """(start, reward, data policy, policy, dynamics, model): errors of all sizes, and rewards that reach 1."""
    generator = np.random.default_rng(3)
    for size in (1e-3, 0.03, 0.3, 1.0):
        for _ in range(6):
            data_policy, policy = policies(generator, size * generator.uniform())
            step, model = dynamics(generator, size * generator.uniform())
            reward = np.sign(generator.normal(size=policy.shape))
            yield generator.dirichlet(np.ones(4)), reward, data_policy, policy, step, model


def leaving(errors):
    """A world with a good and a bad state and action, in which each error costs as much as it can.

    The true policy takes action 0 and the true dynamics stay in state 0, the only pair that is rewarded with 1 and not
    -1. The other dynamics leave state 0 with probability `errors.model_error`, action 1 always leaves it, and the other
    policy takes it with probability `errors.policy_shift`; nothing comes back.
    """
    policy = np.array([[1 - errors.policy_shift, errors.policy_shift], [1.0, 0.0]])
    step = np.zeros((2, 2, 2))
    step[0, 0] = [1 - errors.model_error, errors.model_error]
    step[0, 1] = step[1, :] = [0.0, 1.0]
    return policy, step


START, REWARD = np.array([1.0, 0.0]), np.array([[1.0, -1.0], [-1.0, -1.0]])


def test_lemma_b1_holds_for_random_tables_in_both_forms():
    generator = np.random.default_rng(1)
    for concentration in (0.2, 1.0, 5.0):
        for _ in range(200):
            (first, second) = generator.dirichlet(np.full(12, concentration), size=2).reshape(2, 3, 4) + 1e-9
            first, second = first / first.sum(), second / second.sum()
            marginal = distance(first.sum(axis=1), second.sum(axis=1))
            conditionals = distance(
                first / first.sum(axis=1, keepdims=True), second / second.sum(axis=1, keepdims=True)
            )
            joint = distance(first.ravel(), second.ravel())
            loose = theory.joint_distance(marginal=marginal, conditionals=list(conditionals))
            tight = theory.joint_distance(
                marginal=marginal, conditionals=list(conditionals), probabilities=list(first.sum(axis=1))
            )
            assert joint <= tight + 1e-12
            assert tight < loose


def test_lemma_b1_is_met_where_only_marginals_or_only_conditionals_differ():
    # p1(x) = (0.3, 0.7); the conditionals are (0.5, 0.5) against (1, 0), and alike: 0.3 * 0.5 in all
    met = theory.joint_distance(marginal=0.0, conditionals=[0.5, 0.0], probabilities=[0.3, 0.7])
    assert met == pytest.approx(distance([0.15, 0.15, 0.7], [0.3, 0.0, 0.7]))
    assert met == pytest.approx(0.15)
    assert theory.joint_distance(marginal=0.0, conditionals=[0.5, 0.0]) == 0.5
    assert theory.joint_distance(marginal=0.25, conditionals=[0.0, 0.0], probabilities=[0.3, 0.7]) == 0.25
    assert theory.joint_distance(marginal=0.25, conditionals=[0.125, 0.0]) == 0.375


def test_lemma_b2_holds_for_random_chains():
    generator = np.random.default_rng(2)
    for size in (0.01, 0.2, 1.0):
        for _ in range(20):
            first, other = generator.dirichlet(np.ones(4), size=(2, 4))
            second = (1 - size) * first + size * other
            start = generator.dirichlet(np.ones(4))
            states = marginals(start, first, 30)
            step_distance = (states @ distance(first, second)).max()
            apart = distance(states, marginals(start, second, 30))
            for t in range(30):
                assert apart[t] <= theory.state_distance(step_distance=step_distance, steps=t) + 1e-12


def test_lemma_b2_is_met_by_a_chain_that_leaves_and_never_returns():
    stays, leaves = np.eye(2), np.array([[1 - 1e-6, 1e-6], [0.0, 1.0]])
    apart = distance(marginals(START, stays, 10), marginals(START, leaves, 10))
    for t in range(10):
        assert apart[t] == pytest.approx(theory.state_distance(step_distance=1e-6, steps=t), rel=1e-5)


@pytest.mark.parametrize("discount", [0.3, 0.9])
def test_lemma_b3_and_theorem_a1_hold_for_random_mdps(discount):
    for start, reward, data_policy, policy, step, model in small_mdps():
        shift = distance(data_policy, policy).max()
        error = model_error(start, data_policy, step, model, discount)
        real, collected, imagined = (
            exact_return(start, reward, *pair, discount)
            for pair in [(policy, step), (data_policy, step), (policy, model)]
        )
        gap = theory.returns_gap(model_error=error, policy_shift=shift, discount=discount)
        assert abs(collected - imagined) <= gap + 1e-9
        penalty = theory.full_rollout_penalty(model_error=error, policy_shift=shift, discount=discount)
        assert abs(real - imagined) <= penalty + 1e-9


@pytest.mark.parametrize("errors", [StepErrors(1e-7, 0.0), StepErrors(0.0, 1e-7), StepErrors(2e-7, 1e-7)])
@pytest.mark.parametrize("discount", [0.5, 0.9, 0.99])
def test_lemma_b3_is_met_to_first_order_by_a_world_that_is_left(errors, discount):
    lost = 1 / (1 - discount) - exact_return(START, REWARD, *leaving(errors), discount)
    assert lost > 0
    assert lost == pytest.approx(theory.returns_gap(**errors._asdict(), discount=discount), rel=1e-3)


def test_lemma_b3_does_not_cover_a_learned_reward():
    # The step that leaves, with probability 1e-7, is given the reward -1 at once: one discount less than the gap has.
    policy, step = leaving(StepErrors(1e-7, 0.0))
    reward = REWARD + np.array([[-2e-7, 0.0], [0.0, 0.0]])
    lost = 1 / (1 - 0.9) - exact_return(START, reward, policy, step, 0.9)
    gap = theory.returns_gap(model_error=1e-7, policy_shift=0.0, discount=0.9)
    assert lost == pytest.approx(gap / 0.9, rel=1e-4)


@pytest.mark.parametrize("last", ["pre", "post"])
@pytest.mark.parametrize("length", [0, 1, 3, 10])
def test_the_branched_bounds_hold_for_random_mdps(length, last):
    discount, generator = 0.8, np.random.default_rng(4)
    for start, reward, data_policy, policy, step, model in small_mdps():
        scale = {"rollout_length": length, "discount": discount}
        shift = distance(data_policy, policy).max()
        current = model_error(start, policy, step, model, discount)
        real = exact_return(start, reward, policy, step, discount)

        # Lemma B.4 with errors everywhere: the policy in the world, against the data policy in another one and then
        # a third policy in the model
        another, third = dynamics(generator, 0.3)[1], policies(generator, 0.3)[1]
        everywhere = branched_return(start, reward, (data_policy, another), (third, model), length, discount, last)
        gap = theory.branched_returns_gap(
            pre=StepErrors(model_error(start, policy, step, another, discount), shift),
            post=StepErrors(current, distance(policy, third).max()),
            **scale,
        )
        assert abs(real - everywhere) <= gap + 1e-9

        # Theorems A.2 and A.3: the data policy in the world, then the policy in the model
        imagined = branched_return(start, reward, (data_policy, step), (policy, model), length, discount, last)
        penalty = theory.branched_penalty(model_error=current, policy_shift=shift, **scale)
        assert abs(real - imagined) <= penalty + 1e-9
        on_data = model_error(start, data_policy, step, model, discount)
        penalty = theory.branched_penalty_from_data(model_error=on_data, policy_shift=shift, **scale)
        assert abs(real - imagined) <= penalty + 1e-9


@pytest.mark.parametrize("length", [0, 2, 7])
@pytest.mark.parametrize("kind", KINDS)
def test_each_term_of_lemma_b4_is_met_by_a_world_that_is_left(kind, length):
    discount, none = 0.998, StepErrors(0.0, 0.0)
    side, name = kind.split(".")
    errors = {"pre": none, "post": none} | {side: none._replace(**{name: 1e-8})}
    pre, post = leaving(errors["pre"]), leaving(errors["post"])
    lost = 1 / (1 - discount) - branched_return(START, REWARD, pre, post, length, discount, last=side)
    gap = theory.branched_returns_gap(**errors, rollout_length=length, discount=discount)
    assert lost <= gap * (1 + 1e-6) + 1e-9
    # Steps after the branch are all counted as k by the lemma, t < k or not: (1 - discount) k / 2 too many.
    assert lost == pytest.approx(gap, rel=0.01, abs=1e-9)
    assert (gap > 0) == (length > 0 or kind != "post.model_error")


def test_theorem_a2_is_met_to_first_order_by_a_world_that_is_left():
    # The current policy is the perfect one; the data policy errs before the branch and takes the last action.
    discount, length = 0.998, 4
    pre, post = leaving(StepErrors(0.0, 1e-8)), leaving(StepErrors(3e-8, 0.0))
    lost = 1 / (1 - discount) - branched_return(START, REWARD, pre, post, length, discount, last="pre")
    assert lost == pytest.approx(branched(3e-8, 1e-8, length, discount), rel=1e-3)


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


# The best length.


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
