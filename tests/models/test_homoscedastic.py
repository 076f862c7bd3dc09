"""Networks with one spread for all inputs, and targets that are standardised."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mbpo_jax import ensemble, normalizer, replay
from mbpo_jax.models import encoding, fitting, homoscedastic, world
from mbpo_jax.models.state import GaussianConfig
from mbpo_jax.types import FINISHED, Spec, Transition

SPEC = Spec(obs_dim=2, action_dim=1)
CONFIG = GaussianConfig(
    num_members=2,
    num_elites=2,
    model_hidden_units=16,
    model_weight_decays=(0.0, 0.0),
    model_learning_rate=1e-2,
    model_batch_size=64,
    scale_targets=True,
    fit_slice_minibatches=50,
    fit_max_gradient_steps=300,
    fit_patience_epochs=100,
)
MEMBER = homoscedastic.member(CONFIG, encoding.forward(SPEC), log_std_pace=10.0)


def rows_of(num_rows):
    """Rewards of thousands, changes of one dimension of thousandths, and none at all of the other."""
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(num_rows, 2)) * [1.0, 100.0] + [5.0, 0.0]
    action = rng.uniform(-1, 1, size=(num_rows, 1))
    rows = Transition(
        obs=obs,
        action=action,
        reward=4000.0 + 1000.0 * action[:, 0],
        next_obs=obs + np.stack([0.002 * action[:, 0], 0.0 * obs[:, 1]], axis=1),
        terminal=np.zeros(num_rows),
    )
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), rows)


@pytest.fixture(scope="module")
def fitted():
    world = homoscedastic.build(CONFIG, SPEC, log_std_pace=10.0)
    model, buffer = jax.jit(world.init)(jax.random.key(0)), replay.add(replay.init(SPEC, 500), rows_of(500))
    programs, number = [jax.jit(program) for program in world.fit.functions], 0
    while number != FINISHED:
        model, report = programs[number](jax.random.key(1), model, buffer)
        number = int(world.fit.due(model))
    return world, model, report.metrics


def test_targets_of_any_scale_are_learnt_alike(fitted):
    world, model, metrics = fitted
    assert metrics["explained_share_per_target"][:2] == pytest.approx([1.0, 1.0], abs=0.02)
    rows = rows_of(100)
    mean, log_var = world.predict(world.belief(model), rows.obs, rows.action)
    error = np.abs(np.asarray(mean[0]) - np.stack([rows.reward, 0.002 * rows.action[:, 0], 0 * rows.reward], axis=-1))
    assert np.all(error.mean(0) < [100.0, 2e-4, 0.01])
    std = np.exp(0.5 * np.asarray(log_var[0, 0]))
    assert np.all(std < 0.1 * np.asarray([577.0, 1.15e-3, 1.0]))  # as small as the errors are, after 300 steps
    next_obs, reward = world.expect(world.belief(model), jnp.asarray(0), rows.obs, rows.action)
    best = mean[int(model.elites[0])]
    assert reward == pytest.approx(np.asarray(best[:, 0]))
    assert next_obs - rows.obs == pytest.approx(np.asarray(best[:, 1:]), abs=5e-5)


def test_only_states_are_drawn(fitted):
    """Noise of rewards would widen the critics' range of returns."""
    world, model, _ = fitted
    rows, group = rows_of(100), jnp.asarray(1)
    draws = [world.sample(jax.random.key(k), world.belief(model), group, rows.obs, rows.action) for k in (0, 1)]
    expected_obs, expected_reward = world.expect(world.belief(model), group, rows.obs, rows.action)
    assert not np.array_equal(draws[0][0], draws[1][0])
    np.testing.assert_allclose(draws[0][1], expected_reward, rtol=1e-6)
    _, log_var = world.predict(world.belief(model), rows.obs, rows.action)
    noise = (draws[0][0] - expected_obs)[:, 0] / np.exp(0.5 * np.asarray(log_var[int(model.elites[1]), :, 1]))
    assert np.std(noise) == pytest.approx(1.0, abs=0.2)


def test_the_scales_are_those_of_the_rows_learnt_from(fitted):
    world, model, _ = fitted
    assert model.targets.mean[0] == pytest.approx(4000.0, abs=60.0)
    assert model.targets.std[0] == pytest.approx(1000.0 / np.sqrt(3.0), rel=0.1)
    assert model.targets.std[2] == 1.0  # what never changes is left as it is


def test_a_prediction_is_that_of_the_network_in_units_of_the_targets(fitted):
    world, model, _ = fitted
    belief, rows = world.belief(model), rows_of(5)
    x = normalizer.normalize(belief.inputs, jnp.concatenate([rows.obs, rows.action], -1))
    raw_mean, raw_log_var = MEMBER.predict(ensemble.member(belief.params, 1), {}, x)
    mean, log_var = world.predict(belief, rows.obs, rows.action)
    assert mean[1] == pytest.approx(np.asarray(belief.targets.mean + belief.targets.std * raw_mean), rel=1e-5, abs=1e-6)
    assert log_var[1] == pytest.approx(np.asarray(raw_log_var + 2 * jnp.log(belief.targets.std)), rel=1e-5)


