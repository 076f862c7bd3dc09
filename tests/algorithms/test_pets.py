import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs

from mbpo_jax import options, rewards, terminations
from mbpo_jax.algorithms import particle_propagation, pets
from mbpo_jax.launch import flags
from mbpo_jax.launch.flags import FlagsError
from mbpo_jax.models import deterministic, gaussian, world
from mbpo_jax.models.encoding import forward
from mbpo_jax.models.gp_state import GpConfig
from mbpo_jax.models.observations import encode_observations
from mbpo_jax.models.state import GaussianConfig
from mbpo_jax.types import Spec, Transition, WorldModel

SPEC = Spec(obs_dim=2, action_dim=1, termination_fn=terminations.never)
CONFIG = GaussianConfig(num_members=2, num_elites=2, model_hidden_units=8, model_weight_decays=(1e-3, 1e-2))
TINY = options.replace(pets.PetsConfig(), pets.TINY)


def constant_world():
    """Two members: means 1 and 3 of all targets, variances 4 and 6."""

    def predict(belief, obs, action):
        mean = jnp.stack([jnp.full((len(obs), 3), 1.0), jnp.full((len(obs), 3), 3.0)])
        return mean, jnp.log(jnp.stack([jnp.full((len(obs), 3), 4.0), jnp.full((len(obs), 3), 6.0)]))

    return WorldModel(None, None, None, predict, None, None, num_groups=2)


def moved(kind, num_particles, num_candidates, obs=None, model=None, spec=SPEC):
    rows = num_particles * num_candidates
    obs = jnp.zeros((rows, 2)) if obs is None else obs
    dynamics = particle_propagation.dynamics(kind, model or constant_world(), forward(SPEC), spec, num_particles, None)
    assert dynamics.num_groups == 1
    return dynamics.step_fn(jax.random.key(0), jnp.asarray(0), obs, jnp.zeros((rows, 1)))


def test_expectation_moves_by_the_mean_of_all_members():
    next_obs, reward, ends = moved("expectation", 1, 3, obs=jnp.ones((3, 2)))
    np.testing.assert_array_equal(next_obs, np.full((3, 2), 1.0 + 2.0))
    np.testing.assert_array_equal(reward, np.full(3, 2.0))
    assert not ends.any()


