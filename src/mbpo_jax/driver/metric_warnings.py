"""What metrics say that the user should not have to look for."""

from collections.abc import Mapping
from typing import Any

import numpy as np

LITTLE_EXPLAINED = 0.5  # of the targets' variance, on average


def explains_little(metrics: Mapping[str, Any]) -> str | None:
    """Returns a warning if the model explains little of what it was fitted to; None if it does, or nothing is known.

    Args:
      metrics: of the phase that fits a model.
    """
    shares = metrics.get("explained_share_per_target")
    if shares is None or (mean := np.mean(np.clip(shares, 0.0, 1.0))) >= LITTLE_EXPLAINED:
        return None
    worst = int(np.argmin(shares))
    name = "the reward" if worst == 0 else f"observation {worst - 1}"
    return (
        f"the model explains {100 * mean:.0f} % of the variance of what it predicts, and least of {name}: what is "
        "learnt from it may be worth little. fit_model/explained_share_per_target has all; more real rows "
        "(--exploration_steps) or longer fits (--fit_max_gradient_steps) may help"
    )
