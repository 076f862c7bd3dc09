"""Bounds on differences between returns.

References: Janner et al. 2019 (MBPO), appendices A and B; Lai et al. 2020 (BMPO).
"""

import math
from typing import NamedTuple

from mbpo_jax.theory.distances import check_count, check_distances


class StepErrors(NamedTuple):
    """Distances between two pairs of dynamics and policy in a single step."""

    model_error: float
    policy_shift: float


def returns_gap(*, model_error: float, policy_shift: float, discount: float, max_reward: float = 1.0) -> float:
    """Bounds the difference between the returns of two policies in two dynamics.

    Args:
      model_error: between the dynamics, over the states and actions of the first policy in the first dynamics.
      policy_shift: between the policies.
    References: Janner et al. 2019, Lemma B.3.
    """
    check(model_error, policy_shift, discount, max_reward)
    horizon = 1.0 / (1.0 - discount)
    return 2.0 * max_reward * horizon * (discount * horizon * (model_error + policy_shift) + policy_shift)


def branched_returns_gap(
    *, pre: StepErrors, post: StepErrors, rollout_length: int, discount: float, max_reward: float = 1.0
) -> float:
    """Bounds the difference between the returns of two branched processes.

    A branched process reaches its state at time t by t - k steps of one pair of dynamics and policy, then k steps of
    another (t steps of the latter where t < k). Its return is the discounted sum of rewards over t. Either policy may
    take the last action.

    Args:
      pre: errors of the steps before the branch point.
      post: errors of the steps after it.
      rollout_length: k >= 0.
    References: Janner et al. 2019, Lemma B.4.
    """
    for side, errors in (("pre", pre), ("post", post)):
        check_distances(**{f"{side}.{name}": value for name, value in errors._asdict().items()})
    check(0.0, 0.0, discount, max_reward, rollout_length=rollout_length)
    horizon = 1.0 / (1.0 - discount)
    before = discount**rollout_length * (discount * horizon * (pre.model_error + pre.policy_shift) + pre.policy_shift)
    after = rollout_length * (post.model_error + post.policy_shift) + post.policy_shift
    return 2.0 * max_reward * horizon * (before + after)


def full_rollout_penalty(*, model_error: float, policy_shift: float, discount: float, max_reward: float = 1.0) -> float:
    """Returns the penalty of rollouts that start with the task and never leave the model.

    Args:
      model_error: eps_m, under the data policy.
    References: Janner et al. 2019, Theorem A.1 (4.1 in the main text).
    """
    check(model_error, policy_shift, discount, max_reward)
    horizon = 1.0 / (1.0 - discount)
    return max_reward * horizon * (2.0 * discount * horizon * (model_error + 2.0 * policy_shift) + 4.0 * policy_shift)


def branched_penalty(
    *, model_error: float, policy_shift: float, rollout_length: int, discount: float, max_reward: float = 1.0
) -> float:
    """Returns the penalty of branched rollouts, given the model's error under the current policy.

    Args:
      model_error: eps_m', under the current policy; `current_model_error` extrapolates it.
      rollout_length: k >= 0; at 0 the model is not used, and the penalty is that of the data policy's own return.
    References: Janner et al. 2019, Theorem A.2 (4.3 in the main text). Its two terms of the policy shift are one:
      gamma^(k+1) / (1 - gamma)^2 + gamma^k / (1 - gamma) = gamma^k / (1 - gamma)^2.
    """
    check(model_error, policy_shift, discount, max_reward, rollout_length=rollout_length)
    return _branched(model_error, policy_shift, rollout_length, rollout_length, discount, max_reward)


def branched_penalty_from_data(
    *, model_error: float, policy_shift: float, rollout_length: int, discount: float, max_reward: float = 1.0
) -> float:
    """Returns the penalty of branched rollouts, given the model's error under the data policy.

    It never decreases with the length, so the best length is 0: an error measured on the data alone cannot justify
    using a model.

    Args:
      model_error: eps_m, under the data policy.
      rollout_length: k >= 0.
    References: Janner et al. 2019, Theorem A.3 (4.2 in the main text).
    """
    check(model_error, policy_shift, discount, max_reward, rollout_length=rollout_length)
    step_error = model_error + 2.0 * policy_shift
    branched = _branched(step_error, policy_shift, rollout_length, rollout_length, discount, max_reward)
    return branched + 4.0 * max_reward * policy_shift / (1.0 - discount)


def bidirectional_penalty(
    *,
    model_error: float,
    policy_shift: float,
    backward_length: int,
    forward_length: int,
    discount: float,
    max_reward: float = 1.0,
) -> float:
    """Returns the penalty of rollouts that go backward and forward in time from the branch point.

    Errors compound from the branch point in each direction, so only the longer direction counts. A forward rollout of
    the same total length (`branched_penalty`) pays for every step.

    Args:
      model_error: of the worse of the two models, under the current policy.
      backward_length: k1 >= 0.
      forward_length: k2 >= 0.
    References: Lai et al. 2020 (BMPO), the upper bound on the return discrepancy.
    """
    lengths = {"backward_length": backward_length, "forward_length": forward_length}
    check(model_error, policy_shift, discount, max_reward, **lengths)
    total, longer = backward_length + forward_length, max(backward_length, forward_length)
    return _branched(model_error, policy_shift, total, longer, discount, max_reward)


def _branched(
    step_error: float, policy_shift: float, power: int, model_steps: int, discount: float, max_reward: float
) -> float:
    """Returns 2 r_max (gamma^power eps_pi / (1 - gamma)^2 + model_steps step_error / (1 - gamma))."""
    horizon = 1.0 / (1.0 - discount)
    return 2.0 * max_reward * horizon * (discount**power * horizon * policy_shift + model_steps * step_error)


def check(model_error: float, policy_shift: float, discount: float, max_reward: float = 1.0, **lengths: int) -> None:
    """Raises ValueError unless all arguments of a bound are in range; `lengths` are rollout lengths by name."""
    check_distances(model_error=model_error, policy_shift=policy_shift)
    if not 0.0 < discount < 1.0:
        raise ValueError(f"discount must lie in (0, 1), got {discount!r}")
    if not 0.0 <= max_reward < math.inf:
        raise ValueError(f"max_reward must be finite and 0 or more, got {max_reward!r}")
    for name, value in lengths.items():
        check_count(name, value)
