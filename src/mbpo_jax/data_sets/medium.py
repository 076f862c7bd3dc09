"""Which checkpoint of a run is a medium policy."""

import math
from collections.abc import Collection, Mapping
from pathlib import Path

from mbpo_jax.driver.storage import metrics

LEAST, MOST = 1 / 3, 2 / 3  # of the best return; D4RL's has about a third


def evaluations(run_dir: Path, seed: int, num_episodes: int) -> dict[int, float]:
    """Returns the evaluation returns of a seed by step, where they are finite and none of the episodes was given up."""
    return {
        line["step"]: line["eval/return_mean"]
        for line in metrics.read(run_dir / metrics.FILE_NAME)
        if line["seed"] == seed
        and math.isfinite(line.get("eval/return_mean", math.nan))
        and line.get("eval/episodes", num_episodes) == num_episodes  # older runs do not say
    }


def step(returns: Mapping[int, float], checkpoints: Collection[int]) -> int:
    """Returns the step of the first checkpoint whose evaluation returned one to two thirds of the run's best.

    Args:
      returns: finite evaluation return by environment step.
      checkpoints: steps of the checkpoints that are kept.
    Raises:
      ValueError: nothing was evaluated, the best return is not positive, so that a third of it means nothing, or no
        such checkpoint is kept.
    References: Fu et al. 2020 (D4RL), section 5.1: a policy with about a third of the performance of the expert.
    """
    if not returns:
        raise ValueError("the run has no evaluation yet of which a policy could be medium")
    if not checkpoints:
        raise ValueError("the run has no checkpoints; those of several processes are in its part_* directories")
    best = max(returns.values())
    if best <= 0.0:
        raise ValueError(
            f"the best evaluation must be above 0 to have a third, got {best:g}; choose with --policy=last --step"
        )
    found = [at for at in sorted(checkpoints) if LEAST * best <= returns.get(at, -1.0) <= MOST * best]
    if not found:
        raise ValueError(
            f"no checkpoint has an evaluation of {LEAST * best:.4g} to {MOST * best:.4g}, one to two thirds of the "
            f"best: {', '.join(map(str, sorted(checkpoints)))} are kept. Train with --checkpoints_kept=1000 and with "
            "--checkpoint_every_steps like --eval_every_steps, or choose with --policy=last --step"
        )
    return found[0]
