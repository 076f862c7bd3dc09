"""Matrix factorisations by LAPACK, one matrix at a time on a CPU.

A batched factorisation in jaxlib divides its matrices over the same threads that it runs on, and waits for them: two of
them at once, on two threads, wait forever (jaxlib 0.10.2; `tests/slow/batched_factorizations.py`). A single matrix is
not divided. So a batch is a loop here, on a CPU; elsewhere it stays a batch.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def one_at_a_time(factorize: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a function of arrays run for one element of a batch after another if the backend is a CPU.

    It can then be differentiated forwards, but not backwards.
    """

    @functools.wraps(factorize)
    def call(*arrays: Array) -> Any:
        in_turn = jax.default_backend() == "cpu"
        return (jax.custom_batching.sequential_vmap(factorize) if in_turn else factorize)(*arrays)

    return call


@one_at_a_time
def cholesky(matrix: Array) -> Array:
    """Returns the lower factor [M, M] of a positive definite matrix [M, M]."""
    return jnp.linalg.cholesky(matrix)


@one_at_a_time
def solve_lower(factor: Array, right: Array) -> Array:
    """Returns factor^-1 right, for a lower triangular factor [M, M] and `right` [M] or [M, B]."""
    return jax.scipy.linalg.solve_triangular(factor, right, lower=True)


@one_at_a_time
def solve_upper(factor: Array, right: Array) -> Array:
    """Returns factor^-1 right, for an upper triangular factor [M, M] and `right` [M] or [M, B]."""
    return jax.scipy.linalg.solve_triangular(factor, right, lower=False)


@one_at_a_time
def upper_factor(matrix: Array) -> Array:
    """Returns R [min(A, B), B] of the QR factorisation of a matrix [A, B]."""
    return jnp.linalg.qr(matrix, mode="r")


@one_at_a_time
def singular_values(matrix: Array) -> tuple[Array, Array]:
    """Returns the singular values [M] of a matrix [M, M], and its right singular vectors [M, M] in rows."""
    _, values, vectors = jnp.linalg.svd(matrix)
    return values, vectors
