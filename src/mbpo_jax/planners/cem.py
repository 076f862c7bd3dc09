"""The cross-entropy method as in PETS: a Gaussian that moves to the best of its own samples.

References: Chua et al. 2018 (PETS); official code kchua/handful-of-trials, `dmbrl/misc/optimizers/cem.py` and
`dmbrl/controllers/MPC.py`.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from mbpo_jax.options import check, option
from mbpo_jax.planners.planner import Planner, ScoreFn, best, scored, shifted
from mbpo_jax.types import Array, Key

FIRST_VARIANCE = 0.25  # of each action, (upper - lower bound)^2 / 16
TRUNCATION = 2.0  # standard deviations beyond which nothing is drawn


@dataclasses.dataclass(frozen=True)
class CemConfig:
    """Knobs of the cross-entropy method; the defaults are those of PETS's cart-pole."""

    num_candidates: int = option(400, "Action sequences that an iteration draws.", minimum=1)
    elite_candidates: int = option(40, "Best candidates (elites), around which the next iteration is drawn.", minimum=1)
    iterations: int = option(5, "Most iterations of a search.", minimum=1)
    smoothing: float = option(
        0.1, "Share of the old mean and variance in the new ones, PETS's alpha.", minimum=0.0, maximum=1.0
    )
    stop_variance: float = option(1e-3, "A search stops once no action has a larger variance than this.", minimum=0.0)

    def __post_init__(self) -> None:
        check(self)
        check_elites(self.elite_candidates, self.num_candidates)


def check_elites(elite_candidates: int, num_candidates: int) -> None:
    """Raises ValueError if there are more elites than candidates."""
    if elite_candidates > num_candidates:
        raise ValueError(f"elite_candidates must be at most num_candidates ({num_candidates}), got {elite_candidates}")


def build(config: CemConfig, horizon: int, action_dim: int) -> Planner:
    """Builds a planner whose plan is the mean [H, A] from which its next search starts."""
    return Planner(init=lambda: jnp.zeros((horizon, action_dim)), plan=functools.partial(plan, config))


def plan(config: CemConfig, key: Key, start: Array, score_fn: ScoreFn) -> tuple[Array, Array]:
    """Returns the mean [H, A] of the last iteration, and the same shifted by one step, with 0 as the last action."""

    def iterate(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        number, mean, variance = carry
        key_draw, key_score = jax.random.split(jax.random.fold_in(key, number))
        candidates = draw(key_draw, mean, variance, config.num_candidates)
        scores = scored(score_fn, key_score, candidates)
        return number + 1, *refine(config, mean, variance, candidates, scores)

    def should_continue(carry: tuple[Array, Array, Array]) -> Array:
        number, _, variance = carry
        return (number < config.iterations) & (jnp.max(variance) > config.stop_variance)

    first = jnp.zeros((), jnp.int32), start, jnp.full_like(start, FIRST_VARIANCE)
    _, mean, _ = jax.lax.while_loop(should_continue, iterate, first)
    return mean, shifted(mean, jnp.zeros_like(mean[0]))


def draw(key: Key, mean: Array, variance: Array, number: int) -> Array:
    """Draws candidates [number, H, A] in [-1, 1] around a mean [H, A].

    Two standard deviations reach at most to the nearer bound, and nothing is drawn beyond them.
    """
    room = (1.0 - jnp.abs(mean)) / TRUNCATION
    std = jnp.sqrt(jnp.minimum(jnp.square(room), variance))
    noise = jax.random.truncated_normal(key, -TRUNCATION, TRUNCATION, (number, *mean.shape))
    return mean[None] + std[None] * noise


def refine(config: CemConfig, mean: Array, variance: Array, candidates: Array, scores: Array) -> tuple[Array, Array]:
    """Moves mean and variance [H, A] towards those of the elites; `smoothing` is the share of the old ones kept."""
    elites = best(candidates, scores, config.elite_candidates)
    keep, take = config.smoothing, 1.0 - config.smoothing
    return keep * mean + take * jnp.mean(elites, 0), keep * variance + take * jnp.var(elites, 0)
