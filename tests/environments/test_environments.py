"""The project's environments: cart-pole dynamics by hand, truncated observations against the full ones."""

import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env

from mbpo_jax import environments
from mbpo_jax.environments import cartpole, jump, line_world, pets_cartpole

pytestmark = pytest.mark.filterwarnings("ignore:.*is out of date.*:DeprecationWarning")  # Gymnasium, about v4 ids

CARTPOLE = "mbpo_jax/CartpoleContinuous-v0"
PETS_CARTPOLE, LINE_WORLD = "mbpo_jax/PetsCartpole-v0", "mbpo_jax/LineWorld-v0"
PETS_CHEETAH = "mbpo_jax/PetsHalfCheetah-v0"
TRUNCATED = {
    "mbpo_jax/AntTruncatedObs-v5": ("Ant-v5", 105, 27),
    "mbpo_jax/AntTruncatedObs-v4": ("Ant-v4", 27, 27),
    "mbpo_jax/HumanoidTruncatedObs-v5": ("Humanoid-v5", 348, 45),
    "mbpo_jax/HumanoidTruncatedObs-v4": ("Humanoid-v4", 376, 45),
}
NO_ENDS = {"mbpo_jax/HopperNT-v5": "Hopper-v5", "mbpo_jax/Walker2dNT-v5": "Walker2d-v5"}


def test_cartpole_meets_the_gymnasium_interface() -> None:
    check_env(gymnasium.make(CARTPOLE).unwrapped, skip_render_check=True)


def test_a_cheetah_that_jumps_differs_by_its_reward_alone() -> None:
    one, other = (gymnasium.make(name) for name in ("mbpo_jax/HalfCheetahJump-v5", "HalfCheetah-v5"))
    np.testing.assert_array_equal(one.reset(seed=2)[0], other.reset(seed=2)[0])
    rng = np.random.default_rng(0)
    for _ in range(60):
        action = rng.uniform(-1.0, 1.0, 6).astype(np.float32)
        (obs, paid, *ends, _), (wanted, *_) = one.step(action), other.step(action)
        np.testing.assert_array_equal(obs, wanted)
        z, v = one.unwrapped.data.qpos[1], one.unwrapped.data.qvel[0]
        assert paid == pytest.approx(min(v, 3.0) - 0.1 * np.sum(action**2) + 15.0 * z)
        assert ends == [False, False]


def test_a_jump_is_paid_by_its_height_and_a_speed_of_three() -> None:
    next_obs = np.zeros((2, 17))
    next_obs[:, 0], next_obs[:, 8] = [0.2, -0.1], [5.0, 1.0]
    paid = jump.reward(np.ones((2, 17)), np.full((2, 6), 0.5), next_obs)
    np.testing.assert_allclose(paid, [3.0 - 0.15 + 3.0, 1.0 - 0.15 - 1.5])


@pytest.mark.parametrize("env_id", NO_ENDS)
def test_what_has_no_ends_falls_and_goes_on_as_the_other_does_until_then(env_id: str) -> None:
    one, other = (gymnasium.make(name) for name in (env_id, NO_ENDS[env_id]))
    np.testing.assert_array_equal(one.reset(seed=2)[0], other.reset(seed=2)[0])
    rng, fallen = np.random.default_rng(0), False
    for _ in range(150):
        action = rng.uniform(-1.0, 1.0, one.action_space.shape or ()).astype(np.float32)
        speed, height = one.unwrapped.data.qvel[0], one.unwrapped.data.qpos[1]
        obs, paid, *ends, _ = one.step(action)
        assert ends == [False, False]
        assert paid == pytest.approx(speed + 1.0 - 0.1 * np.sum(action**2) - 3.0 * (height - 1.3) ** 2)
        if not fallen:
            wanted, _, fallen, _, _ = other.step(action)
            np.testing.assert_array_equal(obs, wanted)
    assert fallen


