import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax import planners
from mbpo_jax.planners import cem, icem, mppi, noise, random_shooting
from mbpo_jax.planners.planner import WORST, best, scored, shifted
from mbpo_jax.rollouts import particles
from mbpo_jax.types import Dynamics

CEM = cem.CemConfig(num_candidates=200, elite_candidates=20, iterations=8, stop_variance=0.0)
ICEM = icem.IcemConfig(num_candidates=200, elite_candidates=20, iterations=5, noise_exponent=0.0)
MPPI = mppi.MppiConfig(num_candidates=500, iterations=20, noise_std=0.5, temperature=0.02)
SHOOTING = random_shooting.RandomShootingConfig(num_candidates=5000)
ALL = pytest.mark.parametrize("config", [CEM, ICEM, MPPI, SHOOTING], ids=lambda config: type(config).__name__)
TARGET = np.array([[0.5], [-0.8], [0.1]], np.float32)


def nearness(key, actions):
    return -jnp.sum(jnp.square(actions - TARGET), axis=(1, 2))


@ALL
def test_the_optimum_of_a_quadratic_is_found(config):
    planner = planners.build(config, 3, 1)
    actions, _ = jax.jit(lambda key: planner.plan(key, planner.init(), nearness))(jax.random.key(0))
    np.testing.assert_allclose(actions, TARGET, atol=0.2 if config is SHOOTING else 0.05)


def line(key, group, obs, action):
    """The line world: v += a, x += v; the reward is -x^2."""
    speed = obs[:, 1] + action[:, 0]
    next_obs = jnp.stack([obs[:, 0] + speed, speed], -1)
    return next_obs, -jnp.square(next_obs[:, 0]), jnp.zeros(len(obs), bool)


@ALL
def test_a_plan_in_known_linear_dynamics_brings_the_point_to_rest(config):
    """From (0.5, 0), -0.5 and then 0.5 lead to rest at 0, and no other actions to a sum of rewards of 0."""
    planner = planners.build(config, 3, 1)
    score = functools.partial(particles.score, Dynamics(line), jnp.array([0.5, 0.0]), 1, False)
    actions, _ = jax.jit(lambda key: planner.plan(key, planner.init(), score))(jax.random.key(0))
    np.testing.assert_allclose(actions[:2, 0], [-0.5, 0.5], atol=0.25 if config is SHOOTING else 0.1)
    nothing, found = score(jax.random.key(0), jnp.stack([jnp.zeros((3, 1)), actions]))
    assert float(nothing) == -0.75
    assert float(found) > (-0.05 if config is SHOOTING else -0.01)


