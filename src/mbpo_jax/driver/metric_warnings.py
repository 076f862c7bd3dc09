"""Problems that metrics show and that the user should not have to look for."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mbpo_jax.driver.interaction import task as tasks

LITTLE_EXPLAINED = 0.5  # of the targets' variance, on average


def find(metrics: Iterable[Mapping[str, Any]], rule: str | None, env_id: str) -> dict[str, str]:
    """Returns warnings, keyed by what they are about, so that each can be given once.

    Args:
      metrics: of one phase, of each seed.
      rule: what `--termination_fn` was.
    """
    found: dict[str, str | None] = {}
    for values in metrics:
        fraction = float(values.get("termination_disagreement_fraction", 0.0))
        found["rule"] = found.get("rule") or tasks.disagreement(rule, env_id, fraction)
        found["model"] = found.get("model") or explains_little(values)
    return {about: text for about, text in found.items() if text is not None}


def explains_little(metrics: Mapping[str, Any]) -> str | None:
    """Returns a warning if the model explains little of what it was fitted to; None if not, or if nothing is known.

    Args:
      metrics: of the phase that fits a model.
    """
    shares = metrics.get("explained_share_per_target")
    if shares is None or (mean := np.mean(np.clip(shares, 0.0, 1.0))) >= LITTLE_EXPLAINED:
        return None
    worst = int(np.argmin(shares))
    name = "the reward" if worst == 0 else f"observation {worst - 1}"
    return (
        f"the model explains {100 * mean:.0f} % of the variance of what it predicts, least that of {name}: what "
        "is learnt from it may be worth little. fit_model/explained_share_per_target lists all; more real rows "
        "(--exploration_steps, or a larger data set) or longer fits (--fit_max_gradient_steps) may help"
    )
