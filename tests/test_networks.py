import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.networks import Actor, Critic, DeterministicActor, GaussianMlp, SmoothMlp, normalize_features

TRUNCATED = 0.8796  # standard deviation of a standard normal that is cut off at -2 and 2
LEADING = pytest.mark.parametrize("leading", [(), (5,), (2, 5)])

MODEL = GaussianMlp(num_targets=40, hidden_units=120, num_hidden_layers=2)


@functools.cache
def first_params(network, *sizes, seed=0):
    """What a network of inputs of these sizes starts with."""
    inputs = [jnp.zeros(size) for size in sizes]
    return jax.jit(network.init)(jax.random.key(seed), *inputs)["params"]


def random_params(network, *sizes, scale=1.0):
    """Parameters of the right shapes, biases included, that are nowhere zero."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(network.init, jax.random.key(0), *(jnp.zeros(size) for size in sizes))["params"]
    return jax.tree.map(lambda leaf: jnp.asarray(scale * rng.normal(size=leaf.shape), jnp.float32), shapes)


def shapes_of_outputs(network, *sizes, leading):
    params = jax.eval_shape(network.init, jax.random.key(0), *(jnp.zeros(size) for size in sizes))
    inputs = (jax.ShapeDtypeStruct((*leading, size), jnp.float32) for size in sizes)
    return jax.tree.map(lambda output: output.shape, jax.eval_shape(network.apply, params, *inputs))


def layer(params, x):
    return x @ np.asarray(params["kernel"], np.float64) + np.asarray(params["bias"], np.float64)


def relu_layers(params, x):
    """The network inside actor and critic, in numpy."""
    (body,) = params.values()
    for i in range(len(body) - 1):
        x = np.maximum(layer(body[f"Dense_{i}"], x), 0.0)
    return layer(body[f"Dense_{len(body) - 1}"], x)


@pytest.mark.parametrize(
    ("name", "fan_in", "fan_out"),
    [("layer_0", 60, 120), ("layer_1", 120, 120), ("mean", 120, 40), ("log_var", 120, 40)],
)
def test_weights_of_the_model_are_a_normal_cut_off_at_two_standard_deviations(name, fan_in, fan_out):
    kernel = np.asarray(first_params(MODEL, 60)[name]["kernel"])
    std = 1.0 / (2.0 * math.sqrt(fan_in))
    assert kernel.shape == (fan_in, fan_out)
    assert 1.9 * std < np.abs(kernel).max() <= 2.0 * std * (1.0 + 1e-6)
    assert kernel.std() == pytest.approx(TRUNCATED * std, rel=0.03)
    assert abs(kernel.mean()) < 4.0 * std / math.sqrt(kernel.size)


def test_biases_of_the_model_start_at_zero_and_its_layers_differ():
    params = first_params(MODEL, 60)
    assert set(params) == {"layer_0", "layer_1", "mean", "log_var"}
    assert not any(np.any(layer["bias"]) for layer in params.values())
    assert np.mean(np.asarray(params["mean"]["kernel"]) == np.asarray(params["log_var"]["kernel"])) < 0.01


def test_the_model_is_swish_layers_with_two_heads(variant):
    network = GaussianMlp(num_targets=3, hidden_units=7, num_hidden_layers=2)
    params = random_params(network, 4)
    x = np.random.default_rng(1).normal(size=(2, 5, 4))
    mean, log_var = variant(network.apply)({"params": params}, jnp.asarray(x, jnp.float32))
    hidden = x
    for name in ("layer_0", "layer_1"):
        hidden = layer(params[name], hidden)
        hidden = hidden / (1.0 + np.exp(-hidden))
    np.testing.assert_allclose(mean, layer(params["mean"], hidden), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(log_var, layer(params["log_var"], hidden), rtol=1e-4, atol=1e-4)


def test_each_head_has_gradients_of_its_own():
    params = random_params(MODEL, 60)
    grads = jax.jit(jax.grad(lambda params: jnp.sum(MODEL.apply({"params": params}, jnp.ones(60))[0])))(params)
    assert np.any(grads["mean"]["kernel"])
    assert np.any(grads["layer_0"]["kernel"])
    assert not np.any(grads["log_var"]["kernel"])


def test_every_product_of_the_model_is_in_full_float32():
    jaxpr = jax.make_jaxpr(MODEL.apply)({"params": random_params(MODEL, 60)}, jnp.zeros((2, 60))).jaxpr
    products = [eqn.params["precision"] for eqn in jaxpr.eqns if eqn.primitive.name == "dot_general"]
    assert products == [(jax.lax.Precision.HIGHEST, jax.lax.Precision.HIGHEST)] * 4


def test_the_actor_is_relu_layers_split_into_mean_and_log_std(variant):
    actor = Actor(action_dim=3, hidden_units=6, num_hidden_layers=2)
    params = random_params(actor, 4, scale=0.3)
    obs = np.random.default_rng(1).normal(size=(2, 5, 4))
    mean, log_std = variant(actor.apply)({"params": params}, jnp.asarray(obs, jnp.float32))
    expected = relu_layers(params, obs)
    np.testing.assert_allclose(mean, expected[..., :3], rtol=1e-4, atol=1e-5)
    assert np.abs(expected[..., 3:]).max() < 2.0  # inside the bounds
    np.testing.assert_allclose(log_std, expected[..., 3:], rtol=1e-4, atol=1e-5)


def test_the_deterministic_actor_is_relu_layers_and_a_tanh(variant):
    actor = DeterministicActor(action_dim=3, hidden_units=6, num_hidden_layers=2)
    params = random_params(actor, 4, scale=0.3)
    obs = np.random.default_rng(1).normal(size=(2, 5, 4))
    action = variant(actor.apply)({"params": params}, jnp.asarray(obs, jnp.float32))
    np.testing.assert_allclose(action, np.tanh(relu_layers(params, obs)), rtol=1e-4, atol=1e-5)


def test_the_critic_is_relu_layers_of_obs_then_action(variant):
    critic = Critic(hidden_units=6, num_hidden_layers=2)
    params = random_params(critic, 4, 2)
    rng = np.random.default_rng(1)
    obs, action = rng.normal(size=(2, 5, 4)), rng.normal(size=(2, 5, 2))
    q = variant(critic.apply)({"params": params}, jnp.asarray(obs, jnp.float32), jnp.asarray(action, jnp.float32))
    expected = relu_layers(params, np.concatenate([obs, action], -1))
    np.testing.assert_allclose(q, expected[..., 0], rtol=1e-4, atol=1e-4)


@LEADING
def test_leading_axes_are_kept_and_the_critic_gives_one_number(leading):
    assert shapes_of_outputs(GaussianMlp(3, 7, 2), 4, leading=leading) == ((*leading, 3), (*leading, 3))
    assert shapes_of_outputs(Actor(2, 6, 1), 4, leading=leading) == ((*leading, 2), (*leading, 2))
    assert shapes_of_outputs(DeterministicActor(2, 6, 1), 4, leading=leading) == (*leading, 2)
    assert shapes_of_outputs(Critic(6, 1), 4, 2, leading=leading) == leading


@pytest.mark.parametrize(("raw", "clipped", "moves"), [(100.0, 2.0, False), (-100.0, -20.0, False), (1.0, 1.0, True)])
def test_log_std_is_clipped_and_no_gradient_passes_outside(raw, clipped, moves):
    actor = Actor(action_dim=2, hidden_units=6, num_hidden_layers=1)
    params = random_params(actor, 4, scale=0.1)
    ((name, body),) = params.items()
    # The second action's log_std is pushed to `raw`; its mean, pushed as far, is not bounded.
    last = {"kernel": body["Dense_1"]["kernel"], "bias": jnp.array([0.0, 50.0, 0.0, raw])}
    params = {name: {**body, "Dense_1": last}}

    @jax.jit
    def heads_and_gradients(params):
        def head(params, i):
            return actor.apply({"params": params}, jnp.array([0.1, 0.0, -0.1, 0.2]))[i][1]

        return [jax.value_and_grad(head)(params, i) for i in range(2)]

    (mean, to_mean), (log_std, to_log_std) = heads_and_gradients(params)
    assert float(log_std) == pytest.approx(clipped, abs=0.5 if moves else 0.0)
    assert float(mean) == pytest.approx(50.0, abs=0.5)
    assert any(np.any(leaf) for leaf in jax.tree.leaves(to_log_std)) == moves
    assert any(np.any(leaf) for leaf in jax.tree.leaves(to_mean))


@pytest.mark.parametrize(("network", "sizes"), [(Actor(30, 100, 2), (50,)), (Critic(100, 2), (30, 20))])
def test_actor_and_critic_start_glorot_uniform_with_zero_biases(network, sizes):
    (body,) = first_params(network, *sizes).values()
    assert [body[f"Dense_{i}"]["kernel"].shape[0] for i in range(3)] == [50, 100, 100]
    for dense in body.values():
        kernel = np.asarray(dense["kernel"])
        limit = math.sqrt(6.0 / sum(kernel.shape))
        assert 0.9 * limit < np.abs(kernel).max() <= limit
        assert kernel.std() == pytest.approx(limit / math.sqrt(3.0), rel=0.15)
        assert not np.any(dense["bias"])


def test_dropout_zeroes_a_share_of_a_layer_s_units_and_scales_up_the_others():
    """Of layers that hold ones only: what is dropped before the activation is missing from the sum after it."""
    network = SmoothMlp(1, hidden_units=400, num_hidden_layers=1, dropout_rates=(0.2,))
    params = jax.tree.map(jnp.zeros_like, first_params(network, 3))
    params = {**params, "Dense_0": {**params["Dense_0"], "bias": jnp.full(400, 8.0)}}  # swish(10) is nearly 10
    params = {**params, "Dense_1": {**params["Dense_1"], "kernel": jnp.full((400, 1), 0.1)}}
    apply = jax.jit(lambda x, key: network.apply({"params": params}, x, key)[:, 0])
    x = jnp.ones((500, 3))
    sums = np.asarray(apply(x, jax.random.key(0)))
    assert sums.mean() == pytest.approx(320.0, rel=0.01)  # 320 units of 10, each times 0.1
    assert sums.std() == pytest.approx(math.sqrt(400 * 0.2 * 0.8), rel=0.15)  # each row has its own
    np.testing.assert_array_equal(sums, apply(x, jax.random.key(0)))
    assert not np.array_equal(sums, apply(x, jax.random.key(1)))
    whole = jax.jit(lambda x: network.apply({"params": params}, x)[:, 0])(x)
    np.testing.assert_allclose(whole, np.full(500, 400 * 0.8 / (1 + math.exp(-8.0))), rtol=1e-5)


def test_features_are_normalised_and_their_gradient_is_that_of_the_formula():
    def formula(x):
        centred = x - x.mean(-1, keepdims=True)
        return centred / jnp.sqrt(jnp.square(centred).mean(-1, keepdims=True) + 0.5)

    x = jnp.asarray([[1.0, 3.0, 1.0, 3.0], [2.0, 2.0, 2.0, 2.0], [-1.0, 0.5, 7.0, 0.0]])
    np.testing.assert_allclose(normalize_features(x, 3.0)[0], [-0.5, 0.5, -0.5, 0.5], rtol=1e-6)  # 1 / sqrt(1 + 3)
    many = jax.random.normal(jax.random.key(0), (2, 3, 200)) + 5.0  # 1 / 200 is not exact
    for rows, weights in ((x, jnp.asarray([1.0, -2.0, 0.3, 4.0])), (many, many[0, 0])):
        gradient, expected = (
            jax.jit(jax.grad(lambda x, fn=fn, weights=weights: jnp.sum(jnp.sin(fn(x)) @ weights)))(rows)
            for fn in (jax.vmap(lambda x: normalize_features(x, 0.5)), formula)
        )
        np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5)
    linear = many[0, 0]
    without_variance = jax.grad(lambda x: normalize_features(x, 0.25) @ linear)(jnp.full(200, 3.0))
    np.testing.assert_allclose(without_variance, 2.0 * (linear - linear.mean()), rtol=1e-4, atol=1e-4)


def test_another_key_makes_another_network():
    one, other = (np.asarray(first_params(MODEL, 60, seed=seed)["layer_0"]["kernel"]) for seed in (0, 1))
    assert np.mean(one == other) < 0.01
