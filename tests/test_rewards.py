import gymnasium
import numpy as np
import pytest

from mbpo_jax import environments, rewards


@pytest.mark.parametrize(
    ("env_id", "reward_fn"),
    [
        ("mbpo_jax/PetsCartpole-v0", rewards.pets_cartpole),
        ("mbpo_jax/PetsHalfCheetah-v0", rewards.pets_half_cheetah),
        ("mbpo_jax/LineWorld-v0", rewards.line_world),
        ("mbpo_jax/CartpoleContinuous-v0", rewards.one_each_step),
        ("Pendulum-v1", rewards.pendulum),
    ],
)
def test_a_known_reward_is_the_environments_own(env_id, reward_fn):
    environments.register_all()
    env = gymnasium.make(env_id)
    low, high = env.action_space.low, env.action_space.high
    obs, _ = env.reset(seed=0)
    rng, rows = np.random.default_rng(0), []
    for _ in range(15):
        action = rng.uniform(-1.0, 1.0, low.shape)
        next_obs, reward, *_ = env.step((low + 0.5 * (action + 1.0) * (high - low)).astype(np.float32))
        rows.append((obs, action, next_obs, reward))
        obs = next_obs
    obs, action, next_obs, reward = (np.asarray(column, np.float32) for column in zip(*rows, strict=True))
    np.testing.assert_allclose(reward_fn(obs, action, next_obs), reward, rtol=1e-4, atol=1e-5)
    assert rewards.KNOWN[f"mbpo_jax.rewards:{reward_fn.__name__}"] is reward_fn