def test_full_push_from_rest() -> None:
    # push 100/11, inertia (4/3 - 1/11)/2 = 41/66: theta_acc = -600/41, x_acc = 100/11 + 300/451 = 400/41
    expected = [0.0, 8.0 / 41.0, 0.0, -12.0 / 41.0]
    np.testing.assert_allclose(cartpole.euler_step(np.zeros(4), 10.0), expected, rtol=1e-12)


def test_swinging_pole_at_the_horizontal() -> None:
    # sin 1, cos 0: push = x_acc = 0.05 * 2^2 / 1.1 = 2/11, theta_acc = 9.8 / (2/3) = 14.7
    state = np.array([0.5, 1.0, np.pi / 2.0, 2.0])
    expected = [0.52, 1.0 + 0.04 / 11.0, np.pi / 2.0 + 0.04, 2.294]
    np.testing.assert_allclose(cartpole.euler_step(state, 0.0), expected, rtol=1e-12)


def test_dynamics_equal_gymnasiums_cart_pole() -> None:
    env: Any = gymnasium.make("CartPole-v1").unwrapped
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    states = rng.uniform(-0.2, 0.2, size=(50, 4))
    choices = rng.integers(2, size=50)
    reached = []
    for state, choice in zip(states, choices):
        env.state = state
        env.step(choice)
        reached.append(env.state)
    np.testing.assert_allclose(cartpole.euler_step(states, 20.0 * choices - 10.0), reached, rtol=1e-12)


def test_step_rounds_the_state_that_it_continues_from() -> None:
    env = gymnasium.make(CARTPOLE)
    obs, _ = env.reset(seed=3)
    assert obs.dtype == np.float32
    assert np.abs(obs).max() <= 0.05
    for action in (0.3, -1.0, 5.0):  # 5 is clipped to 1
        expected = cartpole.euler_step(obs, 10.0 * float(np.clip(np.float32(action), -1, 1))).astype(np.float32)
        obs, reward, *_ = env.step(np.array([action], dtype=np.float32))
        np.testing.assert_array_equal(obs, expected)
        assert reward == 1.0


def test_cartpole_ends_past_its_float32_limits() -> None:
    at_limits = np.array([-2.4, 9.0, np.radians(12.0), -9.0], dtype=np.float32)
    assert not cartpole.has_fallen(at_limits)
    for index, outward in ((0, -1.0), (2, 1.0)):
        beyond = at_limits.copy()
        beyond[index] = np.nextafter(beyond[index], np.float32(outward * np.inf))
        assert cartpole.has_fallen(beyond)
    assert cartpole.has_fallen(np.array([0.0, np.nan, 0.0, 0.0], dtype=np.float32))


def test_constant_push_tips_the_pole() -> None:
    env = gymnasium.make(CARTPOLE)
    env.reset(seed=0)
    steps, terminated, truncated = 0, False, False
    while not (terminated or truncated):
        obs, reward, terminated, truncated, _ = env.step(np.ones(1, dtype=np.float32))
        steps += 1
        assert reward == 1.0  # the last step included
    assert terminated
    assert not truncated
    assert 5 <= steps <= 15  # 14.6 rad/s^2 needs about 0.17 s for 0.21 rad
    assert obs[2] < -np.float32(np.radians(12.0))


def test_time_limit_truncates_a_balanced_pole_at_200() -> None:
    env = gymnasium.make(CARTPOLE)
    obs, _ = env.reset(seed=0)
    ends = []
    for _ in range(200):
        action = np.clip(obs @ np.array([0.1, 0.2, 3.0, 0.6]), -1.0, 1.0)
        obs, _, terminated, truncated, _ = env.step(np.array([action], dtype=np.float32))
        ends.append((terminated, truncated))
    assert ends == [(False, False)] * 199 + [(False, True)]


