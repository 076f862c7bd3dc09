import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.driver.trained import load_trained
from mbpo_jax.rollouts.branched import Dynamics
from mbpo_jax.studies import imagination
from mbpo_jax.studies.imagination import imagine


def push(key, number, obs):
    """An action that tells its step."""
    return jnp.full((obs.shape[0], 1), number, jnp.float32)


def counting(limit=jnp.inf, broken_at=jnp.inf):
    """Group g moves the first number by 1 and the second by g; the reward is the action. Ends at `limit`."""

    def step(key, group, obs, action):
        next_obs = obs + jnp.stack([jnp.ones(len(obs)), jnp.full(len(obs), group, jnp.float32)], -1)
        next_obs = jnp.where(next_obs[:, :1] > broken_at, jnp.nan, next_obs)
        return next_obs, action[:, 0], next_obs[:, 0] >= limit

    return Dynamics(step, 2)


def starts(rows=1000):
    """Rows that begin at 0, 100, 200 ..."""
    return jnp.stack([100.0 * jnp.arange(rows), jnp.zeros(rows)], -1)


def test_every_row_moves_once_a_step_and_stays_in_its_place():
    out = imagine(jax.random.key(0), counting(), push, starts(), 7)
    np.testing.assert_array_equal(out.obs[:, :, 0], starts()[None, :, 0] + np.arange(8)[:, None])
    np.testing.assert_array_equal(out.reward, np.broadcast_to(np.arange(7)[:, None], (7, 1000)))
    assert out.alive.all()


def test_at_each_step_half_of_the_rows_are_moved_by_each_of_two_elites_and_not_always_the_same():
    out = imagine(jax.random.key(0), counting(), push, starts(), 20)
    group = np.diff(out.obs[:, :, 1], axis=0)  # [20, rows], 0 or 1
    np.testing.assert_array_equal(group.sum(1), np.full(20, 500))
    by_row = group.sum(0)  # binomial: mean 10, variance 5
    assert by_row.min() < 7 < 13 < by_row.max()
    assert 4.0 < by_row.var() < 6.0


def test_noise_differs_between_elites_and_steps():
    def step(key, group, obs, action):
        return jax.random.normal(key, obs.shape), action[:, 0], jnp.zeros(len(obs), bool)

    out = imagine(jax.random.key(0), Dynamics(step, 2), push, starts(4), 5)
    drawn = np.asarray(out.obs[1:]).ravel()
    assert len(np.unique(drawn)) == len(drawn)
    again = imagine(jax.random.key(0), Dynamics(step, 2), push, starts(4), 5)
    np.testing.assert_array_equal(out.obs, again.obs)


def test_a_row_that_ended_stays_and_earns_nothing_and_others_go_on():
    out = imagine(jax.random.key(0), counting(limit=103.0), push, starts(2), 6)
    np.testing.assert_array_equal(out.obs[:, 0, 0], [0, 1, 2, 3, 4, 5, 6])
    np.testing.assert_array_equal(out.obs[:, 1, 0], [100, 101, 102, 103, 103, 103, 103])  # the last step counts
    np.testing.assert_array_equal(out.reward[:, 1], [0, 1, 2, 0, 0, 0])
    np.testing.assert_array_equal(out.reward[:, 0], [0, 1, 2, 3, 4, 5])
    np.testing.assert_array_equal(out.alive[:, 1], [True, True, True, False, False, False])
    assert not out.exploded.any()  # an end is none


def test_ends_may_be_ignored():
    out = imagine(jax.random.key(0), counting(limit=103.0), push, starts(2), 6, to_the_end=True)
    np.testing.assert_array_equal(out.obs[:, 1, 0], 100 + np.arange(7))


@pytest.mark.parametrize("to_the_end", [False, True])
def test_a_prediction_that_is_not_finite_ends_a_row_where_it_was(to_the_end):
    out = imagine(jax.random.key(0), counting(broken_at=102.0), push, starts(2), 5, to_the_end)
    np.testing.assert_array_equal(out.obs[:, 1, 0], [100, 101, 102, 102, 102, 102])
    np.testing.assert_array_equal(out.reward[:, 1], [0, 1, 0, 0, 0])
    np.testing.assert_array_equal(out.obs[:, 0, 0], np.arange(6))
    np.testing.assert_array_equal(out.exploded, [False, True])


def test_rows_that_cannot_be_dealt_out_are_refused():
    with pytest.raises(ValueError, match="start_obs must have a multiple of 2 rows, got 3"):
        imagine(jax.random.key(0), counting(), push, starts(3), 5)


def test_a_model_that_was_never_fitted_or_is_half_fitted_is_refused(run_dir):
    with pytest.raises(ValueError, match="at step 40 none had been fitted; give another --step"):
        imagination.world_model(load_trained(run_dir, step=40))
    trained = load_trained(run_dir, step=80)
    imagination.world_model(trained)
    model = trained.state.model
    half = trained._replace(state=trained.state.replace(model=model.replace(fit=model.fit.replace(running=True))))
    with pytest.raises(ValueError, match="at step 80 a fit was under way"):
        imagination.world_model(half)
