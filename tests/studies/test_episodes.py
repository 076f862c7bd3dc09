import jax
import numpy as np
import pytest
import tiny_runs

from mbpo_jax.driver.trained import load_trained
from mbpo_jax.studies import episodes


@pytest.fixture(scope="module")
def trained(run_dir):
    return load_trained(run_dir, seed=3)


@pytest.fixture
def env(trained):
    env = episodes.open_environment(trained)
    yield env
    env.close()


def test_episodes_of_the_deterministic_policy_are_those_of_the_evaluation(trained, env, run_dir):
    """Same starts, same policy, same return to the last bit that metrics.jsonl tells."""
    choose = episodes.deterministic_policy(trained, env)
    played = [episodes.play(env, choose, number, 5) for number in range(2)]
    logged = [line for line in tiny_runs.lines(run_dir, seed=3) if "eval/return_mean" in line][-1]
    assert np.mean([episode.reward.sum() for episode in played]) == logged["eval/return_mean"]
    assert np.mean([len(episode.reward) for episode in played]) == logged["eval/length_mean"]


def test_an_episode_is_one_chain_and_ends_where_it_should(trained, env):
    choose = episodes.deterministic_policy(trained, env)
    whole = episodes.play(env, choose, 1, 100)
    assert len(whole.reward) <= 5  # the time limit of the run
    assert whole.obs.shape == (len(whole.reward) + 1, 4)
    assert np.isfinite(whole.obs).all()
    begun = episodes.play(env, choose, 1, 2)
    np.testing.assert_array_equal(begun.obs, whole.obs[:3])
    assert not begun.terminal
    assert not np.array_equal(episodes.play(env, choose, 0, 2).obs[0], begun.obs[0])


def test_collected_transitions_are_exactly_as_many_and_join_up(trained, env):
    explore = episodes.exploring_policy(trained, jax.random.key(0))
    rows, next_episode = episodes.collect(env, explore(trained.algorithm.actor(trained.state)), 10, 23)
    assert rows.obs.shape == rows.next_obs.shape == (23, 4)
    assert rows.action.shape == (23, 1)
    assert rows.reward.shape == rows.terminal.shape == (23,)
    joins = np.all(rows.next_obs[:-1] == rows.obs[1:], axis=1)
    assert 0 < (~joins).sum() == next_episode - 10 - 1  # a new start after each episode but the last
    assert not (rows.terminal[:-1].astype(bool) & joins).any()
    assert set(np.asarray(rows.terminal).tolist()) == {0.0, 1.0}  # a random pole falls, or meets the time limit


def test_exploring_is_noisy_and_never_repeats_its_noise(trained):
    explore = episodes.exploring_policy(trained, jax.random.key(0))
    choose = explore(trained.algorithm.actor(trained.state))
    actions = [float(choose(np.zeros(4, np.float32))[0]) for _ in range(5)]
    assert len(set(actions)) == 5
    again = episodes.exploring_policy(trained, jax.random.key(0))(trained.algorithm.actor(trained.state))
    assert [float(again(np.zeros(4, np.float32))[0]) for _ in range(5)] == actions


def test_time_limits(trained):
    assert episodes.most_steps(trained) == 5
    for env_id, steps in {
        "HalfCheetah-v5": 1000,
        "odd_worlds:odd/Drifts-v0": 1000,
        "odd_worlds:odd/World-v0": 5,
    }.items():
        unlimited = trained._replace(run=trained.run.__class__(env=env_id))
        assert episodes.most_steps(unlimited) == steps