def test_the_loss_of_one_row_is_the_one_worked_by_hand():
    """With weights of zero the mean is the bias, and a log_std of 0 leaves the squared error."""
    params = jax.tree.map(jnp.zeros_like, MEMBER.init(jax.random.key(0)))
    x, y = jnp.ones((1, 3)), jnp.asarray([[1.0, 2.0, 0.0]])
    assert MEMBER.loss(params, {}, x, y, jnp.ones(1)) == pytest.approx(5.0 / 3, rel=1e-2)  # the bound adds 0.001 to 0
    wider = params | {"log_std": jnp.full(3, jnp.log(2.0) / 10.0)}
    assert MEMBER.loss(wider, {}, x, y, jnp.ones(1)) == pytest.approx(5.0 / 3 / 4 + 2 * np.log(2.0), rel=1e-2)


def test_a_spread_does_not_fall_below_a_thousandth():
    params = MEMBER.init(jax.random.key(0)) | {"log_std": jnp.full(3, -1e3)}
    _, log_var = MEMBER.predict(params, {}, jnp.ones((1, 3)))
    assert np.exp(0.5 * np.asarray(log_var)) == pytest.approx(np.full((1, 3), 1e-3), rel=1e-4)


def test_a_spread_is_learnt_as_much_faster_as_its_pace_says():
    """With Adam every parameter moves by the same step, so a log_std of pace 10 moves ten times as far."""
    for pace in (1.0, 10.0):
        member = homoscedastic.member(CONFIG, encoding.forward(SPEC), log_std_pace=pace)
        params = jax.tree.map(jnp.zeros_like, member.init(jax.random.key(0)))
        moved = params | {"log_std": jnp.full(3, -0.01)}
        change = member.predict(moved, {}, jnp.ones((1, 3)))[1] - member.predict(params, {}, jnp.ones((1, 3)))[1]
        assert np.asarray(change) == pytest.approx(-0.02 * pace, rel=1e-2)


def test_dropout_falls_linearly_from_the_inputs_to_the_outputs_and_is_of_fits_alone():
    """Three hidden layers as in the paper: 0.0075, 0.005 and 0.0025, of a base of 0.01."""
    config = dataclasses.replace(CONFIG, model_weight_decays=(0.0, 0.0, 0.0, 0.0))
    member = homoscedastic.member(config, encoding.forward(SPEC), dropout=0.01)
    network, _ = member.predict.args
    assert network.dropout_rates == pytest.approx((0.0075, 0.005, 0.0025))
    assert member.random_loss and not MEMBER.random_loss
    strong = homoscedastic.member(config, encoding.forward(SPEC), dropout=0.5)
    params, rows = strong.init(jax.random.key(0)), (jnp.ones((8, 3)), jnp.zeros((8, 3)), jnp.full(8, 1 / 8))
    losses = [float(strong.loss(params, {}, *rows, key)) for key in (jax.random.key(0), jax.random.key(1), None)]
    assert len(set(losses)) == 3
    means = np.asarray(strong.predict(params, {}, rows[0])[0])
    np.testing.assert_array_equal(means, np.broadcast_to(means[0], means.shape))  # equal inputs, equal predictions


def test_every_member_and_every_step_of_a_fit_drops_other_units():
    """Members that are equal, and see equal rows, end up different; a fit repeats exactly."""
    config = dataclasses.replace(CONFIG, model_weight_decays=(0.0, 0.0, 0.0, 0.0))
    member, forward = homoscedastic.member(config, encoding.forward(SPEC), dropout=0.5), encoding.forward(SPEC)
    fit = fitting.Fit(config, member, forward, optax.sgd(0.01))
    model = world.init(config, member, forward, fit.optimizer, jax.random.key(0))
    twice = jax.tree.map(lambda leaf: jnp.stack([leaf[0], leaf[0]]), model.members)
    model = model.replace(members=twice)
    minibatch = jnp.ones((2, 8, 3)), jnp.ones((2, 8, 3)), jnp.full(8, 1 / 8)
    step = jax.jit(functools.partial(fitting.gradient_step, fit))
    after, (first, _) = step(model, minibatch, jax.random.key(1))
    _, (repeated, _) = step(model, minibatch, jax.random.key(1))
    later = model.replace(fit=model.fit.replace(num_steps=jnp.asarray(1)))
    _, (second, _) = step(later, minibatch, jax.random.key(1))
    assert first[0] != first[1]
    np.testing.assert_array_equal(first, repeated)
    assert not np.any(np.asarray(first) == np.asarray(second))
    kernel = after.members.params["network"]["Dense_1"]["kernel"]
    assert np.any(kernel[0] != kernel[1])


def test_what_flows_back_to_inputs_changes_smoothly():
    """Unlike with ReLU, the gradient with respect to the inputs is another one at every point."""
    params = MEMBER.init(jax.random.key(0))
    slope = jax.vmap(jax.grad(lambda x: MEMBER.predict(params, {}, x[None])[0][0, 0]))
    slopes = slope(jnp.linspace(0.0, 0.1, 5)[:, None] * jnp.ones(3))
    assert len({tuple(row.tolist()) for row in slopes}) == 5


def test_a_model_without_scaled_targets_has_no_arrays_for_it():
    world = homoscedastic.build(GaussianConfig(num_members=2, num_elites=1, model_weight_decays=(0.0, 0.0)), SPEC)
    model = jax.eval_shape(world.init, jax.random.key(0))
    assert model.targets is None
    assert world.belief(model).targets is None


def test_end_of_epochs_compares_scaled_errors(fitted):
    """Rewards of thousands would drown everything else."""
    _, _, metrics = fitted
    assert np.all(np.asarray(metrics["holdout_mse_per_member"]) < 0.1)