def test_expectation_is_the_mean_of_what_learnt_members_expect():
    model = world.build(CONFIG, gaussian.member(CONFIG, forward(SPEC)), forward(SPEC))
    belief = model.belief(jax.jit(model.init)(jax.random.key(1)))
    rng = np.random.default_rng(0)
    obs, action = rng.normal(size=(5, 2)).astype(np.float32), rng.normal(size=(5, 1)).astype(np.float32)
    dynamics = particle_propagation.dynamics("expectation", model, forward(SPEC), SPEC, 1, belief)
    next_obs, reward, _ = dynamics.step_fn(jax.random.key(0), jnp.asarray(0), obs, action)
    expected = [model.expect(belief, jnp.asarray(group), obs, action) for group in range(2)]
    np.testing.assert_allclose(next_obs, np.mean([e[0] for e in expected], 0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(reward, np.mean([e[1] for e in expected], 0), rtol=1e-5, atol=1e-6)
    assert not np.allclose(expected[0][0], expected[1][0])


def test_moments_count_noise_and_disagreement():
    """The mean of 1 and 3 is 2, their variance 1, and the mean of 4 and 6 is 5."""
    mean, variance = particle_propagation.moments(constant_world(), None, jnp.zeros((4, 2)), jnp.zeros((4, 1)))
    np.testing.assert_array_equal(mean, np.full((4, 3), 2.0))
    np.testing.assert_allclose(variance, np.full((4, 3), 6.0), rtol=1e-6)
    next_obs, reward, _ = moved("ds", 5000, 1)
    np.testing.assert_allclose([next_obs.mean(), reward.mean()], 2.0, atol=0.15)
    np.testing.assert_allclose([next_obs.var(), reward.var()], 6.0, rtol=0.1)


def test_matched_particles_have_the_moments_of_their_candidate():
    """Particles of candidate 0 begin at -100 and 100, those of candidate 1 at 0; afterwards each is one Gaussian."""
    starts = np.zeros((4000, 2, 2), np.float32)
    starts[:, 0] = np.where(np.arange(4000) % 2, 100.0, -100.0)[:, None]
    next_obs, _, _ = moved("mm", 4000, 2, obs=jnp.asarray(starts.reshape(-1, 2)))
    after = np.asarray(next_obs).reshape(4000, 2, 2)
    np.testing.assert_allclose(after.mean(0)[0], 2.0, atol=6.0)
    np.testing.assert_allclose(after.std(0)[0], np.sqrt(100.0**2 + 6.0), rtol=0.05)
    np.testing.assert_allclose(after.std(0)[1], np.sqrt(6.0), rtol=0.05)
    assert np.mean(np.abs(after[:, 0, 0]) < 50.0) > 0.3  # and not two heaps any more


def test_a_known_reward_takes_the_place_of_the_learnt_one():
    _, reward, _ = moved("expectation", 1, 3, spec=SPEC._replace(reward_fn=rewards.line_world))
    np.testing.assert_allclose(reward, np.full(3, -0.004), rtol=1e-6)


def test_deterministic_members_have_no_noise_and_learn_by_squared_error():
    member = deterministic.member(CONFIG, forward(SPEC))
    params = jax.tree.map(jnp.zeros_like, member.init(jax.random.key(0)))
    params["mean"]["bias"] = jnp.array([1.0, 2.0, 3.0])
    x, y = jnp.zeros((2, 3)), jnp.array([[1.0, 2.0, 0.0], [1.0, 5.0, 3.0]])
    np.testing.assert_allclose(member.loss(params, {}, x, y, jnp.array([0.5, 0.5])), 3.0)  # 9 / 3 of either row
    np.testing.assert_allclose(member.loss(params, {}, x, y, jnp.array([1.0, 0.0])), 3.0)
    params["mean"]["kernel"] = jnp.ones((8, 3))  # 24 weights of the last layer, whose decay is 0.01
    np.testing.assert_allclose(member.loss(params, {}, x, y, jnp.array([0.5, 0.5])), 3.0 + 0.5 * 0.01 * 24, rtol=1e-5)
    model = world.build(CONFIG, member, forward(SPEC))
    belief = model.belief(jax.jit(model.init)(jax.random.key(1)))
    rows = jnp.ones((4, 2)), jnp.ones((4, 1))
    sampled = model.sample(jax.random.key(0), belief, jnp.asarray(1), *rows)
    expected = model.expect(belief, jnp.asarray(1), *rows)
    jax.tree.map(np.testing.assert_array_equal, sampled, expected)


def test_angles_are_seen_as_sine_and_cosine_and_moved_as_they_are():
    encoding = encode_observations(forward(SPEC), angles=(1,))
    assert (encoding.num_inputs, encoding.num_targets) == (4, 3)
    obs, action = jnp.array([[7.0, np.pi / 2]]), jnp.array([[0.5]])
    np.testing.assert_allclose(encoding.inputs(obs, action), [[1.0, 0.0, 7.0, 0.5]], atol=1e-6)
    turned = encoding.inputs(obs + jnp.array([0.0, 2.0 * np.pi]), action)
    np.testing.assert_allclose(turned, encoding.inputs(obs, action), atol=1e-5)
    rows = Transition(obs=obs, action=action, reward=jnp.array([2.0]), next_obs=obs + 1.0, terminal=jnp.zeros(1))
    x, y = encoding.examples(rows)
    np.testing.assert_allclose(x, encoding.inputs(obs, action))
    np.testing.assert_allclose(y, [[2.0, 1.0, 1.0]], rtol=1e-6)
    next_obs, reward = encoding.decode(obs, action, y)
    np.testing.assert_allclose(next_obs, obs + 1.0, rtol=1e-6)
    assert float(reward[0]) == 2.0


def test_what_is_predicted_as_it_is_is_not_seen_and_does_not_add_up():
    spec = Spec(obs_dim=3, action_dim=1, max_episode_steps=200)
    encoding = encode_observations(forward(spec), angles=(2,), absolute=(0,))
    assert (encoding.num_inputs, encoding.num_targets) == (4, 4)
    obs, action, next_obs = jnp.array([[5.0, 3.0, np.pi / 2]]), jnp.array([[0.5]]), jnp.array([[7.0, 3.5, np.pi]])
    np.testing.assert_allclose(encoding.inputs(obs, action), [[1.0, 0.0, 3.0, 0.5]], atol=1e-6)
    rows = Transition(obs=obs, action=action, reward=jnp.array([2.0]), next_obs=next_obs, terminal=jnp.zeros(1))
    x, y = encoding.examples(rows)
    np.testing.assert_allclose(x, encoding.inputs(obs, action))
    np.testing.assert_allclose(y, [[2.0, 7.0, 0.5, np.pi / 2]], rtol=1e-6)
    for speed in (5.0, -40.0):  # it is what is predicted, whatever it was
        found, reward = encoding.decode(obs.at[:, 0].set(speed), action, y)
        np.testing.assert_allclose(found, next_obs, rtol=1e-6)
        assert float(reward[0]) == 2.0


def test_a_plan_is_carried_on_and_what_is_drawn_goes_by_the_episodes_key():
    algorithm = pets.build(TINY, SPEC._replace(reward_fn=rewards.line_world))
    belief = algorithm.actor(jax.jit(algorithm.init)(jax.random.key(0)))
    act, obs = jax.jit(algorithm.act, static_argnums=4), jnp.array([1.0, 0.0])
    one, other = (algorithm.begin_episode(jax.random.key(k), belief) for k in (1, 2))
    first, after = act(jax.random.key(0), belief, one, obs, False)
    assert int(after.step) == 1
    assert not np.array_equal(after.planner, one.planner)
    assert not np.array_equal(first, act(jax.random.key(0), belief, other, obs, False)[0])
    same_plan = after.replace(planner=one.planner)  # at another step others are drawn
    assert not np.array_equal(first, act(jax.random.key(0), belief, same_plan, obs, False)[0])


LINE_WORLD = {
    "algorithm": "pets", "env": "mbpo_jax/LineWorld-v0", "reward_fn": "mbpo_jax.rewards:line_world", "quiet": "true",
    "num_steps": 330, "exploration_steps": 300, "fit_every_steps": 30, "eval_every_steps": 330, "eval_episodes": 1,
    "horizon": 8, "num_particles": 2, "num_candidates": 50, "elite_candidates": 5, "iterations": 4,
    "num_members": 2, "num_elites": 2, "model_hidden_units": 32, "model_weight_decays": "1e-5,1e-5,1e-5",
    "model_batch_size": 64, "fit_max_gradient_steps": 600,
}  # fmt: skip


def test_it_learns_to_bring_a_point_to_rest_where_nothing_is_paid(tmp_path):
    """After two fits. Doing nothing returns -0.03, and 30 steps of going the wrong way far less."""
    result = tiny_runs.train(tmp_path, LINE_WORLD)
    assert result.finished
    (line,) = (line for line in tiny_runs.lines(tmp_path) if "eval/return_mean" in line)
    assert line["step"] == 330
    assert line["eval/return_mean"] > -0.02


@pytest.mark.parametrize("kind", particle_propagation.KINDS)
@pytest.mark.parametrize("member", pets.MEMBERS)
def test_every_member_and_propagation_acts(kind, member):
    ends = "learned" if kind == "mm" else "auto"
    config = dataclasses.replace(TINY, propagation=kind, member=member, angles="0", termination_fn=ends)
    algorithm = pets.build(config, SPEC)
    belief = algorithm.actor(jax.eval_shape(algorithm.init, jax.random.key(0)))
    carry = jax.eval_shape(algorithm.begin_episode, jax.random.key(0), belief)
    obs = jax.ShapeDtypeStruct((2,), jnp.float32)
    action, after = jax.eval_shape(lambda *a: algorithm.act(*a, False), jax.random.key(0), belief, carry, obs)
    assert action.shape == (1,)
    assert jax.tree.structure(after) == jax.tree.structure(carry)


@pytest.mark.parametrize("kind", particle_propagation.JOINT)
def test_gaussian_processes_act_with_every_propagation_that_moves_particles_together(kind):
    config = pets.PetsConfig(
        member="gp", gp=GpConfig(inducing_rows=4), propagation=kind, horizon=2, num_particles=4, planner=TINY.planner
    )
    algorithm = pets.build(config, SPEC)
    belief = algorithm.actor(jax.eval_shape(algorithm.init, jax.random.key(0)))
    carry = jax.eval_shape(algorithm.begin_episode, jax.random.key(0), belief)
    obs = jax.ShapeDtypeStruct((2,), jnp.float32)
    action, _ = jax.eval_shape(lambda *a: algorithm.act(*a, False), jax.random.key(0), belief, carry, obs)
    assert action.shape == (1,)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (
            "--member=gp --propagation=ts1",
            "--propagation must be one of expectation, ds, mm with member=gp, which has no members that move "
            "particles, got 'ts1'",
        ),
        ("--member=gp", "--propagation must be one of expectation, ds, mm with member=gp"),
        (
            "--member=gp --propagation=ds --model_hidden_units=64",
            "--model_hidden_units is not read with member=gp; leave it out, got 64",
        ),
        ("--inducing_rows=50", "--inducing_rows is not read with member=gaussian; leave it out, got 50"),
        ("--member=gp --inducing_rows=5000", "--inducing_rows must be a whole number in [1, 1000], got 5000"),
        ("--elite_candidates=500", "--elite_candidates must be at most num_candidates (400), got 500"),
        ("--member=bayesian", "--member must be one of gaussian, deterministic, gp, got 'bayesian'"),
        ("--planner=lqr", "--planner must be one of random_shooting, cem, icem, mppi, got 'lqr'"),
        ("--propagation=ts2", "--propagation must be one of ts1, tsinf, expectation, ds, mm, got 'ts2'"),
        ("--num_elites=3", "--num_elites must be num_members (5), because every member plans, got 3"),
        ("--num_particles=7", "--num_particles must be a multiple of num_members (5) with propagation=tsinf, got 7"),
        ("--angles=1,x", "--angles must be none, or distinct whole numbers from 0 on, separated by commas, got '1,x'"),
        ("--angles=1,1", "--angles must be none, or distinct whole numbers from 0 on, separated by commas, got '1,1'"),
        (
            "--absolute_targets=-1",
            "--absolute_targets must be none, or distinct whole numbers from 0 on, separated by commas, got '-1'",
        ),
        (
            "--absolute_targets=0,1 --angles=1",
            "--absolute_targets must not be angles, got absolute_targets=0,1 with angles=1",
        ),
        ("--planner=mppi --elite_candidates=3", "elite_candidates=3 is not read by --algorithm=pets --planner=mppi"),
    ],
)
def test_a_refusal_names_flag_value_and_what_is_allowed(words, problem):
    with pytest.raises(FlagsError) as refused:
        flags.parse(["--algorithm=pets", *words.split()])
    assert problem in str(refused.value)


def test_plans_longer_than_episodes_and_angles_that_are_no_observations_are_refused():
    with pytest.raises(ValueError, match=r"horizon must be at most the steps of an episode \(1\), got 2"):
        pets.build(TINY, SPEC._replace(max_episode_steps=1))
    pets.build(TINY, SPEC._replace(max_episode_steps=2))
    with pytest.raises(ValueError, match="angles must be indices of observations, 0 to 1, got '2'"):
        pets.build(dataclasses.replace(TINY, angles="2"), SPEC)
    with pytest.raises(ValueError, match="absolute_targets must be indices of observations, 0 to 1, got '0,5'"):
        pets.build(dataclasses.replace(TINY, absolute_targets="0,5"), SPEC)
