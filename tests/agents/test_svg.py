"""SVG's policy, whose noise can be told, its weights, targets and gradients, by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.agents import svg
from mbpo_jax.types import Spec, Transition

SPEC = Spec(obs_dim=2, action_dim=1)
CONFIG = svg.SvgAgentConfig(hidden_units=8, num_hidden_layers=1, least_std=0.3)
AGENT = svg.build(CONFIG, SPEC)


def rows(num_rows=6):
    keys = jax.random.split(jax.random.key(3), 3)
    obs, next_obs = (jax.random.normal(key, (num_rows, 2)) for key in keys[:2])
    action = jax.random.uniform(keys[2], (num_rows, 1), minval=-0.9, maxval=0.9)
    terminal = jnp.zeros(num_rows).at[0].set(1.0)
    return Transition(obs=obs, action=action, reward=jnp.arange(num_rows) / 3.0, next_obs=next_obs, terminal=terminal)


def test_the_noise_of_an_action_is_the_one_that_made_it():
    params = svg.init(AGENT, jax.random.key(0), False).actor.params
    noise = jax.random.normal(jax.random.key(1), (6, 1))
    action = svg.act(AGENT, params, rows().obs, noise)
    found = svg.noise_of(AGENT, params, rows().obs, action)
    np.testing.assert_allclose(found, noise, rtol=1e-4, atol=1e-4)
    at_the_bound = svg.noise_of(AGENT, params, rows().obs, jnp.ones((6, 1)))
    assert bool(jnp.isfinite(at_the_bound).all())


def test_the_probability_of_an_action_integrates_to_one():
    params = svg.init(AGENT, jax.random.key(0), False).actor.params
    actions = jnp.linspace(-0.9995, 0.9995, 4000)[:, None]
    density = jnp.exp(svg.log_prob(AGENT, params, jnp.zeros((4000, 2)), actions))
    assert float(jnp.mean(density) * 2.0) == pytest.approx(1.0, abs=0.01)


def test_weights_are_ratios_and_are_cut():
    """Twice as likely, half as likely, and so much likelier that the ratio is no float32."""
    weights = svg.importance(
        jnp.log(jnp.array([0.5, 0.25, 1.0])), jnp.array([math.log(0.25), math.log(0.5), -500.0]), 10.0
    )
    np.testing.assert_allclose(weights, [2.0, 0.5, 10.0], rtol=1e-5)


def test_targets_by_hand():
    found = svg.critic_target(jnp.array([1.0, 2.0]), jnp.array([0.0, 1.0]), jnp.array([10.0, 10.0]), 0.9)
    np.testing.assert_allclose(found, [10.0, 2.0])


@pytest.mark.parametrize(("every", "expected"), [(0, [0.25, 0.4375, 0.578125]), (2, [0.0, 1.0, 1.0])])
def test_a_target_moves_by_a_share_or_is_copied_now_and_then(every, expected):
    """From 0 to a critic of 1: a quarter of what is left each time, or at updates 2 and 4."""
    agent = AGENT._replace(config=svg.SvgAgentConfig(target_update_rate=0.25, target_copy_updates=every))
    critic = svg.Learner(params=jnp.ones(()), opt_state=())
    target, found = jnp.zeros(()), []
    for number in (1, 2, 3):
        target = svg.move_target(agent, critic, target, jnp.int32(number))
        found.append(float(target))
    assert found == pytest.approx(expected)


def moved(action):
    """Steps of x' = x + action in the first number, and rewards -action^2, as if noise had explained the rest."""
    next_obs = rows().obs + jnp.concatenate([action, jnp.zeros_like(action)], -1)
    return next_obs, -jnp.square(action[:, 0])


def test_the_actor_of_svg_1_maximises_reward_and_value_with_its_own_noise():
    """The loss at the parameters is minus the weighted mean of r + 0.99 V(x') at the real actions."""
    state = svg.init(AGENT, jax.random.key(0), False)
    log_prob = svg.log_prob(AGENT, state.actor.params, rows().obs, rows().action)
    behaviour = log_prob - jnp.log(jnp.array([1.0, 2.0, 0.5, 1.0, 3.0, 100.0]))
    weight = np.array([1.0, 2.0, 0.5, 1.0, 3.0, 10.0])
    step = jax.jit(lambda behaviour: svg.update_once(AGENT, state, svg.svg_1(AGENT, moved, state, rows(), behaviour)))
    after, (metrics, _) = step(behaviour)
    next_obs, reward = moved(rows().action)
    alive = 1.0 - rows().terminal
    value = svg.value(AGENT, state.critic.params, next_obs)
    assert metrics["actor_loss"] == pytest.approx(-float(jnp.mean(weight * (reward + 0.99 * alive * value))), rel=1e-4)
    target = rows().reward + 0.99 * alive * svg.value(AGENT, state.target_params, rows().next_obs)
    error = svg.value(AGENT, state.critic.params, rows().obs) - target
    assert metrics["critic_loss"] == pytest.approx(0.5 * float(jnp.mean(weight * error**2)), rel=1e-4)
    assert not np.allclose(
        after.actor.params["_Mlp_0"]["Dense_1"]["kernel"], state.actor.params["_Mlp_0"]["Dense_1"]["kernel"]
    )
    unlikely, _ = step(jnp.full(6, 200.0))  # nothing that this policy would do: nothing to learn from
    jax.tree.map(np.testing.assert_array_equal, unlikely.actor.params, state.actor.params)
    jax.tree.map(np.testing.assert_array_equal, unlikely.critic.params, state.critic.params)


def test_svg_0_needs_no_model_and_no_weights():
    """Its critic regresses on the target's Q of the policy's next actions; its actor maximises Q of those now."""
    state = svg.init(AGENT, jax.random.key(0), True)
    noise = jax.random.normal(jax.random.key(4), (2, 6, 1))
    update = jax.jit(lambda: svg.update_once(AGENT, state, svg.svg_0(AGENT, state, rows(), *noise)))
    _, (metrics, _) = update()
    assert metrics["weight_mean"] == 1.0
    action = svg.act(AGENT, state.actor.params, rows().obs, noise[0])
    assert metrics["actor_loss"] == pytest.approx(
        -float(jnp.mean(svg.q_value(AGENT, state.critic.params, rows().obs, action))), rel=1e-4
    )
    next_action = svg.act(AGENT, state.actor.params, rows().next_obs, noise[1])
    next_value = svg.q_value(AGENT, state.target_params, rows().next_obs, next_action)
    target = rows().reward + 0.99 * (1.0 - rows().terminal) * next_value
    error = svg.q_value(AGENT, state.critic.params, rows().obs, rows().action) - target
    assert metrics["critic_loss"] == pytest.approx(0.5 * float(jnp.mean(error**2)), rel=1e-4)
