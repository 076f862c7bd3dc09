import compiled
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.models import gaussian
from mbpo_jax.types import FINISHED, Spec, Transition

SPEC = Spec(obs_dim=2, action_dim=1)
A = np.array([[0.9, 0.2], [-0.1, 0.95]])
B = np.array([[0.3, -0.2]])
NOISE_STD = np.array([0.3, 0.1, 0.03])  # reward, then next_obs


PAPERS_FIT = {"fit_epoch_minibatches": 1, "fit_max_gradient_steps": 0}


def linear_mean(obs, action):
    """Targets [reward, next_obs - obs] without noise."""
    reward = obs[:, :1] - 0.5 * action
    return np.concatenate([reward, obs @ A.T + action @ B - obs], -1)


@pytest.fixture(scope="module")
def fitted():
    rng = np.random.default_rng(0)
    obs, action = rng.normal(size=(8000, 2)), rng.uniform(-1, 1, size=(8000, 1))
    target = linear_mean(obs, action) + NOISE_STD * rng.normal(size=(8000, 3))
    rows = Transition(
        obs=obs.astype(np.float32),
        action=action.astype(np.float32),
        reward=target[:, 0].astype(np.float32),
        next_obs=(obs + target[:, 1:]).astype(np.float32),
        terminal=np.zeros(8000, np.float32),
    )
    buffer = compiled.filled(SPEC, 8000, rows)
    config = gaussian.GaussianConfig(num_members=3, num_elites=2, model_hidden_units=32, **PAPERS_FIT)
    model = gaussian.build(config, SPEC)
    state, programs = jax.jit(model.init)(jax.random.key(0)), [jax.jit(program) for program in model.fit.functions]
    due_after = jax.jit(model.fit.due)
    metrics = {}
    for fit in range(2):
        due = 0
        while due != FINISHED:
            state, report = programs[due](jax.random.key(fit), state, buffer)
            metrics |= report.metrics
            due = int(due_after(state))
    return model, state, metrics


def test_recovers_the_mean_and_the_noise_of_a_linear_gaussian_system(fitted):
    model, state, metrics = fitted
    rng = np.random.default_rng(1)
    obs, action = rng.normal(size=(500, 2)), rng.uniform(-1, 1, size=(500, 1))
    mean, log_var = jax.jit(model.predict)(model.belief(state), np.float32(obs), np.float32(action))
    error = np.sqrt(np.mean((np.asarray(mean) - linear_mean(obs, action)) ** 2, axis=1))  # [M, D]
    assert (error < 0.25 * NOISE_STD).all(), error
    std = np.exp(0.5 * np.median(np.asarray(log_var), axis=1))
    np.testing.assert_allclose(std, np.broadcast_to(NOISE_STD, std.shape), rtol=0.15)
    # The held-out error cannot be lower than the noise, and should be little above it.
    floor = np.mean(NOISE_STD**2)
    assert (np.asarray(metrics["holdout_mse_per_member"]) < 1.1 * floor).all()


def test_a_group_is_the_elite_of_that_number_and_every_number_has_its_own_noise():
    model = gaussian.build(gaussian.GaussianConfig(num_members=3, num_elites=2, model_hidden_units=8), SPEC)
    state = jax.jit(model.init)(jax.random.key(0)).replace(elites=jnp.asarray([2, 0]))
    rng = np.random.default_rng(0)
    obs, action = (jnp.asarray(x, jnp.float32) for x in (rng.normal(size=(5, 2)), rng.uniform(-1, 1, (5, 1))))
    mean, log_var = jax.jit(model.predict)(model.belief(state), obs, action)
    sample = jax.jit(model.sample)
    noise = jax.random.normal(jax.random.key(5), (5, 3))
    for group, member in ((0, 2), (1, 0)):
        next_obs, reward = sample(jax.random.key(5), model.belief(state), jnp.asarray(group), obs, action)
        target = np.concatenate([reward[:, None], next_obs - obs], -1)
        np.testing.assert_allclose(target, mean[member] + jnp.exp(0.5 * log_var[member]) * noise, atol=1e-5)


def test_members_start_apart_and_bounds_where_the_official_code_puts_them():
    model = gaussian.build(gaussian.GaussianConfig(), SPEC)
    state = jax.jit(model.init)(jax.random.key(0))
    first_layer = np.asarray(state.members.params["layer_0"]["kernel"])
    assert first_layer.shape == (7, 3, 200)
    assert not np.allclose(first_layer[0], first_layer[1])
    assert sorted(state.members.params) == ["layer_0", "layer_1", "layer_2", "layer_3", "log_var", "mean"]
    np.testing.assert_array_equal(state.shared.params["max"], np.full(3, 0.5, np.float32))
    np.testing.assert_array_equal(state.shared.params["min"], np.full(3, -10.0, np.float32))


def test_more_elites_than_members_are_refused():
    with pytest.raises(ValueError, match=r"num_elites must be at most num_members \(3\), got 5"):
        gaussian.GaussianConfig(num_members=3)
