import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.networks import Actor, Critic, GaussianMlp

TRUNCATED = 0.8796  # standard deviation of a standard normal that is cut off at -2 and 2


def params_of(network, *inputs, seed=0):
    return jax.jit(network.init)(jax.random.key(seed), *inputs)["params"]


@functools.cache
def gaussian_mlp():
    network = GaussianMlp(num_targets=40, hidden_units=120, num_hidden_layers=2)
    return network, params_of(network, jnp.zeros(60))


def randomised(params):
    """The same tree, biases included, of numbers that are nowhere zero."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), params)


def layer(params, x):
    return x @ np.asarray(params["kernel"], np.float64) + np.asarray(params["bias"], np.float64)


def mlp_by_hand(params, x):
    """The relu network inside actor and critic, in numpy."""
    (body,) = params.values()
    for i in range(len(body) - 1):
        x = np.maximum(layer(body[f"Dense_{i}"], x), 0.0)
    return layer(body[f"Dense_{len(body) - 1}"], x)


@pytest.mark.parametrize(
    ("name", "fan_in", "fan_out"), [("layer_0", 60, 120), ("layer_1", 120, 120), ("mean", 120, 40), ("log_var", 120, 40)]
)
def test_weights_of_the_model_are_a_normal_cut_off_at_two_standard_deviations(name, fan_in, fan_out):
    kernel = np.asarray(gaussian_mlp()[1][name]["kernel"])
    std = 1.0 / (2.0 * math.sqrt(fan_in))
    assert kernel.shape == (fan_in, fan_out)
    assert 1.9 * std < np.abs(kernel).max() <= 2.0 * std * (1.0 + 1e-6)
    assert kernel.std() == pytest.approx(TRUNCATED * std, rel=0.03)
    assert abs(kernel.mean()) < 4.0 * std / math.sqrt(kernel.size)


def test_biases_start_at_zero_and_layers_differ():
    params = gaussian_mlp()[1]
    assert set(params) == {"layer_0", "layer_1", "mean", "log_var"}
    assert not any(np.any(layer["bias"]) for layer in params.values())
    assert not np.allclose(params["mean"]["kernel"], params["log_var"]["kernel"])


@pytest.mark.parametrize("leading", [(), (5,), (2, 5)])
def test_the_model_is_swish_layers_with_two_heads(variant, leading):
    network = GaussianMlp(num_targets=3, hidden_units=7, num_hidden_layers=2)
    params = randomised(params_of(network, jnp.zeros(4)))
    x = np.random.default_rng(1).normal(size=(*leading, 4))
    mean, log_var = variant(network.apply)({"params": params}, jnp.asarray(x, jnp.float32))
    hidden = x
    for name in ("layer_0", "layer_1"):
        hidden = layer(params[name], hidden)
        hidden = hidden / (1.0 + np.exp(-hidden))
    assert mean.shape == log_var.shape == (*leading, 3)
    np.testing.assert_allclose(mean, layer(params["mean"], hidden), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(log_var, layer(params["log_var"], hidden), rtol=1e-4, atol=1e-4)


def test_each_head_has_gradients_of_its_own():
    network, params = gaussian_mlp()
    grads = jax.grad(lambda params: jnp.sum(network.apply({"params": params}, jnp.ones(60))[0]))(params)
    assert np.any(grads["mean"]["kernel"])
    assert np.any(grads["layer_0"]["kernel"])
    assert not np.any(grads["log_var"]["kernel"])


def test_every_product_of_the_model_is_in_full_float32():
    network, params = gaussian_mlp()
    jaxpr = jax.make_jaxpr(network.apply)({"params": params}, jnp.zeros((2, 60))).jaxpr
    products = [eqn.params["precision"] for eqn in jaxpr.eqns if eqn.primitive.name == "dot_general"]
    assert products == [(jax.lax.Precision.HIGHEST, jax.lax.Precision.HIGHEST)] * 4


@pytest.mark.parametrize("leading", [(), (5,), (2, 5)])
def test_the_actor_is_relu_layers_split_into_mean_and_log_std(variant, leading):
    actor = Actor(num_actions=3, hidden_units=6, num_hidden_layers=2)
    params = jax.tree.map(lambda leaf: 0.3 * leaf, randomised(params_of(actor, jnp.zeros(4))))
    obs = np.random.default_rng(1).normal(size=(*leading, 4))
    mean, log_std = variant(actor.apply)({"params": params}, jnp.asarray(obs, jnp.float32))
    expected = mlp_by_hand(params, obs)
    assert mean.shape == log_std.shape == (*leading, 3)
    np.testing.assert_allclose(mean, expected[..., :3], rtol=1e-4, atol=1e-5)
    assert np.abs(expected[..., 3:]).max() < 2.0  # inside the bounds
    np.testing.assert_allclose(log_std, expected[..., 3:], rtol=1e-4, atol=1e-5)


def with_output_bias(params, bias):
    ((name, body),) = params.items()
    last = f"Dense_{len(body) - 1}"
    return {name: {**body, last: {**body[last], "bias": jnp.asarray(bias)}}}


@pytest.mark.parametrize(("raw", "clipped", "moves"), [(100.0, 2.0, False), (-100.0, -20.0, False), (1.0, 1.0, True)])
def test_log_std_is_clipped_and_no_gradient_passes_outside(variant, raw, clipped, moves):
    actor = Actor(num_actions=2, hidden_units=6, num_hidden_layers=1)
    params = params_of(actor, jnp.zeros(4))
    obs = jnp.array([0.1, 0.0, -0.1, 0.2])
    # The second action's log_std is biased; its mean, first in line, keeps its value and its gradient.
    biased = with_output_bias(params, [0.0, 50.0, 0.0, raw])

    def heads(params):
        mean, log_std = actor.apply({"params": params}, obs)
        return log_std[1], mean[1]

    def slope(head):
        return variant(jax.grad(lambda params: heads(params)[head]))(biased)

    log_std, mean = variant(heads)(biased)
    assert float(log_std) == pytest.approx(clipped, abs=0.0 if not moves else 0.5)
    assert float(mean) == pytest.approx(50.0, abs=0.5)
    assert any(np.any(leaf) for leaf in jax.tree.leaves(slope(0))) == moves
    assert any(np.any(leaf) for leaf in jax.tree.leaves(slope(1)))


@pytest.mark.parametrize("leading", [(), (5,), (2, 5)])
def test_the_critic_gives_one_number_for_obs_then_action(variant, leading):
    critic = Critic(hidden_units=6, num_hidden_layers=2)
    params = randomised(params_of(critic, jnp.zeros(4), jnp.zeros(2)))
    rng = np.random.default_rng(1)
    obs, action = rng.normal(size=(*leading, 4)), rng.normal(size=(*leading, 2))
    q = variant(critic.apply)({"params": params}, jnp.asarray(obs, jnp.float32), jnp.asarray(action, jnp.float32))
    assert q.shape == leading
    np.testing.assert_allclose(q, mlp_by_hand(params, np.concatenate([obs, action], -1))[..., 0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("network", [Actor(30, 100, 2), Critic(100, 2)])
def test_actor_and_critic_start_glorot_uniform_with_zero_biases(network):
    inputs = (jnp.zeros(50),) if isinstance(network, Actor) else (jnp.zeros(30), jnp.zeros(20))
    (body,) = params_of(network, *inputs).values()
    assert [body[f"Dense_{i}"]["kernel"].shape[0] for i in range(3)] == [50, 100, 100]
    for dense in body.values():
        kernel = np.asarray(dense["kernel"])
        limit = math.sqrt(6.0 / sum(kernel.shape))
        assert 0.9 * limit < np.abs(kernel).max() <= limit
        assert kernel.std() == pytest.approx(limit / math.sqrt(3.0), rel=0.15)
        assert not np.any(dense["bias"])


def test_another_key_makes_another_network():
    network = Critic(6, 1)
    kernels = [
        params_of(network, jnp.zeros(4), jnp.zeros(2), seed=seed)["_Mlp_0"]["Dense_0"]["kernel"] for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert not np.any(np.asarray(kernels[0]) == np.asarray(kernels[2]))
