import math
from decimal import Decimal, localcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax import distributions

POINTS = [
    0.0,
    1e-3,
    -1e-3,
    0.5,
    -0.5,
    1.0,
    -1.0,
    3.0,
    -3.0,
    10.0,
    -10.0,
    20.0,
    -20.0,
    50.0,
    -50.0,
    88.0,
    -88.0,
    100.0,
    -100.0,
]
MIN_LOG_VAR, MAX_LOG_VAR = -10.0, 0.5


def exact_softplus(x):
    """log(1 + exp(x)) and its derivative, from 60 digits; `x` as float32 holds it."""
    with localcontext() as context:
        context.prec = 60
        power = Decimal(float(np.float32(x))).exp()
        return float((1 + power).ln()), float(power / (1 + power))


def test_softplus_agrees_with_sixty_digits(variant):
    values = variant(distributions.softplus)(jnp.array(POINTS))
    exact = [exact_softplus(x)[0] for x in POINTS]
    np.testing.assert_allclose(values, exact, rtol=2e-7, atol=1.2e-7)  # one rounding of 1 + exp(-|x|)


def test_the_derivative_of_softplus_agrees_with_sixty_digits(variant):
    slopes = variant(jax.vmap(jax.grad(distributions.softplus)))(jnp.array(POINTS))
    exact = [exact_softplus(x)[1] for x in POINTS]
    np.testing.assert_allclose(slopes, exact, rtol=1e-6, atol=1e-37)  # flushed to zero below the normal numbers


