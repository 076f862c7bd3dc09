"""Which rows a fit learns from: held-out split, bootstrap, minibatches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.models import fit_rows, gaussian


def split_rows(key, num_rows, config=None, num_added=None):
    config = config or gaussian.GaussianConfig()
    return fit_rows.split_rows(key, jnp.asarray(num_rows), jnp.asarray(num_added or num_rows), config)


@pytest.mark.parametrize(("num_rows", "expected"), [(1000, 200), (5000, 1000), (30_000, 5000), (999, 199), (4, 0)])
def test_held_out_rows_are_a_fifth_but_at_most_5000(num_rows, expected):
    split = split_rows(jax.random.key(0), num_rows)
    assert int(split.num_holdout) == expected
    assert int(split.num_train) == num_rows - expected


def test_held_out_and_training_rows_share_nothing_and_cover_everything():
    split = split_rows(jax.random.key(3), 503)
    held_out = np.asarray(split.holdout(jnp.arange(split.num_holdout)))
    learnt = np.asarray(split.train(jnp.arange(split.num_train)))
    assert sorted([*held_out, *learnt]) == list(range(503))
    assert list(held_out) != sorted(held_out)  # a random fifth, not the oldest


@pytest.mark.parametrize("capacity", [10_000, 130])
def test_a_row_once_learnt_from_is_never_held_out_of_a_later_fit(capacity):
    """With `fixed_holdout`: as rows come in, as old ones give way, and where a fifth is more than may be held out."""
    config = gaussian.GaussianConfig(fixed_holdout=True, max_holdout_rows=20)
    learnt = set()
    for num_added in (3, 4, 7, 50, 99, 100, 101, 333, 1000):
        num_rows = min(num_added, capacity)
        split = split_rows(jax.random.key(num_added), num_rows, config, num_added)
        oldest = num_added - num_rows  # number of the row of age 0
        held_out = np.asarray(split.holdout(jnp.arange(split.num_holdout))) + oldest
        now = np.asarray(split.train(jnp.arange(split.num_train))) + oldest
        assert sorted([*held_out, *now]) == list(range(oldest, num_added))
        assert len(held_out) == min(num_rows // 5, 20)
        assert (held_out % 5 == 4).all()
        assert not learnt & set(held_out.tolist())
        learnt |= set(now.tolist())
    assert held_out.tolist() == list(range(904, 1000, 5))  # the newest that may be held out


def test_a_share_that_is_rounded_up_holds_out_no_row_that_there_is_not():
    """0.3334 counts as one in 3, of which 5,000 rows have 1,666; the share itself would be 1,667."""
    config = gaussian.GaussianConfig(fixed_holdout=True, holdout_fraction=0.3334)
    split = split_rows(jax.random.key(0), 5000, config)
    held_out = np.asarray(split.holdout(jnp.arange(split.num_holdout)))
    learnt = np.asarray(split.train(jnp.arange(split.num_train)))
    assert held_out.tolist() == list(range(2, 5000, 3))
    assert sorted([*held_out, *learnt]) == list(range(5000))


@pytest.mark.parametrize("fixed", [False, True])
def test_where_no_row_is_held_out_all_of_them_are_scored(fixed):
    """A fit is then judged by its training rows, each once; ages beyond the newest row's are of no row at all."""
    config = gaussian.GaussianConfig(fixed_holdout=fixed, holdout_fraction=0.01)
    split = split_rows(jax.random.key(3), 60, config, num_added=170)  # the oldest have given way
    assert int(split.num_holdout) == 0
    scored = split.holdout(jnp.arange(split.num_train))
    assert sorted(np.asarray(scored).tolist()) == list(range(60))


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.9])
def test_a_fixed_split_holds_out_one_in_so_many(fraction):
    with pytest.raises(ValueError, match=rf"needs a holdout_fraction of 1/n for a whole number n: .*; got {fraction}"):
        gaussian.GaussianConfig(fixed_holdout=True, holdout_fraction=fraction)