@ALL
def test_a_plan_depends_on_its_key_and_stays_within_bounds(config):
    planner = planners.build(config, 3, 2)
    plan = jax.jit(lambda key: planner.plan(key, planner.init(), lambda key, a: jnp.sum(a, axis=(1, 2)))[0])
    first, again, other = plan(jax.random.key(0)), plan(jax.random.key(0)), plan(jax.random.key(1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.shape == (3, 2)
    assert (np.abs(first) <= 1.0).all()


@ALL
def test_the_next_search_begins_where_the_last_one_ended(config):
    """Except that of random shooting, which remembers nothing."""
    planner = planners.build(config, 3, 1)
    actions, plan = planner.plan(jax.random.key(0), planner.init(), nearness)
    if config is SHOOTING:
        assert plan == ()
        return
    mean = plan[0] if config is ICEM else plan
    new = 0.0 if config is CEM else mean[-2]
    np.testing.assert_array_equal(mean[-1], new)
    if config is not ICEM:  # which acts by its best candidate, and not by the mean
        np.testing.assert_array_equal(mean[:-1], actions[1:])


def test_what_planners_share():
    actions = jnp.arange(6.0).reshape(3, 2, 1)
    scores = scored(lambda key, a: jnp.array([jnp.nan, 2.0, -jnp.inf]), jax.random.key(0), actions)
    np.testing.assert_array_equal(scores, np.array([WORST, 2.0, WORST], np.float32))
    np.testing.assert_array_equal(best(actions, jnp.array([1.0, 3.0, 2.0]), 2)[:, 0, 0], [2.0, 4.0])
    np.testing.assert_array_equal(shifted(actions[0], jnp.array([9.0])), [[1.0], [9.0]])


# -- CEM -------------------------------------------------------------------------------------------------------------


def test_a_mean_moves_to_that_of_the_elites():
    candidates = jnp.array([[[0.0]], [[0.2]], [[0.6]], [[-1.0]]])
    config = cem.CemConfig(num_candidates=4, elite_candidates=2, smoothing=0.25)
    mean, variance = cem.refine(
        config, jnp.array([[0.8]]), jnp.array([[0.4]]), candidates, jnp.array([0.0, 3.0, 2.0, -5.0])
    )
    np.testing.assert_allclose(mean, [[0.25 * 0.8 + 0.75 * 0.4]])  # elites 0.2 and 0.6
    np.testing.assert_allclose(variance, [[0.25 * 0.4 + 0.75 * 0.04]])


@pytest.mark.parametrize(
    ("mean", "variance", "reach"),
    [(0.0, 0.25, 1.0), (0.0, 0.01, 0.2), (0.9, 0.25, 0.1), (-0.5, 0.25, 0.5), (1.0, 0.25, 0.0)],
)
def test_nothing_is_drawn_beyond_two_deviations_or_a_bound(mean, variance, reach):
    drawn = np.asarray(cem.draw(jax.random.key(0), jnp.full((1, 1), mean), jnp.full((1, 1), variance), 4000))
    assert np.abs(drawn - mean).max() <= reach + 1e-6
    assert np.abs(drawn - mean).max() >= 0.97 * reach
    # A normal number between -2 and 2 has a standard deviation of 0.8796.
    np.testing.assert_allclose(drawn.std(), 0.8796 * reach / 2, rtol=0.05)


def test_a_search_stops_when_its_variance_is_small():
    asked = cem.CemConfig(num_candidates=4, elite_candidates=2, stop_variance=cem.FIRST_VARIANCE)
    actions, _ = cem.plan(asked, jax.random.key(0), jnp.full((2, 1), 0.3), lambda key, a: a[:, 0, 0])
    np.testing.assert_array_equal(actions, np.full((2, 1), 0.3, np.float32))


# -- iCEM ------------------------------------------------------------------------------------------------------------


def test_elites_are_tried_again_in_the_next_iteration_and_moved_on_in_the_next_step():
    config = icem.IcemConfig(
        num_candidates=10, elite_candidates=4, kept_fraction=0.5, iterations=2, candidate_decay=1.25
    )
    tried = []

    def score(key, actions):
        tried.append(np.asarray(actions))
        return jnp.sum(actions[:, :, 0], axis=1)

    planner = icem.build(config, 3, 1)
    chosen, plan = planner.plan(jax.random.key(0), planner.init(), score)
    first, second = tried
    assert len(first) == 10 + 2  # two plans of zeros at first
    np.testing.assert_array_equal(first[-2:, :-1], 0.0)
    assert len(second) == 8 + 2 + 1  # a fifth fewer, the elites that are kept, and the mean
    order = np.argsort(-first.sum((1, 2)))
    np.testing.assert_array_equal(second[8:10], first[order[:2]])
    elites = first[order[:4]]
    np.testing.assert_allclose(second[10], 0.9 * elites.mean(0), rtol=1e-6)
    np.testing.assert_array_equal(chosen, second[np.argmax(second.sum((1, 2)))])

    planner.plan(jax.random.key(1), plan, score)
    third = tried[2]
    best_before = second[np.argsort(-second.sum((1, 2)))[:2]]
    np.testing.assert_array_equal(third[10:12, :-1], best_before[:, 1:])
    np.testing.assert_array_equal(third[10:12, -1], third[:2, -1])  # of what was drawn


def test_iterations_draw_fewer_and_fewer_but_twice_the_elites():
    config = icem.IcemConfig(num_candidates=100, elite_candidates=20, candidate_decay=2.0)
    assert [icem.num_drawn(config, i) for i in range(4)] == [100, 50, 40, 40]
    few = icem.IcemConfig(num_candidates=10, elite_candidates=8)
    assert [icem.num_drawn(few, i) for i in range(2)] == [10, 10]


@pytest.mark.parametrize("length", [1, 2, 7, 8])
@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.5])
def test_noise_has_variance_one_and_its_power_falls_as_the_exponent_says(length, exponent):
    drawn = np.asarray(noise.coloured(jax.random.key(0), exponent, (20_000, length, 1)))[..., 0]
    np.testing.assert_allclose(drawn.var(), 1.0, rtol=0.05)
    power = np.mean(np.abs(np.fft.rfft(drawn, axis=1)) ** 2, 0)
    frequency = np.maximum(np.arange(len(power)), 1.0)
    np.testing.assert_allclose(power / power[0], frequency**-exponent, rtol=0.06)


def test_actions_of_different_dimensions_have_noise_of_their_own():
    drawn = np.asarray(noise.coloured(jax.random.key(0), 2.0, (5000, 4, 2)))
    assert abs(np.mean(drawn[:, 0, 0] * drawn[:, 0, 1])) < 0.05
    # Neighbours in time: powers are 2 * 16, 4 * 16 and 2 * 4 at cosines 1, 0 and -1, so 24 / 104.
    np.testing.assert_allclose(np.mean(drawn[:, 0, 0] * drawn[:, 1, 0]), 24 / 104, atol=0.05)


# -- MPPI ------------------------------------------------------------------------------------------------------------


def test_weights_are_exponentials_of_scores():
    candidates = jnp.array([[[0.0]], [[1.0]]])
    for scores in (jnp.array([0.0, jnp.log(3.0)]), jnp.array([1e6, 1e6 + 1.125])):
        config = mppi.MppiConfig(temperature=1.0 if scores[0] == 0.0 else 1.125 / float(np.log(3.0)))
        np.testing.assert_allclose(mppi.weighted_mean(config, candidates, scores), [[0.75]], rtol=1e-5)


def test_noise_is_filtered_along_time():
    white = jnp.array([[[1.0], [0.0], [4.0]], [[2.0], [2.0], [2.0]]])
    filtered = mppi.filtered(0.5, white)
    np.testing.assert_allclose(filtered[..., 0], [[0.5, 0.25, 2.125], [1.0, 1.5, 1.75]])


@pytest.mark.parametrize("config_class", [cem.CemConfig, icem.IcemConfig])
def test_more_elites_than_candidates_are_refused(config_class):
    with pytest.raises(ValueError, match=r"elite_candidates must be at most num_candidates \(5\), got 6"):
        config_class(num_candidates=5, elite_candidates=6)