def test_the_second_derivative_of_softplus_agrees_too(variant):
    curvatures = variant(jax.vmap(jax.grad(jax.grad(distributions.softplus))))(jnp.array(POINTS))
    slopes = [Decimal(exact_softplus(-abs(x))[1]) for x in POINTS]
    np.testing.assert_allclose(curvatures, [float(s * (1 - s)) for s in slopes], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("x", [-math.inf, -3e38, 3e38, math.inf])
def test_softplus_has_limits_and_no_nan(variant, x):
    value, slope = variant(jax.value_and_grad(distributions.softplus))(jnp.float32(x))
    assert (float(value), float(slope)) == (max(np.float32(x), 0.0), float(x > 0))


def scalar_bound(raw):
    """The same formula in float64."""
    upper = MAX_LOG_VAR - math.log1p(math.exp(MAX_LOG_VAR - raw))
    return MIN_LOG_VAR + math.log1p(math.exp(upper - MIN_LOG_VAR))


def bound(raw):
    raw = jnp.asarray(raw, jnp.float32)[:, None]
    return distributions.bound_log_var(raw, jnp.array([MIN_LOG_VAR]), jnp.array([MAX_LOG_VAR]))[:, 0]


def test_bounds_of_the_log_variance_hand_worked(variant):
    # Far above: -10 + softplus(10.5) = 0.5 + log(1 + exp(-10.5)). In the middle hardly moved.
    assert float(variant(bound)([1e6])[0]) == pytest.approx(0.5 + 2.7536e-5, abs=2e-6)
    assert variant(bound)([-1e6])[0] == -10.0
    raw = [-20.0, -10.0, -8.0, -4.75, -1.0, 0.0, 0.5, 2.0, 10.0]
    np.testing.assert_allclose(variant(bound)(raw), [scalar_bound(x) for x in raw], rtol=1e-5, atol=1e-5)
    assert float(variant(bound)([-4.75])[0]) == pytest.approx(-4.75, abs=0.01)


def test_the_bound_rises_and_stays_within(variant):
    raw = jnp.linspace(-60.0, 60.0, 2401)
    log_var = np.asarray(variant(bound)(raw))
    assert np.all(np.diff(log_var) >= 0.0)
    inside = (raw > -14.0) & (raw < 5.0)  # elsewhere float32 may not tell neighbours apart
    assert np.all(np.diff(log_var[inside]) > 0.0)
    assert MIN_LOG_VAR <= log_var.min() < log_var.max() <= MAX_LOG_VAR + 3e-5


def test_the_gradients_of_the_bound_are_finite_everywhere_and_go_to_the_limit_in_force(variant):
    def total(raw, low, high):
        return jnp.sum(distributions.bound_log_var(raw, low, high))

    low, high = jnp.array([MIN_LOG_VAR]), jnp.array([MAX_LOG_VAR])
    grads = variant(jax.vmap(jax.grad(total, (0, 1, 2)), (0, None, None)))
    raw = jnp.array([[-1e30], [-1e6], [-4.75], [1e6], [1e30]])
    to_raw, to_low, to_high = (np.asarray(grad)[:, 0] for grad in grads(raw, low, high))
    np.testing.assert_allclose(to_raw, [0.0, 0.0, 0.9896, 0.0, 0.0], atol=1e-3)
    np.testing.assert_allclose(to_low, [1.0, 1.0, 0.0052, 0.0, 0.0], atol=1e-3)
    np.testing.assert_allclose(to_high, [0.0, 0.0, 0.0052, 1.0, 1.0], atol=1e-3)


def test_each_dimension_has_limits_of_its_own(variant):
    low, high = jnp.array([-10.0, -3.0, 1.0]), jnp.array([-5.0, 0.0, 2.0])
    limits = variant(distributions.bound_log_var)(jnp.array([[-1e6] * 3, [1e6] * 3]), low, high)
    np.testing.assert_allclose(limits, [low, np.asarray(low) + np.logaddexp(0.0, high - low)], atol=1e-5)


@pytest.mark.parametrize("leading", [(), (4,), (2, 4)])
def test_leading_axes_are_kept(leading):
    x = jax.ShapeDtypeStruct((*leading, 3), jnp.float32)
    limit = jax.ShapeDtypeStruct((3,), jnp.float32)
    assert jax.eval_shape(distributions.bound_log_var, x, limit, limit).shape == (*leading, 3)
    assert jax.eval_shape(distributions.gaussian_nll, x, x, x).shape == leading
    action, log_prob = jax.eval_shape(distributions.tanh_gaussian, x, x, x)
    assert (action.shape, log_prob.shape) == ((*leading, 3), leading)


def test_gaussian_nll_hand_worked(variant):
    # errors 2 and -2, variances 1 and 4: (4 / 1 + 0 + 4 / 4 + log 4) / 2
    mean, log_var, target = (
        jnp.array([[0.0, 1.0]]),
        jnp.array([[0.0, math.log(4.0)]]),
        jnp.array([[2.0, -1.0]]),
    )
    np.testing.assert_allclose(variant(distributions.gaussian_nll)(mean, log_var, target), [3.1931472], rtol=1e-6)


@pytest.mark.parametrize("odd", range(3))
@pytest.mark.parametrize("of_three", [distributions.gaussian_nll, distributions.tanh_gaussian])
def test_arguments_do_not_broadcast(of_three, odd):
    arrays = [jnp.ones((4, 3))] * 3
    arrays[odd] = jnp.ones((4, 1))
    with pytest.raises(AssertionError, match=r"\(4, 1\)"):
        of_three(*arrays)


def test_gaussian_nll_averages_targets_only(variant):
    rng = np.random.default_rng(0)
    mean, log_var, target = (rng.normal(size=(2, 3, 4)).astype(np.float32) for _ in range(3))
    nll = variant(distributions.gaussian_nll)(*map(jnp.asarray, (mean, log_var, target)))
    expected = ((target - mean) ** 2 / np.exp(log_var) + log_var).sum(-1) / 4
    assert nll.shape == (2, 3)
    np.testing.assert_allclose(nll, expected, rtol=1e-5, atol=1e-6)


def test_gradients_of_gaussian_nll_hand_worked(variant):
    grads = variant(jax.grad(distributions.gaussian_nll, (0, 1)))
    to_mean, to_log_var = grads(jnp.array([1.0, 0.0]), jnp.array([math.log(2.0), math.log(9.0)]), jnp.array([0.0, 3.0]))
    np.testing.assert_allclose(to_mean, [0.5, -1.0 / 3.0], rtol=1e-6)  # (mean - target) / variance
    np.testing.assert_allclose(
        to_log_var, [0.25, 0.0], atol=1e-6
    )  # (1 - error^2 / variance) / 2: 9 is its own variance


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, 0.0), (0.3, -0.5), (-1.0, -2.0)])
def test_the_density_of_the_squashed_gaussian_integrates_to_one(variant, mean, log_std):
    # Within 7 standard deviations, as far as float32 tells actions from one.
    reach = min(7.0, (7.0 - abs(mean)) / math.exp(log_std))
    noise = jnp.linspace(-reach, reach, 8001)[:, None]
    action, log_prob = variant(distributions.tanh_gaussian)(
        jnp.full_like(noise, mean), jnp.full_like(noise, log_std), noise
    )
    density, where = np.exp(np.asarray(log_prob, np.float64)), np.asarray(action[:, 0], np.float64)
    assert np.trapezoid(density, where) == pytest.approx(1.0, abs=1e-3)
    first_moment = np.trapezoid(density * where, where)
    draws = np.tanh(mean + math.exp(log_std) * np.random.default_rng(0).normal(size=400_000))
    assert first_moment == pytest.approx(draws.mean(), abs=5e-3)


