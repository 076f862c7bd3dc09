"""The rollout length that makes the bound on the return best.

References: Janner et al. 2019 (MBPO), section 4.3 and Theorem A.2.
"""

import math
from typing import NamedTuple

from mbpo_jax.theory.bounds import branched_penalty, check
from mbpo_jax.theory.distances import check_count, check_distances, distance_of_kl

TIE_STEPS = 1e-9  # a best length this close above a whole number is that number: beyond what double precision can tell


class Recommendation(NamedTuple):
    """The answer of `recommend_length`; penalties are in units of `max_reward`."""

    rollout_length: int
    model_helps: bool  # whether any use of the model lowers the penalty: rollout_length > 0
    penalty: float  # at rollout_length
    penalty_without_model: float  # at length 0
    penalty_one_step: float  # at length 1
    model_error: float  # under the current policy, as extrapolated
    policy_shift: float


def current_model_error(*, model_error: float, slope: float, policy_shift: float) -> float:
    """Extrapolates the model's error to a policy that has moved away from its data.

    The result is eps_m + policy_shift * slope, clipped to [0, 1].

    Args:
      model_error: eps_m, under the data policy.
      slope: derivative of the model's error with respect to the policy shift, at a shift of zero; may be negative.
    References: Janner et al. 2019, section 4.3. The clipping is ours: a distance cannot leave [0, 1], a line can.
    """
    check_distances(model_error=model_error, policy_shift=policy_shift)
    if not math.isfinite(slope):
        raise ValueError(f"slope must be a finite number, got {slope!r}")
    return min(1.0, max(0.0, model_error + policy_shift * slope))


def best_length_continuous(*, model_error: float, policy_shift: float, discount: float) -> float:
    """Returns the real k >= 0 that minimises `branched_penalty`, read as a function of real k.

    The derivative is zero where gamma^k = eps_m' (1 - gamma) / (-eps_pi ln gamma).

    Returns:
      0 where there is no policy shift; infinity where there is one and the model is exact.
    """
    check(model_error, policy_shift, discount)
    if policy_shift == 0.0:
        return 0.0
    if model_error == 0.0:
        return math.inf
    log_discount = math.log(discount)
    log_power = math.log(model_error / policy_shift) + math.log((1.0 - discount) / -log_discount)
    return max(0.0, log_power / log_discount)


def best_length(*, model_error: float, policy_shift: float, discount: float, longest: int) -> int:
    """Returns the whole k in 0 ... longest that minimises `branched_penalty`; of two equal ones, the smaller.

    One more step pays while gamma^k eps_pi > eps_m'. So k > 0 exactly where the model's error under the current policy
    is less than the policy shift, and lengths j and j + 1 tie where eps_m' = gamma^j eps_pi, to within 1e-9 of a step.

    Args:
      longest: the longest length considered, >= 0; the answer where the model is exact.
    """
    check(model_error, policy_shift, discount, longest=longest)
    if model_error >= policy_shift:
        return 0
    if model_error == 0.0:
        return longest
    steps = math.log(model_error / policy_shift) / math.log(discount)
    return min(longest, math.ceil(steps - TIE_STEPS))


def recommend_length(
    *,
    model_error: float,
    slope: float,
    policy_shift: float | None = None,
    policy_kl: float | None = None,
    discount: float,
    longest: int,
) -> Recommendation:
    """Returns the rollout length that Theorem A.2 recommends for measured errors.

    Args:
      model_error: eps_m, on states and actions of the data policy.
      slope: derivative of the model's error with respect to the policy shift (a total variation distance), at a shift
        of zero.
      policy_shift: as a total variation distance; either this or `policy_kl` is given.
      policy_kl: the shift as a KL divergence in nats.
      longest: the longest length considered, >= 1.
    Returns:
      The best length and its penalty, with the penalties of no model and of a single step for comparison.
    References: Janner et al. 2019, section 4.3 and Theorem A.2 (4.3 in the main text).
    """
    if policy_shift is None and policy_kl is not None:
        policy_shift = distance_of_kl(policy_kl)
    elif policy_shift is None or policy_kl is not None:
        raise ValueError(f"policy_shift or policy_kl must be given, not both, got {policy_shift!r} and {policy_kl!r}")
    check_count("longest", longest, least=1)
    error = current_model_error(model_error=model_error, slope=slope, policy_shift=policy_shift)
    best = best_length(model_error=error, policy_shift=policy_shift, discount=discount, longest=longest)
    at_best, at_0, at_1 = (
        branched_penalty(model_error=error, policy_shift=policy_shift, rollout_length=k, discount=discount)
        for k in (best, 0, 1)
    )
    return Recommendation(best, best > 0, at_best, at_0, at_1, error, policy_shift)
