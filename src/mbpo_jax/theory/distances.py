"""Bounds on distances between distributions, and the checks of arguments.

References: Janner et al. 2019 (MBPO), appendix B.
"""

import math
import operator
from collections.abc import Sequence


def distance_of_kl(kl: float) -> float:
    """Returns the largest total variation distance that a KL divergence allows.

    It is the tighter of two inequalities: Pinsker's, sqrt(kl / 2), up to 1.59 nats, and Bretagnolle and Huber's,
    sqrt(1 - exp(-kl)), which never reaches 1, beyond.

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
    """Bounds the distance between two joint distributions p1(x, y) and p2(x, y).

    Args:
      marginal: distance between p1(x) and p2(x).
      conditionals: for each x, the distance between p1(y | x) and p2(y | x).
      probabilities: p1(x) for each x. With it the bound uses the mean of the conditionals under p1, which is tighter;
        without it their maximum. A mean under p2, or under a mixture of p1 and p2, is valid too; any other mean is not.
    Returns:
      The bound; a value above 1 is vacuous.
    Raises:
      ValueError: a distance outside [0, 1], no conditionals, or probabilities that do not fit them or sum to 1.
    References: Janner et al. 2019, Lemma B.1; the tighter form stands in its proof.
    """
    check_distances(marginal=marginal, **{f"conditionals[{i}]": value for i, value in enumerate(conditionals)})
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
    """Bounds the distance between the states of two Markov chains `steps` after a common start.

    Args:
      step_distance: distance between the chains' next states, averaged over the first chain's states at one time step;
        the maximum over time steps.
      steps: t >= 0.
    Returns:
      The bound; a value above 1 is vacuous.
    References: Janner et al. 2019, Lemma B.2.
    """
    check_distances(step_distance=step_distance)
    check_count("steps", steps)
    return steps * step_distance


def check_distances(**distances: float) -> None:
    """Raises ValueError unless every value lies in [0, 1]."""
    for name, value in distances.items():
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"{name} must be a total variation distance in [0, 1], got {value!r}")


def check_count(name: str, value: int, least: int = 0) -> None:
    """Raises ValueError unless the value is a whole number, `least` or more."""
    try:
        enough = operator.index(value) >= least
    except TypeError:
        enough = False
    if not enough:
        raise ValueError(f"{name} must be a whole number, {least} or more, got {value!r}")