def test_cartpole_refuses_what_it_cannot_step() -> None:
    env = cartpole.CartpoleContinuous()
    with pytest.raises(ResetNeeded, match="reset"):
        env.step(np.zeros(1))
    env.reset(seed=0)
    with pytest.raises(ValueError, match="shape"):
        env.step(np.zeros(2))
    with pytest.raises(ValueError, match="shape"):
        env.step(np.array([np.nan]))


@pytest.mark.parametrize("env_id", ["mbpo_jax/LineWorld-v0", "mbpo_jax/PetsCartpole-v0"])
def test_an_action_that_is_not_finite_is_refused(env_id: str) -> None:
    env = gymnasium.make(env_id, disable_env_checker=True)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="action must be finite"):
        env.step(np.array([np.nan]))
    assert np.isfinite(env.step(np.array([0.5]))[0]).all()  # and nothing of it stays


@pytest.mark.parametrize("env_id", list(TRUNCATED))
def test_truncated_environment_is_the_full_one_with_a_shorter_observation(env_id: str) -> None:
    full_id, full_dims, short_dims = TRUNCATED[env_id]
    short_env, full_env = (gymnasium.make(name, disable_env_checker=True) for name in (env_id, full_id))
    assert short_env.observation_space.shape == (short_dims,)
    assert full_env.observation_space.shape == (full_dims,)
    assert short_env.action_space == full_env.action_space
    full_env.action_space.seed(0)
    short, full = short_env.reset(seed=0)[0], full_env.reset(seed=0)[0]
    episodes = 0
    for _ in range(300):
        assert short.shape == (short_dims,)
        np.testing.assert_array_equal(short, full[:short_dims])
        action = full_env.action_space.sample()
        short, *short_rest = short_env.step(action)
        full, *full_rest = full_env.step(action)
        assert short_rest[:3] == full_rest[:3]  # reward, terminated, truncated
        if full_rest[1]:
            episodes += 1
            short, full = short_env.reset()[0], full_env.reset()[0]
    assert episodes >= 1


@pytest.mark.parametrize(("name", "dims"), [("AntTruncatedObs", 27), ("HumanoidTruncatedObs", 45)])
def test_contact_cost_is_paid_in_v5_only(name: str, dims: int) -> None:
    costs = {}
    for version in ("v4", "v5"):
        env: Any = gymnasium.make(f"mbpo_jax/{name}-{version}")
        env.action_space.seed(0)
        obs, _ = env.reset(seed=0)
        expected = np.concatenate([env.unwrapped.data.qpos[2:], env.unwrapped.data.qvel])
        np.testing.assert_array_equal(obs, expected)
        assert obs.shape == (dims,)
        infos = [env.step(env.action_space.sample())[4] for _ in range(15)]
        costs[version] = min(info.get("reward_contact", 0.0) for info in infos)
    assert costs["v4"] == 0.0
    assert costs["v5"] < 0.0


def test_time_limits() -> None:
    limits = {key: spec.max_episode_steps for key, spec in gymnasium.registry.items() if "mbpo_jax/" in key}
    assert limits == {CARTPOLE: 200, PETS_CARTPOLE: 200, LINE_WORLD: 30, "mbpo_jax/DynaMaze-v0": 10_000} | {
        env_id: 1000 for env_id in (*TRUNCATED, *NO_ENDS, "mbpo_jax/HalfCheetahJump-v5", PETS_CHEETAH)
    }


def test_registering_again_changes_nothing() -> None:
    before = {key: id(spec) for key, spec in gymnasium.registry.items()}
    environments.register_all()
    assert {key: id(spec) for key, spec in gymnasium.registry.items()} == before


@pytest.mark.parametrize("env_id", [PETS_CARTPOLE, PETS_CHEETAH, LINE_WORLD])
def test_tasks_of_planners_meet_the_gymnasium_interface_and_end_by_time_alone(env_id: str) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*(infinity|normalized).*")  # check_env, about the bounds of their spaces
        check_env(gymnasium.make(env_id).unwrapped, skip_render_check=True)
    env = gymnasium.make(env_id)
    assert env.spec is not None
    env.reset(seed=0)
    ends = [env.step(env.action_space.low)[2:4] for _ in range(env.spec.max_episode_steps or 0)]
    assert ends == [(False, False)] * (len(ends) - 1) + [(False, True)]


