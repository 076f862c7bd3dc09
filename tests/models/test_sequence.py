"""A model of sequences: what it predicts and loses by hand, where its gradient stops, and what it can learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax import normalizer, replay, terminations
from mbpo_jax.models import sequence
from mbpo_jax.models.sequence import SequenceConfig
from mbpo_jax.normalizer import Normalizer
from mbpo_jax.types import Spec, Transition

SPEC = Spec(obs_dim=1, action_dim=1, termination_fn=terminations.never)
ONE_LAYER = SequenceConfig(model_hidden_units=4, model_hidden_layers=1)


def by_hand(bias=0.0):
    """Parameters of x' = 0.9 x + 0.5 a + bias: hidden units are x, -x, a and -a where they are positive."""
    into = jnp.array([[1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 1.0, -1.0]])
    out = jnp.array([-0.1, 0.1, 0.5, -0.5])[:, None]
    return {"Dense_0": {"kernel": into, "bias": jnp.zeros(4)}, "Dense_1": {"kernel": out, "bias": jnp.full(1, bias)}}


ACTIONS = jnp.array([1.0, -1.0])[:, None, None]  # [T, B, A]
TARGETS = jnp.array([2.5, 2.0])[:, None, None]  # of x' = x + 0.5 a, from 2


def unrolled_loss(params, weight=(1.0, 1.0)):
    model = sequence.build(ONE_LAYER, SPEC, 2)
    predicted = sequence.unroll(model, params, jnp.array([[2.0]]), ACTIONS)
    return sequence.loss(predicted, TARGETS, jnp.array(weight)[:, None])


def test_an_unrolled_linear_system_and_its_loss_are_those_worked_by_hand():
    """0.9 * 2 + 0.5 = 2.3, and 0.9 * 2.3 - 0.5 = 1.57."""
    model = sequence.build(ONE_LAYER, SPEC, 2)
    predicted = sequence.unroll(model, by_hand(), jnp.array([[2.0]]), ACTIONS)
    np.testing.assert_allclose(predicted[:, 0, 0], [2.3, 1.57], rtol=1e-6)
    assert unrolled_loss(by_hand()) == pytest.approx((0.2**2 + 0.43**2) / 2, rel=1e-5)


def test_no_gradient_flows_through_a_predicted_observation():
    """With respect to the bias: of each step's error alone; through the first prediction it would be -1.017."""
    gradient = jax.grad(lambda bias: unrolled_loss(by_hand(bias)))(0.0)
    assert gradient == pytest.approx(-0.2 - 0.43, rel=1e-5)


def test_steps_without_weight_teach_nothing():
    assert unrolled_loss(by_hand(), (1.0, 0.0)) == pytest.approx(0.2**2, rel=1e-5)
    gradient = jax.grad(lambda bias: unrolled_loss(by_hand(bias), (1.0, 0.0)))(0.0)
    assert gradient == pytest.approx(-0.4, rel=1e-5)
    assert unrolled_loss(by_hand(), (0.0, 0.0)) == 0.0


def test_observations_as_they_are_move_as_scaled_ones_do_and_rules_see_them_as_they_are():
    """Scaled by (x - 1) / 2, from 5 by 1: the scaled 2 goes to 2.3, which is 5.6."""
    spec = SPEC._replace(
        termination_fn=lambda obs, action, next_obs: (obs[:, 0] == 5.0) & (next_obs[:, 0] > 5.5),
        reward_fn=lambda obs, action, next_obs: 10.0 * obs[:, 0] + action[:, 0] + 100.0 * next_obs[:, 0],
    )
    model, scale = sequence.build(ONE_LAYER, spec, 1), Normalizer(mean=jnp.ones(1), std=jnp.full(1, 2.0))
    state = sequence.init(model, jax.random.key(0))
    state = state.replace(dynamics=state.dynamics.replace(params=by_hand()))
    how = jax.random.key(0), jnp.int32(0)
    plain = sequence.dynamics(model, state, scale).step_fn(*how, jnp.array([[5.0]]), jnp.ones((1, 1)))
    np.testing.assert_allclose(plain[0], [[5.6]], rtol=1e-6)
    np.testing.assert_allclose(plain[1], [50.0 + 1.0 + 560.0], rtol=1e-6)
    assert plain[2].tolist() == [True]
    after, reward, ends = sequence.scaled_dynamics(model, state, scale).step_fn(
        *how, jnp.array([[2.0]]), jnp.ones((1, 1))
    )
    np.testing.assert_allclose(after, [[2.3]], rtol=1e-6)
    assert (reward.tolist(), ends.tolist()) == (plain[1].tolist(), plain[2].tolist())


def rows_of_system(num_rows=400, episode=20):
    """Rows of x' = x + the action before, and of rewards 3 x - a, in episodes that begin anywhere."""
    rng = np.random.default_rng(0)
    action = rng.uniform(-1, 1, (num_rows, 1)).astype(np.float32)
    first = np.arange(num_rows) % episode == 0
    obs, next_obs, x, before = [], [], 0.0, 0.0
    for i in range(num_rows):
        x, before = (rng.uniform(-1, 1), 0.0) if first[i] else (x, before)
        obs.append([x])
        x, before = x + before, action[i, 0]
        next_obs.append([x])
    obs, next_obs = np.array(obs, np.float32), np.array(next_obs, np.float32)
    rows = Transition(
        obs=obs, action=action, reward=3.0 * obs[:, 0] - action[:, 0], next_obs=next_obs, terminal=np.zeros(num_rows)
    )
    buffer = replay.init(SPEC, num_rows, episodes=True)
    return replay.add(buffer, jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), rows), first=jnp.array(first))


@pytest.mark.parametrize("dynamics", [sequence.MLP, sequence.GRU])
def test_a_model_that_remembers_learns_what_another_cannot_and_both_learn_the_reward(dynamics):
    """Where the state hides the last action, the step after the first can be known to who remembers it."""
    config = SequenceConfig(
        dynamics=dynamics,
        model_hidden_units=16,
        model_hidden_layers=1,
        model_learning_rate=1e-2,
        model_batch_size=64,
        fit_minibatches=200,
    )
    model, buffer, scale = sequence.build(config, SPEC, 2), rows_of_system(), normalizer.identity(1)
    fitted, report = jax.jit(lambda key, state: sequence.fit(model, key, state, scale, buffer))(
        jax.random.key(0), sequence.init(model, jax.random.key(1))
    )
    assert report.metrics["inside_fraction"] == pytest.approx(0.975, abs=0.01)  # one in 40 starts at an episode's end
    obs, actions = jnp.zeros((2, 1)), jnp.array([[[0.8], [-0.8]], [[0.3], [0.3]]])
    second_step = sequence.unroll(model, fitted.dynamics.params, obs, actions)
    moved = second_step[1, :, 0] - second_step[0, :, 0]
    if dynamics == sequence.GRU:
        np.testing.assert_allclose(moved, [0.8, -0.8], atol=0.15)
    else:
        np.testing.assert_allclose(moved, [0.0, 0.0], atol=0.4)
    reward = sequence.predict_reward(model, fitted.reward.params, jnp.full((1, 1), 0.5), jnp.full((1, 1), -0.5))
    np.testing.assert_allclose(reward, [2.0], atol=0.4)  # of rewards that spread over some 10
