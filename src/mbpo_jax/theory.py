"""What the theory of MBPO says about errors, and the rollout length that it recommends.

Nothing here is learned and nothing is an array: numbers go in, in double precision, and a number comes out.

All distances are total variation, half the sum of absolute differences, in [0, 1]; `distance_of_kl` makes one of a KL
divergence. Names, with the paper's symbols:

  model_error     eps_m: distance between the true and the modelled next state, given state and action; the mean over
                  what a policy visits at one time step, the largest over time steps.
  policy_shift    eps_pi: distance between the current policy and the one that collected the data, in the worst state.
  discount        gamma, in (0, 1).
  max_reward      r_max: no reward is further from zero; in units of reward, like every gap and penalty.
  rollout_length  k: steps taken in the model from a branch point, a state that the data policy reached.

A gap bounds the difference of two returns, whichever is larger. A penalty is what has to be subtracted from the return
in the model to be sure of the return in the environment: eta >= eta_model - penalty.

The reward function is taken as known. The paper writes the model error for next state and reward together, but its
proofs use one reward function for both sides: where the reward is learned too, the part of the model error in
`returns_gap` and `full_rollout_penalty` can be exceeded by a factor of up to 1 / discount.

References: Janner et al. 2019 (MBPO), section 4 and appendices A and B, with their numbering; Lai et al. 2020 (BMPO).
Notes exist that swap two theorems: their "Theorem 2" is A.2 (4.3 in the main text), "Theorem 3" is A.3 (4.2).
"""

import math
import operator
from collections.abc import Sequence
from typing import NamedTuple

TIE_STEPS = 1e-9  # a best length this close above a whole number is that number: beyond what double precision can tell


class StepErrors(NamedTuple):
    """How far two pairs of dynamics and policy are apart in a single step."""

    model_error: float
    policy_shift: float


class Recommendation(NamedTuple):
    """What `recommend_length` answers; penalties are in units of `max_reward`."""

    rollout_length: int
    model_helps: bool  # whether any use of the model lowers the penalty: rollout_length > 0
    penalty: float  # at rollout_length
    penalty_without_model: float  # at length 0
    penalty_one_step: float  # at length 1
    model_error: float  # under the current policy, as extrapolated
    policy_shift: float


def distance_of_kl(kl: float) -> float:
    """The largest total variation distance that a KL divergence allows, by the tighter of two inequalities.

    Pinsker's, sqrt(kl / 2), is the tighter one up to 1.59 nats; beyond, that of Bretagnolle and Huber,
    sqrt(1 - exp(-kl)), which never reaches 1.

    Args:
      kl: nats, >= 0; infinite is allowed.
    Raises:
      ValueError: kl is negative or not a number.
    """
    if not kl >= 0.0:
        raise ValueError(f"kl must be a divergence in nats, 0 or more, got {kl!r}")
    return min(math.sqrt(kl / 2.0), math.sqrt(-math.expm1(-kl)))


def joint_distance(
    *, marginal: float, conditionals: Sequence[float], probabilities: Sequence[float] | None = None
) -> float:
    """Bound on the distance between two joint distributions p1(x, y) and p2(x, y).

    Args:
      marginal: distance between p1(x) and p2(x).
      conditionals: for each x, the distance between p1(y | x) and p2(y | x).
      probabilities: p1(x) for each x, which gives the tighter form, with the mean of the conditionals under p1; without
        it their largest counts. Means under p2 or a mixture of both are bounds too; under anything else they are none.
    Returns:
      Above 1 where it says nothing.
    Raises:
      ValueError: a distance outside [0, 1], no conditionals, or probabilities that do not fit them or sum to 1.
    References: Janner et al. 2019, Lemma B.1; the tighter form stands in its proof.
    """
    _check_distances(marginal=marginal, **{f"conditionals[{i}]": value for i, value in enumerate(conditionals)})
    if not conditionals:
        raise ValueError("conditionals must hold a distance for each x, got none")
    if probabilities is None:
        return marginal + max(conditionals)
    fit = len(probabilities) == len(conditionals) and all(value >= 0.0 for value in probabilities)
    if not (fit and math.isclose(math.fsum(probabilities), 1.0, rel_tol=0.0, abs_tol=1e-6)):
        raise ValueError(
            f"probabilities must be {len(conditionals)} numbers >= 0, as many as conditionals, that sum to 1, "
            f"got {list(probabilities)!r}"
        )
    return marginal + math.fsum(weight * value for weight, value in zip(probabilities, conditionals))


