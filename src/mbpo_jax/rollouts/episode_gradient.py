"""The gradient of an episode's return, computed backwards along the episode itself: the recursion of SVG(inf).

Reference: Heess et al. 2015, "Learning Continuous Control Policies by Stochastic Value Gradients", the recursions for
v_s and v_theta. Policy and model are evaluated at the real states, with the noise that explains what happened there, so
that the gradient is that of an episode that took place.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mbpo_jax.types import Array, PyTree

NoisyStep = Callable[[PyTree, Array, PyTree], tuple[Array, Array]]
"""(theta, obs [O], noise) -> (reward [], next_obs [O]): one step of a policy in a model, with given noise."""


def backward(
    step: NoisyStep, theta: PyTree, obs: Array, noise: PyTree, inside: Array, discount: float
) -> tuple[PyTree, Array]:
    """Returns the gradient of the discounted return with respect to theta, and to the first state.

    With policy pi and model f at state s and action a of a step, and v' from the next step,

        v_s     = r_s + r_a pi_s + discount v_s' (f_s + f_a pi_s)
        v_theta = r_a pi_theta + discount (v_s' f_a pi_theta + v_theta')

    Args:
      obs: [T, O], real states, in order.
      noise: [T, ...], of policy and model, with which `step` leads from each state to the next.
      inside: [T], bool, which rows belong to the episode; the others may be anywhere and are ignored.
    """

    def back(after: tuple[PyTree, Array], row: tuple[Array, PyTree, Array]) -> tuple[tuple[PyTree, Array], None]:
        v_theta, v_obs = after
        state, step_noise, counts = row
        _, pull = jax.vjp(lambda theta, state: step(theta, state, step_noise), theta, state)
        d_theta, d_obs = pull((jnp.ones(()), discount * v_obs))
        v_theta = jax.tree.map(lambda d, v: jnp.where(counts, d + discount * v, v), d_theta, v_theta)
        return (v_theta, jnp.where(counts, d_obs, v_obs)), None

    nothing = jax.tree.map(jnp.zeros_like, theta), jnp.zeros(obs.shape[1:])
    return jax.lax.scan(back, nothing, (obs, noise, inside), reverse=True)[0]
