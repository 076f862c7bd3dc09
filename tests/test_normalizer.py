import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax import normalizer

MEAN, VARIANCE = [1.0, -2.0, 0.0], [4.0, 0.25, 1e-6]  # standard deviations 2, 1/2 and 1/1000


def test_hand_worked(variant):
    made = variant(normalizer.from_moments)(jnp.array(MEAN), jnp.array(VARIANCE))
    np.testing.assert_allclose(made.mean, MEAN)
    np.testing.assert_allclose(made.std, [2.0, 0.5, 1e-3], rtol=1e-6)
    normalize = variant(normalizer.normalize)
    np.testing.assert_allclose(normalize(made, jnp.array([5.0, -2.0, 0.002])), [2.0, 0.0, 2.0], rtol=1e-6)


@pytest.mark.parametrize("leading", [(), (3, 3)])
def test_any_leading_axes_scale_the_last_one(variant, leading):
    made = normalizer.from_moments(jnp.array(MEAN), jnp.array(VARIANCE))
    x = np.random.default_rng(0).normal(size=(*leading, 3)).astype(np.float32)
    y = variant(normalizer.normalize)(made, jnp.asarray(x))
    assert y.shape == x.shape
    np.testing.assert_allclose(y, (x - np.array(MEAN)) / np.sqrt(VARIANCE), rtol=1e-5)


def test_data_come_out_with_mean_zero_and_standard_deviation_one(variant):
    x = np.random.default_rng(1).normal([3.0, -50.0], [0.01, 7.0], size=(500, 2)).astype(np.float32)
    made = normalizer.from_moments(jnp.asarray(x.mean(0)), jnp.asarray(x.var(0)))
    y = variant(normalizer.normalize)(made, jnp.asarray(x))
    np.testing.assert_allclose(np.mean(y, 0), 0.0, atol=1e-3)
    np.testing.assert_allclose(np.std(y, 0), 1.0, rtol=1e-3)


@pytest.mark.parametrize("variance", [0.0, -1e-9, 1e-26])
def test_a_constant_dimension_is_centred_and_not_scaled(variant, variance):
    made = variant(normalizer.from_moments)(jnp.array([7.0, 0.0]), jnp.array([variance, 4.0]))
    assert made.std.tolist() == [1.0, 2.0]
    assert normalizer.normalize(made, jnp.array([[7.0, 2.0], [7.5, -2.0]])).tolist() == [
        [0.0, 1.0],
        [0.5, -1.0],
    ]


def test_a_small_spread_still_counts(variant):
    made = variant(normalizer.from_moments)(jnp.zeros(1), jnp.array([1e-20]))
    np.testing.assert_allclose(made.std, [1e-10], rtol=1e-5)


def test_the_identity_changes_nothing(variant):
    x = jnp.array([[1e30, -3.5, 0.0], [1e-30, 2.0, -0.0]])
    made = normalizer.identity(3)
    assert made.mean.shape == made.std.shape == (3,)
    np.testing.assert_array_equal(variant(normalizer.normalize)(made, x), x)


def test_denormalize_undoes_it(variant):
    made = normalizer.from_moments(jnp.array(MEAN), jnp.array(VARIANCE))
    np.testing.assert_allclose(
        variant(normalizer.denormalize)(made, jnp.array([2.0, 0.0, 2.0])), [5.0, -2.0, 0.002], rtol=1e-6
    )