DRAW = jax.jit(fit_rows.bootstrap_rows, static_argnums=4)
THREE = gaussian.GaussianConfig(num_members=3, num_elites=3, fit_epoch_minibatches=1)


def all_minibatches(key, split, epoch, config=THREE, pass_number=0):
    """Every row [M, num_train] that a pass of an epoch shows, in order."""
    num = -(-int(split.num_train) // config.model_batch_size)
    parts = [DRAW(key, split, epoch, jnp.asarray(pass_number * num + i), config) for i in range(num)]
    return np.concatenate(parts, axis=1)[:, : int(split.num_train)]


def test_each_member_bootstraps_its_own_set_once_per_fit_and_reshuffles_it_every_epoch():
    split = split_rows(jax.random.key(0), 2000)
    first = all_minibatches(jax.random.key(1), split, 0)
    second = all_minibatches(jax.random.key(1), split, 1)
    other_fit = all_minibatches(jax.random.key(2), split, 0)
    allowed = set(np.asarray(split.train(jnp.arange(split.num_train))).tolist())
    for member in range(3):
        assert sorted(first[member]) == sorted(second[member])  # the same draws,
        assert list(first[member]) != list(second[member])  # in another order
        assert sorted(first[member]) != sorted(other_fit[member])
        assert set(first[member].tolist()) <= allowed
        # Drawing n of n with replacement leaves 1 - 1/e of them.
        assert len(set(first[member].tolist())) / 1600 == pytest.approx(1 - np.exp(-1), abs=0.03)
    assert sorted(first[0]) != sorted(first[1])
    assert sorted(first[1]) != sorted(first[2])


def test_weights_average_the_short_last_minibatch():
    split = fit_rows.Split(order=None, num_rows=jnp.asarray(600), num_holdout=jnp.asarray(0))
    full = np.asarray(fit_rows.minibatch_weights(split, jnp.asarray(1), THREE))
    last = np.asarray(fit_rows.minibatch_weights(split, jnp.asarray(2), THREE))
    np.testing.assert_allclose(full, 1 / 256, rtol=1e-6)
    np.testing.assert_allclose(last[: 600 - 512], 1 / 88, rtol=1e-6)
    assert (last[88:] == 0).all()


FEW_ROWS = gaussian.GaussianConfig(num_members=3, num_elites=3, fit_epoch_minibatches=7)


def test_an_epoch_of_few_rows_is_several_passes_each_in_an_order_of_its_own():
    split = split_rows(jax.random.key(0), 750, FEW_ROWS)  # 600 to learn from: 3 minibatches a pass
    assert int(fit_rows.num_epoch_minibatches(split.num_train, FEW_ROWS)) == 7
    passes = [
        all_minibatches(jax.random.key(1), split, epoch, FEW_ROWS, number) for epoch in (0, 1) for number in (0, 1, 2)
    ]
    for one in passes[1:]:
        assert sorted(one[0]) == sorted(passes[0][0])  # the member's own draws
    assert len({tuple(one[0]) for one in passes}) == 6
    # the last of each pass is short, and not that of the epoch alone
    sizes = [int((np.asarray(fit_rows.minibatch_weights(split, jnp.asarray(i), FEW_ROWS)) > 0).sum()) for i in range(7)]
    assert sizes == [256, 256, 88, 256, 256, 88, 256]


def test_an_epoch_of_many_rows_is_one_pass_whatever_its_least_is():
    split = split_rows(jax.random.key(0), 2500, FEW_ROWS)  # 2,000 to learn from: 8 minibatches
    assert int(fit_rows.num_epoch_minibatches(split.num_train, FEW_ROWS)) == 8
    for epoch in (0, 3):
        few, paper = (all_minibatches(jax.random.key(1), split, epoch, config) for config in (FEW_ROWS, THREE))
        assert (few == paper).all()