def state_distance(*, step_distance: float, steps: int) -> float:
    """Bound on the distance between the states of two Markov chains after some steps from the same start.

    Args:
      step_distance: distance between the chains' next states, averaged over the first chain's states at one time step;
        the largest over time steps.
      steps: t >= 0.
    Returns:
      Above 1 where it says nothing.
    References: Janner et al. 2019, Lemma B.2.
    """
    _check_distances(step_distance=step_distance)
    _check_count("steps", steps)
    return steps * step_distance


def returns_gap(*, model_error: float, policy_shift: float, discount: float, max_reward: float = 1.0) -> float:
    """Bound on the difference between the returns of two policies in two dynamics.

    Args:
      model_error: between the dynamics, over the states and actions of the first policy in the first dynamics.
      policy_shift: between the policies.
    References: Janner et al. 2019, Lemma B.3.
    """
    _check(model_error, policy_shift, discount, max_reward)
    horizon = 1.0 / (1.0 - discount)
    return 2.0 * max_reward * horizon * (discount * horizon * (model_error + policy_shift) + policy_shift)


def branched_returns_gap(
    *, pre: StepErrors, post: StepErrors, rollout_length: int, discount: float, max_reward: float = 1.0
) -> float:
    """Bound on the difference between the returns of two branched processes.

    The state that a branched process shows at time t is reached by t - k steps of one pair of dynamics and policy and
    the last k steps of another (by t steps of the latter where t < k); its return is the discounted sum over t.
    The last action may be taken by either policy.

    Args:
      pre: errors of the steps before the branch point.
      post: errors of the steps after it.
      rollout_length: k >= 0.
    References: Janner et al. 2019, Lemma B.4.
    """
    for side, errors in (("pre", pre), ("post", post)):
        _check_distances(**{f"{side}.{name}": value for name, value in errors._asdict().items()})
    _check(0.0, 0.0, discount, max_reward, rollout_length=rollout_length)
    horizon = 1.0 / (1.0 - discount)
    before = discount**rollout_length * (discount * horizon * (pre.model_error + pre.policy_shift) + pre.policy_shift)
    after = rollout_length * (post.model_error + post.policy_shift) + post.policy_shift
    return 2.0 * max_reward * horizon * (before + after)


def full_rollout_penalty(*, model_error: float, policy_shift: float, discount: float, max_reward: float = 1.0) -> float:
    """What to subtract from the return of rollouts that stay in the model from the start of the task on.

    Args:
      model_error: eps_m, under the data policy.
    References: Janner et al. 2019, Theorem A.1 (4.1 in the main text).
    """
    _check(model_error, policy_shift, discount, max_reward)
    horizon = 1.0 / (1.0 - discount)
    return max_reward * horizon * (2.0 * discount * horizon * (model_error + 2.0 * policy_shift) + 4.0 * policy_shift)


def branched_penalty(
    *, model_error: float, policy_shift: float, rollout_length: int, discount: float, max_reward: float = 1.0
) -> float:
    """What to subtract from the return of branched rollouts, by the model's error under the current policy.

    Args:
      model_error: eps_m', under the current policy; `current_model_error` extrapolates it.
      rollout_length: k >= 0; at 0 the model is not used, and the penalty is that of the data policy's own return.
    References: Janner et al. 2019, Theorem A.2 (4.3 in the main text). Its two terms of the policy shift are one:
      gamma^(k+1) / (1 - gamma)^2 + gamma^k / (1 - gamma) = gamma^k / (1 - gamma)^2.
    """
    _check(model_error, policy_shift, discount, max_reward, rollout_length=rollout_length)
    return _branched(model_error, policy_shift, rollout_length, rollout_length, discount, max_reward)


def branched_penalty_from_data(
    *, model_error: float, policy_shift: float, rollout_length: int, discount: float, max_reward: float = 1.0
) -> float:
    """What to subtract from the return of branched rollouts, by the model's error under the data policy.

    It never falls as the length grows, so its best length is 0: an error that was measured on the data alone cannot
    justify using a model.

    Args:
      model_error: eps_m, under the data policy.
      rollout_length: k >= 0.
    References: Janner et al. 2019, Theorem A.3 (4.2 in the main text).
    """
    _check(model_error, policy_shift, discount, max_reward, rollout_length=rollout_length)
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
    """What to subtract from the return of rollouts that leave the branch point backward and forward in time.

    Errors compound from the branch point in each direction, so that only the longer one counts; a forward rollout of
    the same total length, `branched_penalty`, pays for all its steps.

    Args:
      model_error: of the worse of the two models, under the current policy.
      backward_length: k1 >= 0.
      forward_length: k2 >= 0.
    References: Lai et al. 2020 (BMPO), the upper bound on the return discrepancy.
    """
    lengths = {"backward_length": backward_length, "forward_length": forward_length}
    _check(model_error, policy_shift, discount, max_reward, **lengths)
    total, longer = backward_length + forward_length, max(backward_length, forward_length)
    return _branched(model_error, policy_shift, total, longer, discount, max_reward)


