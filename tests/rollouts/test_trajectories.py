import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.rollouts.trajectories import unroll
from mbpo_jax.types import Dynamics


def push(key, number, obs):
    """An action that tells its step; kept beside it, the first number that it was chosen at."""
    return jnp.full((obs.shape[0], 1), number, jnp.float32), obs[:, 0]


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
    out = unroll(jax.random.key(0), counting(), push, starts(), 7)
    np.testing.assert_array_equal(out.obs[:, :, 0], starts()[None, :, 0] + np.arange(8)[:, None])
    np.testing.assert_array_equal(out.reward, np.broadcast_to(np.arange(7)[:, None], (7, 1000)))
    np.testing.assert_array_equal(out.chosen, out.obs[:-1, :, 0])
    assert out.alive.all()


def test_at_each_step_half_of_the_rows_are_moved_by_each_of_two_elites_and_not_always_the_same():
    out = unroll(jax.random.key(0), counting(), push, starts(), 20)
    group = np.diff(out.obs[:, :, 1], axis=0)  # [20, rows], 0 or 1
    np.testing.assert_array_equal(group.sum(1), np.full(20, 500))
    by_row = group.sum(0)  # binomial: mean 10, variance 5
    assert by_row.min() < 7 < 13 < by_row.max()
    assert 4.0 < by_row.var() < 6.0


def test_noise_differs_between_elites_and_steps():
    def step(key, group, obs, action):
        return jax.random.normal(key, obs.shape), action[:, 0], jnp.zeros(len(obs), bool)

    out = unroll(jax.random.key(0), Dynamics(step, 2), push, starts(4), 5)
    drawn = np.asarray(out.obs[1:]).ravel()
    assert len(np.unique(drawn)) == len(drawn)
    again = unroll(jax.random.key(0), Dynamics(step, 2), push, starts(4), 5)
    np.testing.assert_array_equal(out.obs, again.obs)


def test_a_row_that_ended_stays_and_earns_nothing_and_others_go_on():
    out = unroll(jax.random.key(0), counting(limit=103.0), push, starts(2), 6)
    np.testing.assert_array_equal(out.obs[:, 0, 0], [0, 1, 2, 3, 4, 5, 6])
    np.testing.assert_array_equal(out.obs[:, 1, 0], [100, 101, 102, 103, 103, 103, 103])  # the last step counts
    np.testing.assert_array_equal(out.reward[:, 1], [0, 1, 2, 0, 0, 0])
    np.testing.assert_array_equal(out.reward[:, 0], [0, 1, 2, 3, 4, 5])
    np.testing.assert_array_equal(out.alive[:, 1], [True, True, True, False, False, False])
    np.testing.assert_array_equal(out.survives, [True, False])
    assert not out.exploded.any()  # an end is none


def test_ends_may_be_ignored():
    out = unroll(jax.random.key(0), counting(limit=103.0), push, starts(2), 6, past_end=True)
    np.testing.assert_array_equal(out.obs[:, 1, 0], 100 + np.arange(7))


@pytest.mark.parametrize("past_end", [False, True])
def test_a_prediction_that_is_not_finite_ends_a_row_where_it_was(past_end):
    out = unroll(jax.random.key(0), counting(broken_at=102.0), push, starts(2), 5, past_end=past_end)
    np.testing.assert_array_equal(out.obs[:, 1, 0], [100, 101, 102, 102, 102, 102])
    np.testing.assert_array_equal(out.reward[:, 1], [0, 1, 0, 0, 0])
    np.testing.assert_array_equal(out.obs[:, 0, 0], np.arange(6))
    np.testing.assert_array_equal(out.exploded, [False, True])
    np.testing.assert_array_equal(out.survives, [True, False])


@pytest.mark.parametrize("rows", [1, 3, 7])
def test_rows_that_cannot_be_dealt_out_evenly_all_move(rows):
    out = unroll(jax.random.key(0), counting(), push, starts(rows), 4)
    np.testing.assert_array_equal(out.obs[:, :, 0], starts(rows)[None, :, 0] + np.arange(5)[:, None])
    group = np.diff(out.obs[:, :, 1], axis=0)
    assert (group.sum(1) <= rows // 2 + 1).all()


def test_rows_that_are_dealt_once_keep_their_version():
    """TSinf: the second number counts steps by version 1, so it is 0 or all of them."""
    out = unroll(jax.random.key(0), counting(), push, starts(), 20, reassign=False)
    assert sorted(np.unique(out.obs[-1, :, 1])) == [0.0, 20.0]
    assert int((out.obs[-1, :, 1] == 20.0).sum()) == 500


def test_actions_are_kept_and_gradients_flow_through_every_step():
    """x' = x + a, reward = -x'^2 with a = -theta x: the derivative of the return by theta, worked by hand."""
    dynamics = Dynamics(lambda key, group, obs, action: (obs + action, -((obs + action)[:, 0] ** 2), obs[:, 0] < -99))

    def value(theta):
        out = unroll(jax.random.key(0), dynamics, lambda key, t, obs: (-theta * obs, ()), jnp.asarray([[2.0]]), 3)
        return jnp.sum(out.reward), out

    (total, out), slope = jax.value_and_grad(value, has_aux=True)(jnp.float32(0.5))
    np.testing.assert_allclose(out.action[:, 0, 0], [-1.0, -0.5, -0.25])
    # x_t = 2 (1 - theta)^t, so the return is -4 (u^2 + u^4 + u^6) with u = 1 - theta
    assert float(total) == pytest.approx(-4 * (0.5**2 + 0.5**4 + 0.5**6))
    assert float(slope) == pytest.approx(4 * (2 * 0.5 + 4 * 0.5**3 + 6 * 0.5**5))
