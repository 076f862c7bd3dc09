"""Factorisations: batched results, and batches that cannot wait for themselves."""

import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax import factorizations
from mbpo_jax.networks import SmoothMlp

SQUARES = jax.random.normal(jax.random.key(0), (3, 4, 4))
POSITIVE = SQUARES @ SQUARES.swapaxes(-1, -2) + 4.0 * jnp.eye(4)
TRIANGLES = jnp.tril(SQUARES) + 4.0 * jnp.eye(4)
CALLS = {
    "cholesky": (POSITIVE,),
    "solve_lower": (TRIANGLES, SQUARES),
    "solve_upper": (TRIANGLES.swapaxes(-1, -2), SQUARES[:, 0]),
    "upper_factor": (SQUARES,),
    "singular_values": (SQUARES,),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_batch_has_the_results_of_its_elements(name):
    factorize = getattr(factorizations, name)
    batched = jax.jit(jax.vmap(factorize))(*CALLS[name])
    for i in range(3):
        alone = factorize(*(array[i] for array in CALLS[name]))
        for many, one in zip(jax.tree.leaves(batched), jax.tree.leaves(alone), strict=True):
            np.testing.assert_array_equal(many[i], one)


def test_factors_by_hand():
    lower = jnp.asarray([[2.0, 0.0], [1.0, 3.0]])
    np.testing.assert_allclose(factorizations.cholesky(lower @ lower.T), lower, rtol=1e-6)
    np.testing.assert_allclose(factorizations.solve_lower(lower, jnp.asarray([2.0, 7.0])), [1.0, 2.0], rtol=1e-6)
    np.testing.assert_allclose(factorizations.solve_upper(lower.T, jnp.asarray([4.0, 6.0])), [1.0, 2.0], rtol=1e-6)
    np.testing.assert_allclose(jnp.abs(factorizations.upper_factor(jnp.asarray([[3.0], [4.0]]))), [[5.0]], rtol=1e-6)
    values, vectors = factorizations.singular_values(jnp.diag(jnp.asarray([1.0, 5.0])))
    np.testing.assert_allclose(values, [5.0, 1.0], rtol=1e-6)
    np.testing.assert_allclose(jnp.abs(vectors), [[0.0, 1.0], [1.0, 0.0]], atol=1e-6)


def test_an_argument_that_all_elements_share_is_not_repeated():
    solved = jax.vmap(factorizations.solve_lower, in_axes=(0, None))(TRIANGLES, jnp.eye(4))
    np.testing.assert_allclose(TRIANGLES @ solved, np.broadcast_to(np.eye(4), (3, 4, 4)), atol=1e-6)


@pytest.mark.parametrize("name", CALLS)
def test_lapack_gets_one_matrix_at_a_time(name):
    factorize = getattr(factorizations, name)
    assert lapack_ranks(jax.vmap(factorize), *CALLS[name]) == {2}
    assert lapack_ranks(jax.vmap(jax.vmap(factorize)), *(array[None] for array in CALLS[name])) == {2}


def test_initial_weights_of_members_are_drawn_one_matrix_at_a_time():
    network = SmoothMlp(3, hidden_units=8, num_hidden_layers=2)
    keys = jax.random.split(jax.random.key(0), 5)
    assert lapack_ranks(jax.vmap(lambda key: network.init(key, jnp.zeros(4))), keys) == {2}


def lapack_ranks(function, *arguments):
    """The numbers of dimensions of what LAPACK's calls take first, in the program of a function."""
    calls = re.findall(
        r"custom_call @lapack_\w+\(.*?: \(tensor<([0-9x]+)xf32>", jax.jit(function).lower(*arguments).as_text()
    )
    assert calls
    return {len(shape.split("x")) for shape in calls}


HANGS = """
import jax, jax.numpy as jnp
from mbpo_jax import factorizations
FUNCTIONS = factorizations.upper_factor, lambda m: factorizations.solve_lower(jnp.tril(m) + 64.0 * jnp.eye(64), m)
@jax.jit
def many(key):
    made = [jax.random.normal(one, (5, 64, 64)) for one in jax.random.split(key, 8)]
    return [jax.vmap(function)(matrices) for function in FUNCTIONS for matrices in made]
for seed in range(200):
    jax.block_until_ready(many(jax.random.key(seed)))
print("all returned")
"""


def test_batches_side_by_side_do_not_wait_for_each_other_forever():
    """With jaxlib's batched QR, this stops within some tens of calls on two cores."""
    ran = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=120)
    assert (ran.returncode, ran.stdout) == (0, "all returned\n"), ran.stderr