def current_model_error(*, model_error: float, slope: float, policy_shift: float) -> float:
    """The model's error under a policy that has moved away from the data: eps_m + policy_shift * slope, within [0, 1].

    Args:
      model_error: eps_m, under the data policy.
      slope: of the model's error over the policy shift, at a shift of zero; may be negative.
    References: Janner et al. 2019, section 4.3. The limits are ours: a distance cannot leave [0, 1], a line can.
    """
    _check_distances(model_error=model_error, policy_shift=policy_shift)
    if not math.isfinite(slope):
        raise ValueError(f"slope must be a finite number, got {slope!r}")
    return min(1.0, max(0.0, model_error + policy_shift * slope))


def best_length_continuous(*, model_error: float, policy_shift: float, discount: float) -> float:
    """The real k >= 0 at which `branched_penalty`, read as a function of real k, is least.

    The derivative is zero where gamma^k = eps_m' (1 - gamma) / (-eps_pi ln gamma).

    Returns:
      0 where there is no policy shift; infinity where there is one and the model is exact.
    """
    _check(model_error, policy_shift, discount)
    if policy_shift == 0.0:
        return 0.0
    if model_error == 0.0:
        return math.inf
    log_discount = math.log(discount)
    log_power = math.log(model_error / policy_shift) + math.log((1.0 - discount) / -log_discount)
    return max(0.0, log_power / log_discount)


def best_length(*, model_error: float, policy_shift: float, discount: float, longest: int) -> int:
    """The whole k in 0 ... longest at which `branched_penalty` is least; of two that are equal, the smaller.

    One more step pays while gamma^k eps_pi > eps_m'. So k > 0 exactly where the model's error under the current policy
    is less than the policy shift, and lengths j and j + 1 tie where eps_m' = gamma^j eps_pi, to within 1e-9 of a step.

    Args:
      longest: the longest length considered, >= 0; the answer where the model is exact.
    """
    _check(model_error, policy_shift, discount, longest=longest)
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
    """The rollout length that Theorem A.2 recommends for errors that were measured.

    Args:
      model_error: eps_m, on states and actions of the data policy.
      slope: of the model's error over the policy shift (a total variation distance) at a shift of zero.
      policy_shift: as a total variation distance; either this or `policy_kl` is given.
      policy_kl: the shift as a KL divergence in nats.
      longest: the longest length considered, >= 1.
    Returns:
      The best length with its penalty, beside those of not using the model and of a single step.
    References: Janner et al. 2019, section 4.3 and Theorem A.2 (4.3 in the main text).
    """
    if policy_shift is None and policy_kl is not None:
        policy_shift = distance_of_kl(policy_kl)
    elif policy_shift is None or policy_kl is not None:
        raise ValueError(f"policy_shift or policy_kl must be given, not both, got {policy_shift!r} and {policy_kl!r}")
    _check_count("longest", longest, least=1)
    error = current_model_error(model_error=model_error, slope=slope, policy_shift=policy_shift)
    best = best_length(model_error=error, policy_shift=policy_shift, discount=discount, longest=longest)
    at_best, at_0, at_1 = (_branched(error, policy_shift, k, k, discount, 1.0) for k in (best, 0, 1))
    return Recommendation(best, best > 0, at_best, at_0, at_1, error, policy_shift)


def _branched(
    step_error: float, policy_shift: float, power: int, model_steps: int, discount: float, max_reward: float
) -> float:
    """2 r_max (gamma^power eps_pi / (1 - gamma)^2 + model_steps step_error / (1 - gamma))."""
    horizon = 1.0 / (1.0 - discount)
    return 2.0 * max_reward * horizon * (discount**power * horizon * policy_shift + model_steps * step_error)


def _check(model_error: float, policy_shift: float, discount: float, max_reward: float = 1.0, **lengths: int) -> None:
    _check_distances(model_error=model_error, policy_shift=policy_shift)
    if not 0.0 < discount < 1.0:
        raise ValueError(f"discount must lie in (0, 1), got {discount!r}")
    if not 0.0 <= max_reward < math.inf:
        raise ValueError(f"max_reward must be finite and 0 or more, got {max_reward!r}")
    for name, value in lengths.items():
        _check_count(name, value)


def _check_distances(**distances: float) -> None:
    for name, value in distances.items():
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"{name} must be a total variation distance in [0, 1], got {value!r}")


def _check_count(name: str, value: int, least: int = 0) -> None:
    try:
        enough = operator.index(value) >= least
    except TypeError:
        enough = False
    if not enough:
        raise ValueError(f"{name} must be a whole number, {least} or more, got {value!r}")
