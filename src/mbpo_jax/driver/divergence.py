"""Advice for learning that diverged: about rewards and observations that are too large, and about knobs offline."""

from collections.abc import Sequence

from mbpo_jax import health
from mbpo_jax.driver.config import SMALLER_STEPS
from mbpo_jax.types import Transition

LARGE = 1e3  # magnitude; those of the standard tasks stay below a hundred, and values are a hundred times the rewards


def advice(rows: Sequence[Transition], offline: bool) -> str | None:
    """Returns advice on the scale of the numbers learnt from; None, or offline on knobs, if that is not a likely cause.

    Args:
      rows: real rows, one batch per seed.
      offline: whether they are of a data set.
    """
    sizes = {
        "reward": max(float(health.magnitude(batch.reward)) for batch in rows),
        "observation": max(float(health.magnitude((batch.obs, batch.next_obs))) for batch in rows),
    }
    large = {name: size for name, size in sizes.items() if size >= LARGE}
    if not large:
        return SMALLER_STEPS if offline else None
    which = " and ".join(f"{name}s (up to {size:.3g})" for name, size in large.items())
    if offline:
        return (
            f"The data's {which} are too large to learn from: scale them to about 1 in the file (rewards: mbpo_jax "
            "collect --mix DATA --reward_fn=...), and start again in another --run_dir"
        )
    wrappers = " and ".join(f"Transform{name.capitalize()}" for name in large)
    return (
        f"The environment's {which} are too large to learn from: scale them to about 1 where the environment is "
        f"registered (gymnasium.wrappers.{wrappers}), and start again in another --run_dir"
    )
