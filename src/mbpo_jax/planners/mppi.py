"""Model predictive path integral control: the mean of all candidates, weighted by their exponentiated scores.

References: Williams et al. 2017, "Information Theoretic MPC for Model-Based Reinforcement Learning"; the filtered noise
is that of Nagabandi et al. 2019, "Deep Dynamics Models for Learning Dexterous Manipulation" (PDDM).
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from mbpo_jax.options import check, option
from mbpo_jax.planners.planner import Planner, ScoreFn, scored, shifted
from mbpo_jax.types import Array, Key


@dataclasses.dataclass(frozen=True)
class MppiConfig:
    """Knobs of MPPI."""

    num_candidates: int = option(500, "Action sequences that an iteration draws.", minimum=1)
    iterations: int = option(5, "Iterations of a search.", minimum=1)
    noise_std: float = option(0.9, "Standard deviation of the noise before it is filtered.", minimum=0.0, maximum=10.0)
    noise_smoothing: float = option(
        0.9, "Share of new noise in each action's noise, PDDM's beta; 1: white noise.", minimum=0.0, maximum=1.0
    )
    temperature: float = option(1.0, "Difference in score at which a weight falls to 1/e.", minimum=1e-6)

    def __post_init__(self) -> None:
        check(self)


def build(config: MppiConfig, horizon: int, action_dim: int) -> Planner:
    """Builds a planner whose plan is the mean [H, A] from which its next search starts."""
    return Planner(init=lambda: jnp.zeros((horizon, action_dim)), plan=functools.partial(plan, config))


def plan(config: MppiConfig, key: Key, start: Array, score_fn: ScoreFn) -> tuple[Array, Array]:
    """Returns the weighted mean [H, A] of the last iteration, and the same shifted a step, its last action repeated."""

    def iterate(mean: Array, number: Array) -> tuple[Array, None]:
        key_draw, key_score = jax.random.split(jax.random.fold_in(key, number))
        candidates = draw(config, key_draw, mean)
        return weighted_mean(config, candidates, scored(score_fn, key_score, candidates)), None

    mean, _ = jax.lax.scan(iterate, start, jnp.arange(config.iterations))
    return mean, shifted(mean, mean[-1])


def draw(config: MppiConfig, key: Key, mean: Array) -> Array:
    """Draws candidates [N, H, A] around a mean [H, A], clipped to [-1, 1]."""
    white = config.noise_std * jax.random.normal(key, (config.num_candidates, *mean.shape))
    return jnp.clip(mean[None] + filtered(config.noise_smoothing, white), -1.0, 1.0)


def filtered(share: float, white: Array) -> Array:
    """Returns noise n [N, H, A] with n_t = share * white_t + (1 - share) * n_(t-1), starting from 0."""

    def step(before: Array, new: Array) -> tuple[Array, Array]:
        noise = share * new + (1.0 - share) * before
        return noise, noise

    _, noise = jax.lax.scan(step, jnp.zeros_like(white[:, 0]), jnp.swapaxes(white, 0, 1))
    return jnp.swapaxes(noise, 0, 1)


def weighted_mean(config: MppiConfig, candidates: Array, scores: Array) -> Array:
    """Returns the mean [H, A] of candidates [N, H, A], weighted by exp(score / temperature)."""
    behind = scores - jnp.max(scores)  # before dividing, or large scores would lose their differences
    return jnp.tensordot(jax.nn.softmax(behind / config.temperature), candidates, axes=1)
