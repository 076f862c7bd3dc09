"""Gaussian processes: formulas against numbers worked out otherwise, and the fit of the world model."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax import health, replay
from mbpo_jax.models import gp, gp_fit
from mbpo_jax.models import gp_regression as regression
from mbpo_jax.models.encoding import forward
from mbpo_jax.models.gp_regression import NUGGET, Hyperparameters, Rows
from mbpo_jax.models.gp_state import GpConfig
from mbpo_jax.types import FINISHED, Spec, Transition

SPEC = Spec(obs_dim=2, action_dim=1)
ALL = np.ones(6, bool)
EVIDENCE = jax.jit(regression.evidence)


def hyper_of(length, signal, noise):
    """Hyperparameters that mean these standard deviations and lengths."""
    free = lambda scale: (regression.LIMIT * np.arctanh(np.log(scale) / regression.LIMIT)).astype(np.float32)  # noqa: E731
    return Hyperparameters(length=free(np.asarray(length)), signal=free(signal), noise=free(noise))


HYPER = hyper_of([0.7, 1.5], 1.2, 0.3)


def some_rows(count=6, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 2)).astype(np.float32)
    return x, (np.sin(x[:, 0]) + 0.1 * rng.normal(size=count)).astype(np.float32)


def covariance(a, b, length=(0.7, 1.5), signal=1.2):
    """The kernel in float64, as the textbook writes it."""
    apart = (a[:, None, :].astype(float) - b[None].astype(float)) / np.asarray(length)
    return signal**2 * np.exp(-0.5 * np.square(apart).sum(-1))


NOISE = 0.3**2 + NUGGET * 1.2**2


@functools.partial(jax.jit, static_argnames="block")
def posterior_of(hyper, x, used, rows, same, block=4):
    """The posterior by all rows, which are added in blocks."""
    sums = regression.no_rows(hyper, x, used)
    for start in range(0, len(rows.y), block):
        part = Rows(*(leaf[start : start + block] for leaf in rows))
        sums = regression.add_rows(hyper, x, used, sums, part, same[:, start : start + block])
    return regression.posterior(sums, used)


PREDICT = jax.jit(regression.predict)


def test_one_row_by_hand():
    """Signal 1, noise 0.5: K is 1.25 (and the nugget), so y = 2 halfway in ln-units has the mean 2 k / 1.25."""
    hyper, x, y, used = hyper_of([1.0], 1.0, 0.5), np.zeros((1, 1), np.float32), np.float32([2.0]), np.ones(1, bool)
    total = 1.25 + NUGGET
    expected = -0.5 * (4.0 / total + math.log(total) + math.log(2.0 * math.pi))
    np.testing.assert_allclose(EVIDENCE(hyper, Rows(x, y, used)), expected, rtol=1e-6)
    at = np.float32([[0.0], [1.0], [30.0]])
    k = np.exp(-0.5 * np.square(at[:, 0].astype(float)))
    posterior = posterior_of(hyper, x, used, Rows(x, y, used), np.ones((1, 1), bool))
    mean, variance = PREDICT(hyper, x, posterior, at)
    np.testing.assert_allclose(mean, 2.0 * k / total, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(variance, 1.0 - k**2 / total + 0.25 + NUGGET, rtol=1e-5)


def test_evidence_and_posterior_are_those_of_tinygp():
    tinygp = pytest.importorskip("tinygp")
    x, y = some_rows()
    at = np.random.default_rng(1).normal(size=(5, 2)).astype(np.float32)

    @jax.jit
    def theirs(x, y, at):
        kernel = 1.2**2 * tinygp.transforms.Linear(jnp.asarray([1 / 0.7, 1 / 1.5]), tinygp.kernels.ExpSquared())
        process = tinygp.GaussianProcess(kernel, x, diag=NOISE)
        conditioned = process.condition(y, at, diag=NOISE).gp
        return process.log_probability(y), conditioned.loc, conditioned.variance

    log_probability, expected_mean, expected_variance = theirs(x, y, at)
    np.testing.assert_allclose(EVIDENCE(HYPER, Rows(x, y, ALL)), log_probability, rtol=1e-5)
    posterior = posterior_of(HYPER, x, ALL, Rows(x, y, ALL), np.eye(6, dtype=bool))
    mean, variance = PREDICT(HYPER, x, posterior, at)
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(variance, expected_variance, rtol=1e-4)


def test_the_gradient_of_the_evidence_is_its_slope():
    """By differences, in float64, of the textbook's formula."""
    x, y = some_rows()

    def textbook(log):
        k = covariance(x, x, np.exp(log[:2]), np.exp(log[2])) + (
            np.exp(2 * log[3]) + NUGGET * np.exp(2 * log[2])
        ) * np.eye(6)
        return -0.5 * (y @ np.linalg.solve(k, y) + np.linalg.slogdet(k)[1] + 6 * np.log(2 * np.pi))

    log = np.log([0.7, 1.5, 1.2, 0.3])
    np.testing.assert_allclose(EVIDENCE(HYPER, Rows(x, y, ALL)), textbook(log), rtol=1e-5)
    slopes = [(textbook(log + step) - textbook(log - step)) / 2e-5 for step in 1e-5 * np.eye(4)]
    by_free = np.array(slopes) * (1.0 - np.square(log / regression.LIMIT))  # log = LIMIT tanh(free / LIMIT)
    grad = jax.jit(jax.grad(regression.evidence))(HYPER, Rows(x, y, ALL))
    np.testing.assert_allclose([*grad.length, grad.signal, grad.noise], by_free, rtol=1e-3, atol=1e-4)


