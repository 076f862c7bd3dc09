import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax import health
from mbpo_jax.health import LIMIT
from mbpo_jax.types import Watched

NAN, INF = float("nan"), float("inf")


def magnitudes(num_updates=4, num_names=3, **at):
    """Healthy magnitudes [U, Q], but for at="update,quantity" entries."""
    values = np.full((num_updates, num_names), LIMIT / 2, np.float32)
    for place, value in at.items():
        _, update, quantity = place.split("_")
        values[int(update), int(quantity)] = value
    return jnp.asarray(values)


def first_fault(names, values, first=None):
    return health.first_fault([Watched(values, first, names=tuple(names))])


def found(fault):
    return int(fault.update), fault.names[int(fault.quantity)], float(fault.value)


def test_magnitude_by_hand():
    tree = {"a": jnp.float32([[1.0, -5.0], [2.0, 3.0]]), "b": jnp.int32([4, -7])}
    assert float(health.magnitude(tree)) == 7.0
    assert health.magnitude(tree, keep=1).tolist() == [5.0, 7.0]
    assert float(health.magnitude(())) == 0.0
    assert health.magnitude(jnp.zeros((2, 0)), keep=1).tolist() == [0.0, 0.0]  # of batches without real rows
    assert float(health.magnitude([jnp.float32([1.0, -INF])])) == INF


@pytest.mark.parametrize("place", [0, 1, 2])
def test_nan_survives_whatever_stands_beside_it(variant, place):
    leaves = [jnp.float32([1.0, INF]), jnp.float32([-INF, 2.0]), jnp.float32([3.0, 4.0])]
    leaves[place] = leaves[place].at[0].set(NAN)
    assert np.isnan(variant(health.magnitude)(leaves))


def test_of_biases_alone():
    grads = {"layer": {"kernel": jnp.full((2, 2), 9.0), "bias": jnp.float32([1.0, -2.0])}, "bias": jnp.float32([0.5])}
    assert float(health.bias_magnitude(grads)) == 2.0


def test_no_fault_is_minus_one(variant):
    fault = variant(lambda v: first_fault("abc", v))(magnitudes())
    assert int(fault.update) == -1
    assert health.describe(fault) is None
    assert health.describe(health.first_fault([])) is None  # of a program that watches nothing


@pytest.mark.parametrize("value", [NAN, INF, LIMIT, 3e17])
def test_the_first_update_and_in_it_the_first_quantity(variant, value):
    values = magnitudes(at_2_1=value, at_2_2=INF, at_3_0=NAN)
    fault = variant(lambda v: first_fault("abc", v, first=10))(values)
    np.testing.assert_equal(found(fault), (12, "b", float(np.float32(value))))


def test_each_of_a_batch_has_its_own(variant):
    values = jnp.stack([magnitudes(), magnitudes(at_3_0=INF), magnitudes(at_0_2=NAN)])
    fault = variant(jax.vmap(lambda v: first_fault("abc", v)))(values)
    assert fault.update.tolist() == [-1, 3, 0]
    assert fault.quantity.tolist()[1:] == [0, 2]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({}, {}, None),
        ({"at_1_0": INF}, {}, (1, "a")),
        ({}, {"at_1_2": INF}, (1, "f")),
        ({"at_2_1": INF}, {"at_1_2": INF}, (1, "f")),
        ({"at_1_1": INF}, {"at_2_0": INF}, (1, "b")),
        ({"at_2_1": INF}, {"at_2_0": INF}, (2, "b")),  # at the same update the first comes before
        ({"at_0_2": INF}, {}, (0, "c")),
        ({}, {"at_0_0": INF}, (0, "d")),
    ],
)
def test_merging(variant, first, second, expected):
    merged = variant(lambda a, b: health.first_fault([Watched(a, names=tuple("abc")), Watched(b, names=tuple("def"))]))(
        magnitudes(**first), magnitudes(**second)
    )
    assert merged.names == tuple("abcdef")
    assert (int(merged.update) == -1) if expected is None else (found(merged)[:2] == expected)


def test_what_counts_differently_does_not_merge():
    groups = [health.watch({"a": jnp.zeros(())}, unit=unit) for unit in ("update", "step")]
    with pytest.raises(ValueError, match="must count one unit, got step and update"):
        health.first_fault(groups)


def test_watching_takes_magnitudes_in_the_order_given():
    losses = health.each("{}'s loss", ["critic 0", "critic 1"], jnp.float32([3.0, -4.0]))
    watched = health.watch({"z": {"x": jnp.float32([1.0, -5.0])}, **losses, "a": jnp.float32(NAN)})
    assert watched.names == ("z", "critic 0's loss", "critic 1's loss", "a")
    np.testing.assert_equal(np.asarray(watched.values), np.float32([5.0, 3.0, 4.0, NAN]))
    kept = health.watch({"row": jnp.float32([[1.0, 2.0], [-3.0, 0.0]])}, keep=1)
    assert kept.values.tolist() == [[2.0], [3.0]]


def test_names_and_magnitudes_must_go_together():
    with pytest.raises(ValueError, match="2 names for 3 quantities"):
        first_fault("ab", magnitudes())


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (NAN, "critic 1's loss is not finite (nan) at update 7"),
        (INF, "critic 1's loss is not finite (inf) at update 7"),
        (3.2e17, "critic 1's loss has exploded (3.2e+17) at update 7"),
    ],
)
def test_what_the_user_reads(value, text):
    fault = first_fault(("a", "critic 1's loss"), magnitudes(8, 2, at_6_1=value))
    assert health.describe(jax.device_get(fault)) == text
