"""Which checkpoint of a run is a medium policy."""

from collections.abc import Collection, Mapping

LEAST, MOST = 1 / 3, 2 / 3  # of the best return; D4RL's has about a third


def step(returns: Mapping[int, float], checkpoints: Collection[int]) -> int:
    """Returns the step of the first checkpoint whose evaluation returned one to two thirds of the run's best.

    Args:
      returns: evaluation return by environment step.
      checkpoints: steps of the checkpoints that are kept.
    Raises:
      ValueError: nothing was evaluated, the best return is not positive, so that a third of it means nothing, or no
        such checkpoint is kept.
    References: Fu et al. 2020 (D4RL), section 5.1: a policy with about a third of the performance of the expert.
    """
    best = max(returns.values(), default=0.0)
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
