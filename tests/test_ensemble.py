import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mbpo_jax import ensemble

NUM_MEMBERS = 4
OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1))


def init_member(key):
    key_w, key_b = jax.random.split(key)
    return {"w": jax.random.normal(key_w, (3, 2)), "b": jax.random.normal(key_b, (2,))}


def update_member(params, moments, grads):
    updates, moments = OPTIMIZER.update(grads, moments, params)
    return optax.apply_updates(params, updates), moments


@functools.cache
def members_and_grads():
    members = ensemble.init_members(init_member, jax.random.key(0), NUM_MEMBERS)
    grads = ensemble.init_members(init_member, jax.random.key(1), NUM_MEMBERS)
    return members, ensemble.lift(OPTIMIZER.init)(members), grads


update_members = ensemble.lift(update_member)


def exploded(grads, index, value):
    return jax.tree.map(lambda leaf: leaf.at[index].set(value), grads)


def assert_same(tree, other):
    jax.tree.map(np.testing.assert_array_equal, tree, other)


def test_members_start_different_each_from_its_own_key(variant):
    members = variant(lambda key: ensemble.init_members(init_member, key, NUM_MEMBERS))(jax.random.key(0))
    assert members["w"].shape == (NUM_MEMBERS, 3, 2)
    for leaf in jax.tree.leaves(members):
        assert len(np.unique(np.asarray(leaf))) == leaf.size  # not one number is shared
    keys = jax.random.split(jax.random.key(0), NUM_MEMBERS)
    for i in range(NUM_MEMBERS):
        jax.tree.map(np.testing.assert_array_equal, ensemble.member(members, i), init_member(keys[i]))


def test_another_key_makes_other_members():
    one, other = (ensemble.init_members(init_member, jax.random.key(seed), NUM_MEMBERS) for seed in (0, 1))
    assert not np.any(np.asarray(one["w"]) == np.asarray(other["w"]))


@pytest.mark.parametrize("huge", [1e15, 1e30, float("inf"), float("nan")])
def test_an_exploding_member_leaves_the_others_bit_for_bit(variant, huge):
    members, moments, grads = members_and_grads()
    update = variant(update_members)
    calm = update(members, moments, grads)
    stormy = update(members, moments, exploded(grads, 2, huge))
    for i in (0, 1, 3):
        assert_same(ensemble.member(stormy, i), ensemble.member(calm, i))
        moved = jax.tree.map(
            lambda new, old: np.abs(new - old).max(), *(ensemble.member(m, i) for m in (calm[0], members))
        )
        assert min(jax.tree.leaves(moved)) > 0.05  # Adam's first step: about 0.1 for every weight


def test_an_update_that_is_not_lifted_would_not():
    """The control: on stacked gradients the norm of one member clips all."""
    members, _, grads = members_and_grads()
    clip = optax.clip_by_global_norm(1.0)
    clipped, _ = clip.update(exploded(grads, 2, 1e15), clip.init(members))
    assert np.abs(np.asarray(clipped["w"][0])).max() < 1e-12
    lifted = ensemble.lift(lambda grads: clip.update(grads, optax.EmptyState())[0])(exploded(grads, 2, 1e15))
    assert np.abs(np.asarray(lifted["w"][0])).max() > 1e-2


def test_a_lifted_update_is_the_update_of_each_member_alone(variant):
    members, moments, grads = members_and_grads()
    lifted = variant(update_members)(members, moments, grads)
    alone_fn = variant(update_member)
    for i in range(NUM_MEMBERS):
        alone = alone_fn(*(ensemble.member(tree, i) for tree in (members, moments, grads)))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), ensemble.member(lifted, i), alone)


def test_an_axis_of_none_is_shared_by_members(variant):
    lifted = variant(ensemble.lift(lambda slope, x, shift: slope * x + shift, (0, None, 0)))
    y = lifted(jnp.array([1.0, 10.0]), jnp.array([1.0, 2.0, 3.0]), jnp.array([0.5, 0.25]))
    assert y.tolist() == [[1.5, 2.5, 3.5], [10.25, 20.25, 30.25]]


def test_member_picks(variant):
    members = {"w": jnp.arange(12.0).reshape(4, 3), "b": jnp.arange(4)}
    pick = variant(ensemble.member)
    for i in range(4):
        picked = pick(members, jnp.int32(i))
        assert picked["w"].tolist() == [3.0 * i, 3.0 * i + 1.0, 3.0 * i + 2.0]
        assert picked["b"].tolist() == i
