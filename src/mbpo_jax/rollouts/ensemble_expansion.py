"""Targets that weight value expansions of different lengths by how well dynamics, rewards and critics agree on them.

References: Buckman et al. 2018, "Sample-Efficient Reinforcement Learning with Stochastic Ensemble Value Expansion"
(STEVE).
"""

import jax
import jax.numpy as jnp

from mbpo_jax import ensemble, health
from mbpo_jax.types import Agent, Array, Dynamics, Key, PyTree, Regression, RewardFn, Transition

INVERSE_VARIANCE, LAST, UNIFORM, TD_LAMBDA = "inverse_variance", "last", "uniform", "td_lambda"
WEIGHTINGS = (INVERSE_VARIANCE, LAST, UNIFORM, TD_LAMBDA)
SMALLEST_VARIANCE = 1e-8  # added, as in the authors' code


def expand(
    dynamics: Dynamics,
    agent: Agent,
    num_steps: int,
    discount: float,
    weighting: str,
    td_lambda: float,
    reward_fn: RewardFn | None,
    key: Key,
    state: PyTree,
    batch: Transition,
) -> Regression:
    """Returns targets for real rows [B]: the mean candidates of each length, weighted over lengths.

    With the first seven arguments bound, it is a `Learning.regression`.

    Args:
      dynamics: without noise, which would look like disagreement.
      reward_fn: known rewards; None: those of the dynamics.
      state: of the agent.
    """
    found = candidates(dynamics, agent, num_steps, discount, reward_fn, key, state, batch)
    usable = health.magnitude(jnp.moveaxis(found, -1, 0), keep=1) < health.LIMIT  # nan is not below it
    found = jnp.where(usable, found, 0.0)
    weights = length_weights(jnp.var(found, axis=1), weighting, td_lambda)
    target = jnp.sum(weights * jnp.mean(found, axis=1), axis=0)
    return Regression(batch.obs, batch.action, target, usable.astype(jnp.float32))


def candidates(
    dynamics: Dynamics,
    agent: Agent,
    num_steps: int,
    discount: float,
    reward_fn: RewardFn | None,
    key: Key,
    state: PyTree,
    batch: Transition,
) -> Array:
    """Returns candidate targets [H + 1, K, B] for real rows [B], with 0 to H imagined steps.

    There are K = E * E * M of each length: each of the E versions of the dynamics generates a path of states, each
    predicts the rewards along every path, unless they are known, and each of the M target critics values its last one.
    """
    assert agent.critic is not None
    critic, versions = agent.critic, jnp.arange(dynamics.num_groups)

    def along_path(version: Array) -> Array:
        obs, weight = batch.next_obs, discount * (1.0 - batch.terminal)
        paid = jnp.broadcast_to(batch.reward, (dynamics.num_groups, *batch.reward.shape))
        found = []
        for number in range(num_steps + 1):
            action, bonus = critic.target_action(jax.random.fold_in(key, number), state, obs)
            q = critic.target_q_values(state, obs, action)
            found.append(paid[:, None] + weight * (q + bonus))
            if number < num_steps:
                step = ensemble.lift(dynamics.step_fn, (None, 0, None, None))
                every_obs, reward, every_end = step(key, versions, obs, action)
                if reward_fn is not None:
                    reward = reward_fn(obs, action, every_obs[version])
                paid = paid + weight * (reward + bonus)
                weight = weight * discount * (1.0 - every_end[version])
                obs = every_obs[version]
        return jnp.stack(found)  # [H + 1, E, M, B]

    paths = ensemble.lift(along_path)(versions)
    return jnp.moveaxis(paths, 0, 1).reshape(num_steps + 1, -1, *batch.reward.shape)


def length_weights(variance: Array, weighting: str, td_lambda: float) -> Array:
    """Returns the weights of each length, which sum to one for each row.

    Args:
      variance: [H + 1, B], over the candidates of a length.
      weighting: by inverse variance, or regardless of it: all on the last length, all equal, or as in TD(lambda).
    Returns:
      [H + 1, B].
    """
    lengths = jnp.arange(variance.shape[0])[:, None]
    is_last = lengths == variance.shape[0] - 1
    shares = {
        INVERSE_VARIANCE: 1.0 / (variance + SMALLEST_VARIANCE),
        LAST: is_last,
        UNIFORM: jnp.ones_like(lengths),
        TD_LAMBDA: td_lambda**lengths * jnp.where(is_last, 1.0, 1.0 - td_lambda),
    }[weighting]
    shares = jnp.broadcast_to(shares, variance.shape).astype(jnp.float32)
    return shares / jnp.sum(shares, axis=0)