@pytest.mark.parametrize("env_class", [pets_cartpole.PetsCartpole, line_world.LineWorld])
def test_tasks_of_planners_must_be_reset_first(env_class: type[gymnasium.Env[Any, Any]]) -> None:
    with pytest.raises(ResetNeeded):
        env_class().step(np.zeros(1, np.float32))


def test_the_point_of_the_line_world_moves_by_its_new_speed() -> None:
    env = gymnasium.make(LINE_WORLD)
    env.reset()
    obs, reward, *_ = env.step(np.array([-0.5], np.float32))
    np.testing.assert_allclose(obs, [0.5, -0.5])
    np.testing.assert_allclose(reward, -0.00025)
    obs, *_ = env.step(np.array([0.5], np.float32))
    np.testing.assert_allclose(obs, [0.5, 0.0])


def test_the_cheetah_of_pets_is_gymnasiums_and_sees_its_speed() -> None:
    one, other = gymnasium.make(PETS_CHEETAH), gymnasium.make("HalfCheetah-v5")
    obs, _ = one.reset(seed=2)
    other.reset(seed=2)
    assert obs[0] == 0.0
    assert 1e-4 < np.abs(obs[1:]).max() < 0.005  # a start of noise of 0.001
    assert not np.array_equal(obs[1:], one.reset()[0][1:])
    state = one.unwrapped.data
    other.unwrapped.set_state(state.qpos.copy(), state.qvel.copy())
    rng = np.random.default_rng(0)
    for _ in range(60):
        action = rng.uniform(-1.0, 1.0, 6).astype(np.float32)
        before = state.qpos[0]
        (obs, reward, *ends, _), (seen, wanted, *_) = one.step(action), other.step(action)
        np.testing.assert_allclose(obs[0], (state.qpos[0] - before) / 0.05, rtol=1e-9)
        np.testing.assert_array_equal(obs[1:], seen)
        assert (reward, ends) == (wanted, [False, False])
        assert abs(obs[0] - state.qvel[0]) > 1e-6  # the mean over the step is not the speed at its end


def test_the_pole_of_pets_hangs_swings_as_its_inertia_says_and_pays_at_the_top() -> None:
    env = pets_cartpole.PetsCartpole()
    env.reset(seed=0)
    data = env._data
    data.qpos[:], data.qvel[:] = 0.0, 0.0
    obs, reward, *_ = env.step(np.zeros(1))
    np.testing.assert_allclose(obs, 0.0, atol=2e-3)  # it hangs, but for the 0.001 m that the pole leans by
    np.testing.assert_allclose(reward, np.exp(-4.0), rtol=1e-3)  # 1.2 m below the place, in lengths of 0.6 m
    data.qpos[:], data.qvel[:] = (0.0, np.pi), 0.0
    _, reward, *_ = env.step(np.zeros(1))
    np.testing.assert_allclose(reward, 1.0, atol=1e-3)
    _, reward, *_ = env.step(np.array([2.0]))
    assert reward < 1.0 - 0.01 * 2.0**2 + 1e-6
    # A force of 100 N at a control of 1 on both bodies, the pole at rest: for small times x'' = F / (M + m') with the
    # pole's mass at the end of a rod that turns freely, so between F / (M + m) and F / M.
    cart, pole = env._model.body_mass[1:]
    data.qpos[:], data.qvel[:] = 0.0, 0.0
    obs, *_ = env.step(np.array([1.0]))
    time = 2 * 0.02
    assert 100.0 / (cart + pole) * time * 0.95 < obs[2] < 100.0 / cart * time
