"""The actor's gradient in a linear system: the true one if nothing is wrong; either error acts as the lemma says."""

import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.studies import actor_gradient


def test_with_exact_model_and_critic_the_gradient_is_that_of_real_rewards():
    exact, real = (float(actor_gradient.gradient(1, is_real, 0.0, 0.0)) for is_real in (False, True))
    assert exact == pytest.approx(real, rel=0.02)
    assert exact > 0  # a larger gain than the policy's would be better


def test_the_critic_is_the_one_worked_by_hand():
    """From s = 1, a = 0.2 costs 1.004 and leads to s = 1; the policy then pays 1.016 s^2 a step, s falling by 0.3."""
    obs, action = jnp.ones((1, 1)), jnp.full((1, 1), 0.2)
    later = 1.016 / (1 - 0.95 * 0.7**2)
    assert actor_gradient.exact_q(1.0, None, obs, action)[0, 0] == pytest.approx(-1.004 - 0.95 * later, rel=1e-5)
    assert actor_gradient.exact_q(1.5, None, obs, action)[0, 0] == pytest.approx(-1.004 - 1.5 * 0.95 * later, rel=1e-5)


def test_errors_of_the_model_grow_with_steps_and_those_of_the_critic_fall():
    errors = actor_gradient.study(num_steps=2).numbers["errors"]
    model, critic = errors["wrong model, exact critic"], errors["exact model, wrong critic"]
    assert model[0] < 0.8 * model[1]
    assert critic[1] < 0.8 * critic[0]
    assert np.all(np.asarray(errors["both wrong"]) > 0.1)
