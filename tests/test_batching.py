import jax
import jax.numpy as jnp
import numpy as np

from mbpo_jax import batching


def test_alone_a_bound_is_itself():
    assert int(jax.jit(batching.largest)(jnp.asarray(3))) == 3
    assert not jax.jit(batching.anywhere)(jnp.asarray(False))


def test_batched_bounds_and_predicates_are_shared():
    bounds = jnp.asarray([2, 5, 3])
    np.testing.assert_array_equal(jax.vmap(batching.largest)(bounds), [5, 5, 5])
    np.testing.assert_array_equal(jax.vmap(batching.anywhere)(bounds == 3), [True, True, True])
    np.testing.assert_array_equal(jax.vmap(batching.anywhere)(bounds == 9), [False, False, False])
    twice = jax.vmap(jax.vmap(batching.largest))(jnp.asarray([[1, 2], [7, 4]]))
    np.testing.assert_array_equal(twice, 7)


def test_a_batched_loop_keeps_one_counter_and_a_batched_branch_stays_one():
    """Else `vmap` selects the loop's whole carry at every turn, and computes both branches."""

    def loop(bound, x):
        return jax.lax.fori_loop(0, batching.largest(bound), lambda i, x: jnp.where(i < bound, x + 1.0, x), x)

    def branch(predicate, x):
        return jax.lax.cond(batching.anywhere(predicate), lambda x: jnp.where(predicate, x + 1.0, x), lambda x: x, x)

    bounds, x = jnp.asarray([2, 5, 0]), jnp.zeros(3)
    np.testing.assert_array_equal(jax.jit(jax.vmap(loop))(bounds, x), [2, 5, 0])
    np.testing.assert_array_equal(jax.jit(jax.vmap(branch))(bounds == 5, x), [0, 1, 0])
    (while_loop,) = (e for e in jax.make_jaxpr(jax.vmap(loop))(bounds, x).eqns if e.primitive.name == "while")
    assert while_loop.params["cond_jaxpr"].out_avals[0].shape == ()
    assert "cond" in {e.primitive.name for e in jax.make_jaxpr(jax.vmap(branch))(bounds == 5, x).eqns}
