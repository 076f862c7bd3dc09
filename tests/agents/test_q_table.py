import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.agents import q_table

KEYS = jax.random.split(jax.random.key(0), 4000)


def shares(choose, num_actions):
    return np.bincount(jax.jit(jax.vmap(choose))(KEYS), minlength=num_actions) / len(KEYS)


def test_equal_values_are_chosen_equally_often_and_smaller_ones_never():
    chosen = shares(lambda key: q_table.greedy(key, jnp.float32([2.0, 1.0, 2.0, 2.0])), 4)
    np.testing.assert_allclose(chosen, [1 / 3, 0, 1 / 3, 1 / 3], atol=0.03)
    assert chosen[1] == 0


def test_a_share_of_actions_is_any_of_them():
    chosen = shares(lambda key: q_table.epsilon_greedy(key, jnp.float32([0.0, 3.0, 1.0, 2.0]), 0.4), 4)
    np.testing.assert_allclose(chosen, [0.1, 0.7, 0.1, 0.1], atol=0.03)


def test_one_pair_goes_its_share_of_the_way():
    q, error = q_table.move(jnp.ones((2, 2)), jnp.int32(1), jnp.int32(0), jnp.float32(3.0), 0.25)
    np.testing.assert_allclose(q, [[1.0, 1.0], [1.5, 1.0]])
    assert error == pytest.approx(2.0)
