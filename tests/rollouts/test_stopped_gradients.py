"""Which gradients stop where targets are expanded through a model, or the actor's value is, and which do not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.agents import sac
from mbpo_jax.rollouts import ensemble_expansion, pathwise, value_expansion
from mbpo_jax.types import Dynamics, Learning, Spec, Transition

SPEC = Spec(obs_dim=2, action_dim=2)
AGENT = sac.build(sac.SacConfig(hidden_units=8, num_hidden_layers=1, learning_rate=0.1), SPEC)


def moves(size, group, obs, action):
    """x' = x + (1 + group) size a, reward -|x'|^2."""
    next_obs = obs + (1.0 + group) * size * action
    return next_obs, -jnp.sum(jnp.square(next_obs), -1), jnp.zeros(len(obs), bool)


def world(size):
    return Dynamics(lambda key, group, obs, action: moves(size, group, obs, action), 2)


def batch(num_rows=16):
    rng = np.random.default_rng(0)
    rows = [rng.normal(size=(num_rows, 2)).astype(np.float32) for _ in range(3)]
    obs, action, next_obs = rows[0], np.tanh(rows[1]), rows[2]
    return Transition(
        obs=obs, action=action, reward=obs[:, 0], next_obs=next_obs, terminal=np.zeros(num_rows, np.float32)
    )


# Its targets read the very critics that learn, so that a gradient through a target would change what they learn.
ON_ITSELF = AGENT._replace(critic=AGENT.critic._replace(target_q_values=AGENT.critic.q_values))


def mve(size):
    return functools.partial(value_expansion.expand, world(size), ON_ITSELF, 2, 0.9, True)


def steve(size):
    return functools.partial(ensemble_expansion.expand, world(size), ON_ITSELF, 2, 0.9, "inverse_variance", 0.5, None)


def maac(size):
    return functools.partial(pathwise.actor_loss, world(size), AGENT, 2, 0.9)


def updated(learning, state):
    rows = jax.tree.map(lambda leaf: leaf[None], batch())
    return AGENT.update(jax.random.key(1), state, rows, learning)[0]


@pytest.mark.parametrize("method", [mve, steve])
def test_critics_learn_towards_a_target_and_not_through_it(method):
    """A target depends on model, target critics, policy and temperature: none of them learns from the critics' loss."""
    expand = method(0.5)

    def stopped(key, state, rows):
        return jax.tree.map(jax.lax.stop_gradient, expand(key, jax.lax.stop_gradient(state), rows))

    @jax.jit
    def both(state):
        after = [updated(Learning(regression=regression), state) for regression in (expand, stopped, None)]
        target = jax.grad(lambda one: jnp.sum(expand(jax.random.key(2), one, batch()).target), allow_int=True)
        return after, target(state).critics.params

    (plain, cut, own), of_critics = both(jax.jit(AGENT.init)(jax.random.key(0)))
    jax.tree.map(np.testing.assert_array_equal, plain, cut)
    jax.tree.map(np.testing.assert_array_equal, plain.actor.params, own.actor.params)  # the actor's loss is SAC's own
    assert max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(of_critics)) > 1e-3  # there was one to stop
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), plain.critics.params, own.critics.params)
    assert max(jax.tree.leaves(moved)) > 1e-3  # and another target


def test_the_actor_learns_through_the_model_and_the_critics_do_not_learn_from_its_loss():
    def through(size, stop):
        def dynamics(key, group, obs, action):
            found = moves(size, group, obs, action)
            return jax.lax.stop_gradient(found) if stop else found

        return functools.partial(pathwise.actor_loss, Dynamics(dynamics, 2), AGENT, 2, 0.9)

    def fixed(key, actor, state, rows):
        return maac(0.5)(key, actor, jax.lax.stop_gradient(state), rows)

    @jax.jit
    def all_of(state):
        losses = through(0.5, False), fixed, through(0.5, True), None
        after = [updated(Learning(actor_loss=loss), state) for loss in losses]
        loss = maac(0.5)
        of_critics = jax.grad(lambda one: loss(jax.random.key(2), state.actor.params, one, batch())[0], allow_int=True)
        return after, of_critics(state).critics.params

    (plain, cut, without_model, own), of_critics = all_of(jax.jit(AGENT.init)(jax.random.key(0)))
    jax.tree.map(np.testing.assert_array_equal, plain, cut)
    jax.tree.map(
        np.testing.assert_array_equal, plain.critics.params, own.critics.params
    )  # the critics' loss is SAC's own
    assert max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(of_critics)) > 1e-3  # there was one to ignore
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), plain.actor.params, without_model.actor.params)
    assert max(jax.tree.leaves(moved)) > 1e-3  # the model's gradient counts
