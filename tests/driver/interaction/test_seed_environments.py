import itertools
from contextlib import ExitStack

import numpy as np
import pytest
import tiny_runs

from mbpo_jax.driver.config import Broken, NotFinite, RunConfig
from mbpo_jax.driver.interaction.environment import EVALUATION, Environment
from mbpo_jax.driver.interaction.seed_environments import FailedStep, SeedEnvironments, StepResult
from mbpo_jax.driver.storage import metrics


@pytest.fixture
def opened():
    with ExitStack() as stack:
        yield lambda **knobs: SeedEnvironments(RunConfig(**knobs), stack)


def test_seeds_step_together_and_each_is_its_own_environment(opened):
    envs = opened(env="InvertedPendulum-v5", seeds=(3, 8), max_episode_steps=4)
    alone = [Environment("InvertedPendulum-v5", seed, max_episode_steps=4) for seed in (3, 8)]
    envs.begin()
    obs = [env.begin() for env in alone]
    ends = 0
    for number in range(10):
        actions = [np.float32([0.1 * number]), np.float32([-0.1 * number])]
        for i, result in enumerate(envs.step([0, 1], actions)):
            step = alone[i].step(actions[i])
            np.testing.assert_array_equal(result.row.obs[0], obs[i])
            np.testing.assert_array_equal(result.row.next_obs[0], step.next_obs)
            assert (result.row.reward[0], result.row.terminal[0]) == (step.reward, float(step.terminal))
            assert result.episode_return == alone[i].episode_return
            assert result.ended == (step.terminal or step.truncated)
            ends += result.ended
            obs[i] = alone[i].begin() if result.ended else step.next_obs
            np.testing.assert_array_equal(envs.obs[i], obs[i])
    assert ends == 4
    before = envs.obs[0]
    envs.step([1], [np.float32([0.0])])
    assert envs.obs[0] is before
    for env in alone:
        env.close()


def test_a_step_that_fails_is_given_up_and_stands_at_the_next_episode(opened):
    envs = opened(env="odd_worlds:odd/NanReward-v0", seeds=(6,), env_nonfinite_episodes=1)
    envs.begin()
    outcomes = list(itertools.chain(*(envs.step([0], [np.zeros(2)]) for _ in range(9))))
    assert [type(outcome) for outcome in outcomes] == [StepResult] * 8 + [FailedStep]
    assert [type(failure) for failure in envs.take_failures()] == [NotFinite]
    healthy = Environment("odd_worlds:odd/NanReward-v0", 6)
    np.testing.assert_array_equal(envs.obs[0], healthy.reset(2))
    assert envs.failure_counts() == [{"nonfinite_episodes": 1, "restarts": 0}]


def test_where_seeds_stand_comes_back_with_how_often_they_failed(opened):
    knobs = {"env": "odd_worlds:odd/NanReward-v0", "seeds": (6, 7), "env_nonfinite_episodes": 2}
    envs = opened(**knobs)
    envs.begin()
    for _ in range(11):
        envs.step([0, 1], [np.float32([0.5, -0.5])] * 2)
    again = opened(**knobs)
    again.begin()
    # odd worlds count episodes of theirs, so that the repeated one is sound
    assert [again.restore(i, envs.arrays(i), envs.to_json()) for i in (0, 1)] == [True, True]
    for i in (0, 1):
        np.testing.assert_array_equal(again.obs[i], envs.obs[i])
        assert again.arrays(i).keys() == {"obs", "episode_actions"}
        np.testing.assert_array_equal(again.arrays(i)["episode_actions"], envs.arrays(i)["episode_actions"])
    assert again.to_json() == envs.to_json()
    assert again.failure_counts() == envs.failure_counts() == [{"nonfinite_episodes": 1, "restarts": 0}] * 2


def test_an_evaluation_of_all_seeds_is_whole_or_none(opened):
    envs = opened(env="InvertedPendulum-v5", seeds=(3, 8), max_episode_steps=4)

    class Still:
        def reset(self, episode):
            pass

        def normalized_action(self, obs):
            return np.zeros(1, np.float32)

    outcomes = envs.evaluate([Still(), Still()], 3, lambda: False)
    for seed, outcome in zip((3, 8), outcomes, strict=True):
        env = Environment("InvertedPendulum-v5", seed, EVALUATION, max_episode_steps=4)
        returns = []
        for episode in range(3):
            env.reset(episode)
            while not (step := env.step(np.zeros(1))).terminal and not step.truncated:
                pass
            returns.append(env.episode_return)
        env.close()
        assert outcome.returns == returns
    asked = itertools.count()
    assert envs.evaluate([Still(), Still()], 3, lambda: next(asked) > 9) is None


# -- in a run ----------------------------------------------------------------------------------------------------


def rows_of(run_dir, seed):
    return tiny_runs.saved(run_dir).arrays[str(seed)]["replay"]["rows"]


@pytest.mark.parametrize("lifting", ["each", "vmap"])
def test_a_run_goes_on_without_the_episodes_that_were_not_finite(tmp_path, capsys, lifting):
    """Seed 6 meets a fault at every fourth step of episode 1, the others' episodes are not touched by it."""
    knobs = {
        "env": "odd_worlds:odd/NanReward-v0",
        "max_episode_steps": 0,
        "log_every_steps": 10,
        "seed_lifting": lifting,
    }
    tiny_runs.train(tmp_path, tiny_runs.SAC, **knobs, seeds="6,7", num_steps=20)
    for seed in (6, 7):
        rows = rows_of(tmp_path, seed)
        # five steps of episode 0, three of episode 1, which is given up, then whole episodes again
        assert rows["obs"][:, 0].tolist() == [*range(5), *range(3), *range(5), *range(5), 0, 1]
        assert all(np.isfinite(leaf).all() for leaf in rows.values())
        np.testing.assert_array_equal(rows["next_obs"][:, 0], rows["obs"][:, 0] + 1)
        # nothing of the episode that is given up marks its end, so the beginning of the next one does
        first = tiny_runs.saved(tmp_path).arrays[str(seed)]["replay"]["first"]
        np.testing.assert_array_equal(first, rows["obs"][:, 0] == 0)
        assert (first.sum(), rows["terminal"].sum()) == (5, 0)
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 4  # although the run is quiet
    assert "step 8: an episode is given up: environment odd_worlds:odd/NanReward-v0 gave a value that is not" in told[0]
    assert "step 20: an evaluation episode is given up: environment odd_worlds:odd/NanReward-v0" in told[2]
    last = [line for line in metrics.read(tmp_path / "metrics.jsonl") if "replay/rows" in line][-1]
    assert (last["env/nonfinite_episodes"], last["env/restarts"], last["replay/rows"]) == (2, 0, 20)


def test_a_broken_environment_is_made_anew_as_often_as_allowed_and_its_traceback_is_kept(tmp_path):
    knobs = {"env": "odd_worlds:odd/Stuck-v0", "max_episode_steps": 0, "seeds": 6}
    with pytest.raises(Broken, match=r"env_restarts") as caught:
        tiny_runs.train(tmp_path / "none", tiny_runs.SAC, **knobs)
    assert "odd_worlds.py" in caught.value.environment_traceback
    with pytest.raises(Broken, match=r"it had been made anew 2 times"):
        tiny_runs.train(tmp_path / "two", tiny_runs.SAC, **knobs, env_restarts=2, checkpoint_every_steps=1)
    rows = rows_of(tmp_path / "two", 6)
    assert len(rows["reward"]) > 0 and all(np.isfinite(leaf).all() for leaf in rows.values())