def test_log_prob_is_the_change_of_variables_worked_by_hand(variant):
    mean = np.array([[0.5, -1.0, 0.0], [2.0, 0.1, -20.0]])
    log_std = np.array([[0.0, -1.0, 1.0], [-3.0, 2.0, -5.0]])
    noise = np.array([[1.0, -2.0, 0.25], [0.0, 1.5, 3.0]])
    arrays = (jnp.asarray(x, jnp.float32) for x in (mean, log_std, noise))
    action, log_prob = variant(distributions.tanh_gaussian)(*arrays)
    std = np.exp(log_std)
    pre_tanh = mean + std * noise
    log_normal = -((pre_tanh - mean) ** 2) / (2.0 * std**2) - np.log(std * math.sqrt(2.0 * math.pi))
    log_slope = -2.0 * np.log(np.cosh(pre_tanh))  # the derivative of tanh is 1 / cosh^2
    assert action.shape == (2, 3)
    assert log_prob.shape == (2,)
    np.testing.assert_allclose(action, np.tanh(pre_tanh), rtol=1e-6)
    np.testing.assert_allclose(log_prob, (log_normal - log_slope).sum(-1), rtol=1e-5)


def test_one_number_by_hand(variant):
    # A standard normal at zero, where tanh has slope one: -log sqrt(2 pi) for each of two dimensions.
    action, log_prob = variant(distributions.tanh_gaussian)(jnp.zeros(2), jnp.zeros(2), jnp.zeros(2))
    assert action.tolist() == [0.0, 0.0]
    assert float(log_prob) == pytest.approx(-1.8378771, rel=1e-6)


def test_values_and_gradients_where_tanh_saturates(variant):
    def log_prob(mean, log_std, noise):
        return distributions.tanh_gaussian(mean[None], log_std[None], noise[None])[1]

    pre_tanh, noise, log_std = np.array([20.0, -20.0, 9.0, -9.0, 100.0, -100.0, 1e4]), 0.5, -1.0
    mean = jnp.asarray(pre_tanh - math.exp(log_std) * noise, jnp.float32)
    everywhere = variant(jax.vmap(jax.value_and_grad(log_prob, (0, 1)), (0, None, None)))
    values, (to_mean, to_log_std) = everywhere(mean, jnp.float32(log_std), jnp.float32(noise))
    # log cosh(u) = |u| - log 2, to 1e-8 from |u| = 9 on; the derivative of 2 log cosh(u) is 2 tanh(u) = +-2
    log_normal = -0.5 * noise**2 - log_std - 0.5 * math.log(2.0 * math.pi)
    np.testing.assert_allclose(values, log_normal + 2.0 * (np.abs(pre_tanh) - math.log(2.0)), rtol=1e-6)
    np.testing.assert_allclose(to_mean, 2.0 * np.sign(pre_tanh), rtol=1e-6)
    np.testing.assert_allclose(to_log_std, -1.0 + 2.0 * np.sign(pre_tanh) * math.exp(log_std) * noise, rtol=1e-5)
