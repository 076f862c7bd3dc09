"""Schedules over epochs or steps, on traced numbers so that nothing recompiles as they advance."""

import jax.numpy as jnp

from mbpo_jax.types import Array


def linear_int(epoch: Array, schedule: tuple[int, int, int, int]) -> Array:
    """Returns the value of the integer-valued linear schedule of rollout lengths.

    Args:
      epoch: [], int; counted from 0 at the end of exploration.
      schedule: (first_epoch, last_epoch, start, end). `start` until `first_epoch`, `end` from `last_epoch` on, and in
        between the interpolated value rounded down.
    Returns:
      [], int32.
    References: Janner et al. 2019 (MBPO), section 5 and Appendix C; official code, `_set_rollout_length`.
    """
    first_epoch, last_epoch, start, end = schedule
    elapsed = jnp.clip(epoch - first_epoch, 0, max(last_epoch - first_epoch, 1))
    # In integers: a float32 quotient may fall just below a whole number and be rounded down to the previous one.
    return start + (elapsed * (end - start)) // max(last_epoch - first_epoch, 1)


def linear(epoch: Array, schedule: tuple[float, float, float, float]) -> Array:
    """Returns the value of a linear schedule.

    Args:
      epoch: [], int; counted from 0 at the end of exploration.
      schedule: (first_epoch, last_epoch, start, end). `start` until `first_epoch`, `end` from `last_epoch` on.
    Returns:
      [], float32.
    References: Lai et al. 2020 (BMPO), official code, for the weight of values in the draw of start states.
    """
    first_epoch, last_epoch, start, end = schedule
    share = jnp.clip((epoch - first_epoch) / max(last_epoch - first_epoch, 1e-6), 0.0, 1.0)
    return start + share * (end - start)


def power(step: Array, num_steps: int, start: float, end: float, exponent: float) -> Array:
    """Returns (start - end) (1 - step / num_steps)^exponent + end; `end` after `num_steps`.

    Args:
      step: [], int, from 0 on.
    Returns:
      [], float32.
    References: Amos et al. 2021 (SAC-SVG), for target entropies.
    """
    left = jnp.maximum(num_steps - step, 0)  # in integers: 1 - step / num_steps may miss 0, and have a large root
    # With nothing left, even the power 0 counts as 0, so that any exponent ends at `end`.
    return (start - end) * jnp.where(left > 0, (left / num_steps) ** exponent, 0.0) + end
