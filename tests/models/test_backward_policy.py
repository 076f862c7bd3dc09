import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mbpo_jax import replay
from mbpo_jax.models import backward_policy
from mbpo_jax.models.backward_policy import BackwardPolicy
from mbpo_jax.models.encoding import backward
from mbpo_jax.networks import InverseActor
from mbpo_jax.types import Spec, Transition

SPEC = Spec(obs_dim=2, action_dim=1)
POLICY = BackwardPolicy(SPEC, InverseActor(1, 8, 1), optax.adam(0.02), batch_size=64, num_rows=8, variance=0.01)
LOG_VAR = 1.0 - math.log1p(math.e)  # of a network of zeros: 0 bounded by 1 from above; -10 is far below


def softplus(x):
    return math.log1p(math.exp(x))


def rows(action, num_rows=3):
    zeros = jnp.zeros((num_rows, 2))
    return Transition(
        obs=zeros,
        action=jnp.full((num_rows, 1), action),
        reward=zeros[:, 0],
        next_obs=zeros + jnp.asarray([1.0, -1.0]),
        terminal=zeros[:, 0],
    )


def zeros():
    return jax.tree.map(jnp.zeros_like, backward_policy.init(POLICY, jax.random.key(0)).params)


def output_bias(tree):
    return jax.tree.leaves([leaf for path, leaf in jax.tree.leaves_with_path(tree) if leaf.shape == (2,)])[0]


def test_the_loss_is_the_likelihood_of_the_action_given_where_it_led():
    params = zeros()
    mean, log_var = backward_policy.predict(POLICY, params, jnp.ones((4, 2)))
    np.testing.assert_array_equal(mean, np.zeros((4, 1)))
    np.testing.assert_allclose(log_var, np.full((4, 1), softplus(LOG_VAR + 10.0) - 10.0), rtol=1e-5)
    expected = 0.64 * math.exp(-LOG_VAR) + LOG_VAR
    np.testing.assert_allclose(backward_policy.loss(POLICY, params, rows(0.8)), expected, rtol=1e-3)


def test_the_gradient_draws_the_mean_to_the_action_and_the_variance_to_its_square():
    """Of zeros only the last bias has one: -2 (a - m) / var of the mean, 1 - (a - m)^2 / var of the log-variance."""
    params = zeros()
    grads = jax.grad(backward_policy.loss, argnums=1)(POLICY, params, rows(0.8))
    bias = output_bias(grads)
    slope = 1.0 - 1.0 / (1.0 + math.e)  # of the bound at 0: the sigmoid of 1 - 0
    wanted = [-2.0 * 0.8 * math.exp(-LOG_VAR), (1.0 - 0.64 * math.exp(-LOG_VAR)) * slope]
    np.testing.assert_allclose(bias, wanted, rtol=1e-3)
    assert sum(float(jnp.abs(leaf).sum()) for leaf in jax.tree.leaves(grads)) == pytest.approx(
        float(jnp.abs(bias).sum())
    )
    at_mean = output_bias(jax.grad(backward_policy.loss, argnums=1)(POLICY, params, rows(0.0)))
    assert float(at_mean[0]) == 0.0
    assert float(at_mean[1]) > 0.0  # less variance would be likelier
    spread = math.exp(LOG_VAR / 2.0)
    at_spread = output_bias(jax.grad(backward_policy.loss, argnums=1)(POLICY, params, rows(spread)))
    np.testing.assert_allclose(at_spread[1], 0.0, atol=1e-3)


def test_where_the_step_began_does_not_matter():
    params = backward_policy.init(POLICY, jax.random.key(1)).params
    here, there = rows(0.3), rows(0.3).replace(obs=jnp.full((3, 2), 9.0))
    assert float(backward_policy.loss(POLICY, params, here)) == float(backward_policy.loss(POLICY, params, there))
    elsewhere = here.replace(next_obs=here.next_obs + 1.0)
    assert float(backward_policy.loss(POLICY, params, here)) != float(backward_policy.loss(POLICY, params, elsewhere))


def test_it_learns_from_the_newest_rows():
    """Of the newest 8 rows, where actions are 0.5; the 20 before had -0.9."""
    real = replay.add(replay.init(SPEC, 30), rows(-0.9, 20))
    real = replay.add(real, rows(0.5, 8))
    update = jax.jit(functools.partial(backward_policy.update, POLICY))
    state = backward_policy.init(POLICY, jax.random.key(0))
    losses = []
    for i in range(150):
        state, report = update(jax.random.key(i), state, real)
        losses.append(float(report.metrics["loss"]))
    mean, log_var = backward_policy.predict(POLICY, state.params, jnp.asarray([[1.0, -1.0]]))
    np.testing.assert_allclose(mean, [[0.5]], atol=0.05)
    assert losses[-1] < losses[0] - 1.0
    assert float(log_var[0, 0]) < -2.0


@pytest.mark.parametrize(("variance", "std"), [(0.01, 0.1), (None, math.exp(LOG_VAR / 2.0))])
def test_actions_are_drawn_within_two_deviations_and_within_bounds(variance, std):
    policy = POLICY._replace(variance=variance)
    params, obs = zeros(), jnp.zeros((4000, 2))
    action = np.asarray(backward_policy.draw(policy, params, jax.random.key(0), obs))
    assert action.shape == (4000, 1)
    most = min(2.0 * std, 1.0)
    assert most * 0.97 < np.abs(action).max() <= most + 1e-3
    if variance is not None:  # 0.8796 is the deviation of a standard normal variable cut off at two
        np.testing.assert_allclose(action.std(), 0.8796 * std, rtol=0.03)
        assert abs(action.mean()) < 0.01


def test_the_encoding_finds_the_state_before_in_a_linear_world():
    """s' = A s + B a, r = c s: what is before is linear in (s', a), so least squares on the examples is exact."""
    rng = np.random.default_rng(0)
    matrix, push, price = np.array([[1.0, 0.1], [-0.2, 0.9]]), np.array([[0.0], [0.5]]), np.array([2.0, -1.0])
    obs, action = rng.normal(size=(40, 2)), rng.uniform(-1, 1, (40, 1))
    moves = Transition(
        obs=obs, action=action, reward=obs @ price, next_obs=obs @ matrix.T + action @ push.T, terminal=np.zeros(40)
    )
    encoding = backward(SPEC)
    assert (encoding.num_inputs, encoding.num_targets) == (3, 3)
    x, y = encoding.examples(jax.tree.map(jnp.float32, moves))
    np.testing.assert_allclose(y[:, 0], moves.reward, rtol=1e-5)
    np.testing.assert_allclose(x, np.concatenate([moves.next_obs, action], -1), rtol=1e-5)
    inverse = np.linalg.inv(matrix)
    weights, *_ = np.linalg.lstsq(np.asarray(x), np.asarray(y), rcond=None)
    np.testing.assert_allclose(weights[:, 1:].T, np.concatenate([inverse - np.eye(2), -inverse @ push], -1), atol=1e-4)
    after, act = jnp.float32(moves.next_obs), jnp.float32(action)
    found, reward = encoding.decode(after, act, encoding.inputs(after, act) @ jnp.float32(weights))
    np.testing.assert_allclose(found, obs, atol=1e-4)
    np.testing.assert_allclose(reward, moves.reward, atol=1e-4)
