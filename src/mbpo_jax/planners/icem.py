"""iCEM: the cross-entropy method with coloured noise and memory, for few candidates.

Reference: Pinneri et al. 2020, "Sample-efficient Cross-Entropy Method for Real-time Planning", Algorithm 1; official
code martius-lab/iCEM.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from mbpo_jax.options import check, option
from mbpo_jax.planners.cem import check_elites
from mbpo_jax.planners.noise import coloured
from mbpo_jax.planners.planner import Planner, ScoreFn, best, scored, shifted
from mbpo_jax.types import Array, Key


@dataclasses.dataclass(frozen=True)
class IcemConfig:
    """Knobs of iCEM."""

    num_candidates: int = option(128, "Action sequences that the first iteration draws.", minimum=1)
    candidate_decay: float = option(
        1.25,
        "Factor by which each iteration draws fewer candidates, down to twice the elites.",
        minimum=1.0,
        maximum=100.0,
    )
    elite_candidates: int = option(10, "Best candidates (elites), around which the next iteration is drawn.", minimum=1)
    kept_fraction: float = option(
        0.3, "Share of the elites that the next iteration, or the next step, tries again.", minimum=0.0, maximum=1.0
    )
    iterations: int = option(3, "Iterations of a search.", minimum=1, maximum=100)
    noise_exponent: float = option(
        2.0, "How fast the noise's power falls with frequency; 0: white noise.", minimum=0.0, maximum=10.0
    )
    first_std: float = option(0.5, "Standard deviation of actions in the first iteration.", minimum=0.0, maximum=10.0)
    smoothing: float = option(0.1, "Share of the old mean and deviation in the new ones.", minimum=0.0, maximum=1.0)

    def __post_init__(self) -> None:
        check(self)
        check_elites(self.elite_candidates, self.num_candidates)


def num_kept(config: IcemConfig) -> int:
    """Returns the number of elites that are tried again."""
    return int(config.kept_fraction * config.elite_candidates)


def num_drawn(config: IcemConfig, iteration: int) -> int:
    """Returns the number of candidates that an iteration draws."""
    least = min(2 * config.elite_candidates, config.num_candidates)
    return max(int(config.num_candidates * config.candidate_decay**-iteration), least)


def build(config: IcemConfig, horizon: int, action_dim: int) -> Planner:
    """Builds a planner whose plan is the mean [H, A] and the elites [K, H, A] with which its next search starts.

    In the first search of an episode, sequences of zeros, the last action drawn, take the elites' place.
    """
    shape = (horizon, action_dim)
    return Planner(
        init=lambda: (jnp.zeros(shape), jnp.zeros((num_kept(config), *shape))),
        plan=functools.partial(plan, config),
    )


def plan(
    config: IcemConfig, key: Key, start: tuple[Array, Array], score_fn: ScoreFn
) -> tuple[Array, tuple[Array, Array]]:
    """Returns the best sequence [H, A] of the last iteration, and the plan for the next step.

    The last iteration has the mean among its candidates. Iterations are unrolled, since they differ in size.
    """
    mean, kept = start
    std = jnp.full_like(mean, config.first_std)
    for i in range(config.iterations):
        key_draw, key_score = jax.random.split(jax.random.fold_in(key, i))
        drawn = draw(config, key_draw, mean, std, num_drawn(config, i))
        if i == 0:  # the elites of the previous step lack a last action
            kept = shifted(kept, drawn[: len(kept), -1])
        last = [mean[None]] if i == config.iterations - 1 else []
        candidates = jnp.concatenate([drawn, kept, *last])
        elites = best(candidates, scored(score_fn, key_score, candidates), config.elite_candidates)
        mean, std = refine(config, mean, std, elites)
        kept = elites[: len(kept)]
    return elites[0], (shifted(mean, mean[-1]), kept)


def draw(config: IcemConfig, key: Key, mean: Array, std: Array, number: int) -> Array:
    """Draws candidates [number, H, A] around a mean [H, A], clipped to [-1, 1]."""
    noise = coloured(key, config.noise_exponent, (number, *mean.shape))
    return jnp.clip(mean[None] + std[None] * noise, -1.0, 1.0)


def refine(config: IcemConfig, mean: Array, std: Array, elites: Array) -> tuple[Array, Array]:
    """Moves mean and standard deviation [H, A] towards the elites'; `smoothing` is the share of the old ones kept."""
    keep, take = config.smoothing, 1.0 - config.smoothing
    return keep * mean + take * jnp.mean(elites, 0), keep * std + take * jnp.std(elites, 0)