def test_rows_that_are_not_used_change_nothing():
    x, y = some_rows()
    used = np.array([True, True, False, True, False, True])
    far = np.where(used[:, None], x, 1e6).astype(np.float32), np.where(used, y, 1e6).astype(np.float32)
    few = Rows(x[used], y[used], np.ones(4, bool))
    np.testing.assert_allclose(EVIDENCE(HYPER, Rows(*far, used)), EVIDENCE(HYPER, few), rtol=1e-6)
    grad = jax.jit(jax.grad(regression.evidence))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        grad(HYPER, Rows(*far, used)),
        grad(HYPER, few),
    )
    at = some_rows(5, seed=1)[0]
    masked = PREDICT(HYPER, far[0], posterior_of(HYPER, far[0], used, Rows(*far, used), np.eye(6, dtype=bool)), at)
    alone = PREDICT(HYPER, few.x, posterior_of(HYPER, few.x, few.used, few, np.eye(4, dtype=bool)), at)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), masked, alone)


def test_the_sparse_posterior_is_the_textbooks():
    """Rasmussen and Williams (2006), section 8.3.4, in float64; two of eight rows are inducing rows, with a nugget."""
    x, y = some_rows(8)
    at, inducing = some_rows(5, seed=1)[0], [1, 6]
    same = np.arange(8)[None] == np.array(inducing)[:, None]
    nugget, noise = NUGGET * 1.2**2, 0.3**2
    k_uu = covariance(x[inducing], x[inducing]) + nugget * np.eye(2)
    k_uf = covariance(x[inducing], x) + nugget * same
    k_au = covariance(at, x[inducing])
    inner = np.linalg.inv(noise * k_uu + k_uf @ k_uf.T)
    mean = k_au @ inner @ k_uf @ y
    left = 1.2**2 - np.diag(k_au @ np.linalg.inv(k_uu) @ k_au.T) + noise * np.diag(k_au @ inner @ k_au.T)
    rows = Rows(x, y, np.ones(8, bool))
    posterior = posterior_of(HYPER, x[inducing], np.ones(2, bool), rows, same)
    predicted = PREDICT(HYPER, x[inducing], posterior, at)
    np.testing.assert_allclose(predicted[0], mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(predicted[1], left + noise + nugget, rtol=1e-4)


def test_left_out_errors_are_those_of_processes_without_the_row():
    x, y = some_rows()
    errors = jax.jit(regression.left_out_errors)(HYPER, Rows(x, y, ALL))
    for i in range(6):
        rest = np.arange(6) != i
        k = covariance(x[rest], x[rest]) + NOISE * np.eye(5)
        np.testing.assert_allclose(
            errors[i], y[i] - covariance(x[[i]], x[rest]) @ np.linalg.solve(k, y[rest]), rtol=1e-4, atol=1e-5
        )


def test_hundreds_of_rows_at_nearly_one_place_are_factored_in_float32():
    """The worst case: long lengths, a large signal and little noise, 0.5, which covers what float32 rounds away."""
    rng = np.random.default_rng(0)
    x = (1e-3 * rng.normal(size=(300, 2))).astype(np.float32)
    y, used, hyper = rng.normal(size=300).astype(np.float32), np.ones(300, bool), hyper_of([50.0, 50.0], 50.0, 0.02)
    assert np.isfinite(EVIDENCE(hyper, Rows(x, y, used)))
    posterior = posterior_of(hyper, x, used, Rows(x, y, used), np.eye(300, dtype=bool), block=300)
    mean, variance = PREDICT(hyper, x, posterior, x[:5])
    np.testing.assert_allclose(mean, y.mean(), atol=0.4)
    np.testing.assert_allclose(variance, NUGGET * 50.0**2, rtol=0.2)


# -- the world model -------------------------------------------------------------------------------------------------


def buffer_of(count, capacity=64, seed=0):
    """Rows whose next_obs is obs + [action, sin(obs 0)] and whose reward is always 1."""
    rng = np.random.default_rng(seed)
    obs, action = rng.normal(size=(count, 2)), rng.uniform(-1, 1, (count, 1))
    change = np.concatenate([action, np.sin(obs[:, :1])], 1)
    rows = Transition(obs=obs, action=action, reward=np.ones(count), next_obs=obs + change, terminal=np.zeros(count))
    return replay.add(replay.init(SPEC, capacity), jax.tree.map(np.float32, rows))


@pytest.fixture(scope="module")
def model():
    """The model, its first state, and its programs, compiled when first called."""
    built = gp.build(GpConfig(inducing_rows=24, fit_max_iterations=20), forward(SPEC))
    return built, jax.jit(built.init)(jax.random.key(0)), [jax.jit(run) for run in built.fit.functions]


def fit(model, state, buffer, key=1):
    built, _, programs = model
    due, metrics, calls = 0, {}, 0
    while due != FINISHED:
        state, report = programs[due](jax.random.key(key), state, buffer)
        assert health.describe(health.first_fault(report.watched)) is None
        metrics, due, calls = metrics | report.metrics, int(built.fit.due(state)), calls + 1
    return state, metrics, calls


def test_a_fit_learns_from_few_rows_and_from_more_than_it_keeps_without_compiling_again(model):
    built, state, programs = model
    at = buffer_of(50, seed=5).rows
    obs, action = at.obs[:50], at.action[:50]
    errors = []
    for count in (10, 20, 60):
        state, metrics, calls = fit(model, state, buffer_of(count))
        assert 3 <= calls <= 6
        assert int(metrics["inducing_rows"]) == min(count, 24)
        mean, log_var = built.predict(built.belief(state), obs, action)
        assert mean.shape == log_var.shape == (1, 50, 3)
        np.testing.assert_allclose(mean[0, :, 0], 1.0, atol=1e-3)  # a reward that never changes
        errors.append(float(np.square(mean[0, :, 1:] - (at.next_obs - at.obs)[:50]).mean()))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-3
    assert (np.asarray(metrics["explained_share_per_target"]) > 0.99).all()
    assert [run._cache_size() for run in programs] == [1, 1, 1]
    next_obs, reward = built.expect(built.belief(state), jnp.asarray(0), obs, action)
    np.testing.assert_allclose(next_obs, obs + mean[0, :, 1:], rtol=1e-5)
    draws = [built.sample(jax.random.key(i), built.belief(state), jnp.asarray(0), obs, action)[0] for i in range(40)]
    spread = np.std(np.stack(draws), 0) / np.exp(0.5 * log_var[0, :, 1:])
    np.testing.assert_allclose(spread.mean(0), 1.0, atol=0.1)


def test_an_unfitted_process_expects_nothing_and_knows_that(model):
    built, state, _ = model
    mean, log_var = built.predict(built.belief(state), jnp.ones((4, 2)), jnp.ones((4, 1)))
    np.testing.assert_array_equal(mean, 0.0)
    np.testing.assert_allclose(np.exp(log_var), 1.0 + 0.1**2 + NUGGET, rtol=1e-5)


def test_a_fit_begins_at_the_last_hyperparameters_unless_the_first_ones_are_better(model):
    _, state, programs = model
    buffer = buffer_of(20)
    fitted, _, _ = fit(model, state, buffer)
    again, _ = programs[0](jax.random.key(1), fitted, buffer)
    jax.tree.map(np.testing.assert_array_equal, again.belief.hyper, fitted.belief.hyper)
    bad = jax.tree.map(lambda leaf: jnp.full_like(leaf, -4.0), fitted.belief.hyper)
    one = fitted.belief.hyper.replace(length=fitted.belief.hyper.length.at[1].set(-40.0))
    cold, _ = programs[0](jax.random.key(1), fitted.replace(belief=fitted.belief.replace(hyper=bad)), buffer)
    np.testing.assert_array_equal(cold.belief.hyper.length[1:], state.belief.hyper.length[1:])
    np.testing.assert_array_equal(cold.belief.hyper.noise[1:], state.belief.hyper.noise[1:])
    mixed, _ = programs[0](jax.random.key(1), fitted.replace(belief=fitted.belief.replace(hyper=one)), buffer)
    for target, source in ((0, fitted), (1, state), (2, fitted)):
        np.testing.assert_array_equal(mixed.belief.hyper.length[target], source.belief.hyper.length[target])


def test_what_is_not_finite_in_a_row_is_named(model):
    _, state, programs = model
    buffer = buffer_of(20)
    buffer = buffer.replace(rows=buffer.rows.replace(obs=buffer.rows.obs.at[3, 0].set(jnp.nan)))
    _, report = programs[0](jax.random.key(1), state, buffer)
    assert health.describe(health.first_fault(report.watched)) == "a real row is not finite (nan) at fit step 1"


def test_programs_keep_the_structure_of_the_state_and_depend_on_the_key(model):
    built, state, programs = model
    buffer = buffer_of(60)
    kinds = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.weak_type), tree)  # noqa: E731
    for run in built.fit.functions:
        traced = jax.jit(run).trace(jax.random.key(0), state, buffer)
        assert kinds(traced.out_info[0]) == kinds(jax.eval_shape(built.init, jax.random.key(0)))
        assert not [word for word in ("callback", "f64[", "i64[") if word in str(traced.jaxpr)]
    started = [programs[0](jax.random.key(k), state, buffer)[0] for k in (1, 1, 2)]
    assert np.array_equal(started[0].fit.evidence, started[1].fit.evidence)
    assert not np.array_equal(started[0].fit.evidence, started[2].fit.evidence)


def test_inducing_rows_are_different_rows_of_those_there_are():
    parts = gp.Parts(GpConfig(inducing_rows=24), forward(SPEC), None)
    state = gp.build(parts.config, parts.encoding).init(jax.random.key(0))
    draw = jax.jit(functools.partial(gp_fit.inducing_rows, parts))
    for count, used in ((10, 10), (60, 24)):
        buffer = buffer_of(count)
        data = draw(jax.random.key(3), state.replace(fit=state.fit.replace(num_rows=buffer.size)), buffer)
        assert int(data.used.sum()) == len(set(np.asarray(data.age[data.used]).tolist())) == used
        assert (data.age[~data.used] == gp_fit.NOT_A_ROW).all()
        assert int(data.age.max()) < count
        np.testing.assert_array_equal(data.x[data.used][:, :2], buffer.rows.obs[data.age[data.used]])


@pytest.mark.parametrize("size", [0, 1001])
def test_more_rows_than_a_process_can_hold_are_refused(size):
    with pytest.raises(ValueError, match=rf"inducing_rows must be a whole number in \[1, 1000\], got {size}"):
        GpConfig(inducing_rows=size)
