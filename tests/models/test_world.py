"""A model of other parts than MBPO's: networks without noise, and an encoding that predicts the state before."""

import compiled
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax import health
from mbpo_jax.models import world
from mbpo_jax.models.encoding import Encoding
from mbpo_jax.models.member import Member
from mbpo_jax.models.state import GaussianConfig
from mbpo_jax.types import FINISHED, Spec, Transition

SPEC = Spec(obs_dim=2, action_dim=1)
CONFIG = GaussianConfig(
    num_members=3, num_elites=2, model_learning_rate=0.05, model_batch_size=64, fit_max_gradient_steps=200
)
BACKWARD = Encoding(
    num_inputs=3,
    num_targets=2,
    inputs=lambda obs, action: jnp.concatenate([obs, action], -1),
    examples=lambda rows: (jnp.concatenate([rows.next_obs, rows.action], -1), rows.obs - rows.next_obs),
    decode=lambda obs, action, target: (obs + target, jnp.zeros(obs.shape[:-1])),
)


def linear_member():
    """y = W x + b without noise, with the mean squared error; members share nothing."""

    def predict(params, shared, x):
        mean = x @ params["kernel"] + params["bias"]
        return mean, jnp.full_like(mean, -jnp.inf)

    def loss(params, shared, x, y, weights, key):
        return jnp.sum(weights * jnp.mean(jnp.square(predict(params, shared, x)[0] - y), -1))

    return Member(
        init=lambda key: {"kernel": 0.1 * jax.random.normal(key, (3, 2)), "bias": jnp.zeros(2)},
        init_shared=dict,
        loss=loss,
        shared_loss=lambda shared: jnp.zeros(()),
        predict=predict,
        metrics=lambda shared: {},
    )


@pytest.fixture(scope="module")
def fitted():
    """The model after a fit to next_obs = obs + [action, 2 action], its report, and where rows came from."""
    rng = np.random.default_rng(0)
    obs, action = rng.normal(size=(500, 2)), rng.uniform(-1, 1, (500, 1))
    next_obs = obs + action * [1.0, 2.0]
    rows = Transition(obs=obs, action=action, reward=np.zeros(500), next_obs=next_obs, terminal=np.zeros(500))
    buffer = compiled.filled(SPEC, 500, jax.tree.map(np.float32, rows))
    model = world.build(CONFIG, linear_member(), BACKWARD)
    state, programs = jax.jit(model.init)(jax.random.key(0)), [jax.jit(run) for run in model.fit.functions]
    due, metrics = 0, {}
    while due != FINISHED:
        state, report = programs[due](jax.random.key(1), state, buffer)
        assert health.describe(compiled.first_fault(report.watched)) is None
        metrics, due = metrics | report.metrics, int(model.fit.due(state))
    return model, state, metrics


def test_the_fit_serves_another_network_and_another_encoding(fitted):
    model, state, metrics = fitted
    assert float(metrics["holdout_mse_elite_mean"]) < 1e-3
    assert not {"max_log_var_mean", "min_log_var_mean"} & metrics.keys()  # of Gaussian members alone
    obs, action = jnp.asarray([[1.0, 2.0], [0.0, 0.0]]), jnp.asarray([[0.5], [-0.2]])
    mean, log_var = model.predict(model.belief(state), obs, action)
    assert mean.shape == (3, 2, 2)
    assert (log_var == -jnp.inf).all()
    for group in range(model.num_groups):
        before, reward = model.sample(jax.random.key(0), model.belief(state), jnp.asarray(group), obs, action)
        np.testing.assert_allclose(before, [[0.5, 1.0], [0.2, 0.4]], atol=0.05)
        np.testing.assert_array_equal(reward, 0.0)


def test_a_belief_has_no_optimiser_and_no_fit(fitted):
    model, state, _ = fitted
    belief = model.belief(state)
    assert set(vars(belief)) == {"params", "shared", "inputs", "elites", "targets"}
    assert jax.tree.leaves(belief.shared) == []
    num_of = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))  # noqa: E731
    assert num_of(belief) < num_of(state) / 3
