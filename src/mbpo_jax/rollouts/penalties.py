"""Measures of an ensemble's uncertainty about a step, which offline algorithms subtract from imagined rewards.

Each maps the predictions of all members, mean and log-variance [M, B, D] of the targets, to [B].
"""

from collections.abc import Callable

import jax.numpy as jnp

from mbpo_jax.types import Array, Dynamics, Key, Metrics, PyTree, Transition, WorldModel


def largest_std_norm(mean: Array, log_var: Array) -> Array:
    """Returns max_m |std_m| [B], over reward and change of state: the paper's penalty. mean, log_var: [M, B, D]."""
    return jnp.max(jnp.sqrt(jnp.sum(jnp.exp(log_var), axis=-1)), axis=0)


def largest_variance_sum(mean: Array, log_var: Array) -> Array:
    """Returns max_m sum_d var_md [B]: what d3rlpy subtracted."""
    return jnp.max(jnp.sum(jnp.exp(log_var), axis=-1), axis=0)


def disagreement(mean: Array, log_var: Array) -> Array:
    """Returns max_m |mean_m - mean of all| [B]: how far members disagree, whatever noise they predict."""
    return jnp.max(jnp.sqrt(jnp.sum(jnp.square(mean - jnp.mean(mean, axis=0)), axis=-1)), axis=0)


NO_PENALTY = "none"
PENALTIES: dict[str, Callable[[Array, Array], Array]] = {
    "largest_std_norm": largest_std_norm,
    "largest_variance_sum": largest_variance_sum,
    "disagreement": disagreement,
}


def compare(penalty: str, world: WorldModel, belief: PyTree, rows: Transition, action: Array) -> Metrics:
    """Returns the penalty of `action` [B, A] in the states of data rows [B, ...], and that of the recorded actions."""
    chosen = PENALTIES[penalty](*world.predict(belief, rows.obs, action))
    recorded = PENALTIES[penalty](*world.predict(belief, rows.obs, rows.action))
    return {
        "penalty_mean": jnp.mean(chosen),
        "penalty_max": jnp.max(chosen),
        "data_penalty_mean": jnp.mean(recorded),
    }


def penalise(dynamics: Dynamics, world: WorldModel, belief: PyTree, penalty: str, weight: float) -> Dynamics:
    """Returns `dynamics` with the reward reduced by weight times the penalty (Yu et al. 2020, Eq. 9)."""
    if penalty == NO_PENALTY or weight == 0.0:
        return dynamics

    def step(key: Key, group: Array, obs: Array, action: Array) -> tuple[Array, Array, Array]:
        next_obs, reward, ends = dynamics.step_fn(key, group, obs, action)
        return next_obs, reward - weight * PENALTIES[penalty](*world.predict(belief, obs, action)), ends

    return dynamics._replace(step_fn=step)
