"""Exact values on small tables: the bounds hold, and where an instance is known they are met."""

import math

import numpy as np
import pytest

from mbpo_jax import theory
from mbpo_jax.theory import StepErrors
from penalties import branched

KINDS = ["pre.model_error", "pre.policy_shift", "post.model_error", "post.policy_shift"]


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


def test_the_distance_of_a_divergence_holds_for_random_distributions():
    generator = np.random.default_rng(0)
    for concentration in (0.1, 1.0, 30.0):
        first, second = generator.dirichlet(np.full(4, concentration), size=(2, 500)) + 1e-12
        kl = (first * np.log(first / second)).sum(axis=-1)
        assert all(theory.distance_of_kl(max(d, 0.0)) >= tv - 1e-9 for d, tv in zip(kl, distance(first, second)))


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
