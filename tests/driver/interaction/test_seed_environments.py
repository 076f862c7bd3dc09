import itertools
import socket
from contextlib import ExitStack

import numpy as np
import odd_worlds
import pytest
import tiny_runs

from mbpo_jax.driver.config import Broken, Diverged, NotFinite, RunConfig
from mbpo_jax.driver.interaction import global_random, seed_environments
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

    outcomes = envs.evaluate([Still(1), Still(1)], 3, lambda: False)
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
    assert envs.evaluate([Still(1), Still(1)], 3, lambda: next(asked) > 9) is None


class Still:
    """Does nothing."""

    def __init__(self, action_dim=2):
        self._action = np.zeros(action_dim, np.float32)

    def reset(self, episode):
        pass

    def normalized_action(self, obs):
        return self._action


def test_an_environment_stays_in_the_thread_that_made_it(monkeypatch):
    monkeypatch.setattr(seed_environments, "num_cores", lambda: 2)
    odd_worlds.CLOSED.clear()
    with ExitStack() as stack:
        envs = SeedEnvironments(RunConfig(env="odd_worlds:odd/ThreadBound-v0", seeds=(3, 4, 5)), stack)
        assert len(envs._threads) == 2
        envs.begin()
        for _ in range(7):
            envs.step([0, 1, 2], [np.zeros(2)] * 3)
        assert len(envs.evaluate([Still()] * 3, 1, lambda: False)) == 3
        assert all(envs.restore(i, envs.arrays(i), envs.to_json()) for i in range(3))
    assert odd_worlds.CLOSED == [(1,)] * 6


def test_several_seeds_that_draw_globally_are_each_what_it_is_alone(opened, monkeypatch):
    monkeypatch.setattr(seed_environments, "num_cores", lambda: 2)
    caller = global_random.state()
    envs = opened(env="odd_worlds:odd/DrawsGlobally-v0", seeds=(3, 8))
    envs.begin()
    seen = [[envs.obs[i]] for i in range(2)]
    for number in range(global_random.WATCHED_STEPS + 20):
        if number == 50:
            envs.evaluate([Still(), Still()], 2, lambda: False)
        for i, result in enumerate(envs.step([0, 1], [np.zeros(2)] * 2)):
            seen[i] += [result.row.reward, result.next_start]
    assert global_random.draws("odd_worlds:odd/DrawsGlobally-v0")
    assert global_random._equal(global_random.state(), caller)
    for seed, mine in zip((3, 8), seen, strict=True):
        with ExitStack() as stack:
            alone = SeedEnvironments(RunConfig(env="odd_worlds:odd/DrawsGlobally-v0", seeds=(seed,)), stack)
            alone.begin()
            np.testing.assert_array_equal(alone.obs[0], mine[0])
            for reward, start in zip(mine[1::2], mine[2::2], strict=True):
                (result,) = alone.step([0], [np.zeros(2)])
                np.testing.assert_array_equal(result.row.reward, reward)
                np.testing.assert_array_equal(result.next_start, start)
        assert global_random._equal(global_random.state(), caller)


def test_a_resumed_run_knows_that_its_environment_draws_globally(opened, monkeypatch):
    monkeypatch.setattr(global_random, "WATCHED_STEPS", 3)
    monkeypatch.setattr(global_random, "_DRAWING", set())
    knobs = {"env": "odd_worlds:odd/DrawsSeldom-v0", "seeds": (3, 8)}
    envs = opened(**knobs)
    envs.begin()
    for _ in range(8 + 5):
        envs.step([0, 1], [np.zeros(2)] * 2)
    arrays, record = [envs.arrays(i) for i in (0, 1)], envs.to_json()
    expected = [result.row.reward for result in envs.step([0, 1], [np.zeros(2)] * 2)]
    monkeypatch.setattr(global_random, "_DRAWING", set())  # as in another process
    again = opened(**knobs)
    again.begin()
    assert [again.restore(i, arrays[i], record) for i in (0, 1)] == [True, True]
    rewards = [result.row.reward for result in again.step([0, 1], [np.zeros(2)] * 2)]
    np.testing.assert_array_equal(rewards, expected)


def test_what_exists_once_is_told_and_can_be_shared():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        odd_worlds.PORTS[:] = [free.getsockname()[1]]
    wrong = pytest.raises(
        Broken, match=r"Address already in use .* makes two for each seed.* --eval_env=shared and one"
    )
    with wrong, ExitStack() as stack:
        SeedEnvironments(RunConfig(env="odd_worlds:odd/Port-v0", seeds=(6,)), stack)
    with ExitStack() as stack:
        envs = SeedEnvironments(RunConfig(env="odd_worlds:odd/Port-v0", seeds=(6,), eval_env="shared"), stack)
        envs.begin()
        envs.step([0], [np.zeros(2)])
        before = envs.arrays(0), envs.to_json()
        (outcome,) = envs.evaluate([Still()], 2, lambda: False)
        assert outcome.lengths == [5, 5]
        assert envs.arrays(0).keys() == before[0].keys() and envs.to_json() == before[1]
        np.testing.assert_array_equal(envs.arrays(0)["episode_actions"], before[0]["episode_actions"])
        assert envs.take_notices() == []


def test_an_episode_that_a_shared_evaluation_cut_off_and_that_does_not_repeat_is_told(opened):
    envs = opened(env="odd_worlds:odd/Forgets-v0", seeds=(6,), eval_env="shared")
    envs.begin()
    envs.step([0], [np.zeros(2)])
    envs.evaluate([Still()], 1, lambda: False)
    (notice,) = envs.take_notices()
    assert "seed 6: env odd_worlds:odd/Forgets-v0 did not repeat its running episode" in notice
    assert envs.at_start(0) and envs.take_notices() == []
    (result,) = envs.step([0], [np.zeros(2)])
    assert result.first == [True] and result.row.obs[0, 0] == 0.0


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
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 4  # although the run is quiet
    assert (
        "step 8: an episode is given up: environment odd_worlds:odd/NanReward-v0 returned a value that is not" in err[0]
    )
    assert "step 20: an evaluation episode is given up: environment odd_worlds:odd/NanReward-v0" in err[2]
    last = [line for line in metrics.read(tmp_path / "metrics.jsonl") if "replay/rows" in line][-1]
    assert (last["env/nonfinite_episodes"], last["env/restarts"], last["replay/rows"]) == (2, 0, 20)


def test_a_broken_environment_is_made_anew_as_often_as_allowed_and_its_traceback_is_kept(tmp_path):
    knobs = {"env": "odd_worlds:odd/Stuck-v0", "max_episode_steps": 0, "seeds": 6}
    with pytest.raises(Broken, match=r"env_restarts") as caught:
        tiny_runs.train(tmp_path / "none", tiny_runs.SAC, **knobs)
    assert "odd_worlds.py" in caught.value.environment_traceback
    with pytest.raises(Broken, match=r"it had already been made again 2 times"):
        tiny_runs.train(tmp_path / "two", tiny_runs.SAC, **knobs, env_restarts=2, checkpoint_every_steps=1)
    rows = rows_of(tmp_path / "two", 6)
    assert len(rows["reward"]) > 0 and all(np.isfinite(leaf).all() for leaf in rows.values())


def test_a_run_is_the_same_wherever_it_is_evaluated_and_whether_it_is_interrupted(tmp_path):
    """In an environment that draws from the global generators, in the middle of its episodes."""
    knobs = {"env": "odd_worlds:odd/DrawsGlobally-v0", "max_episode_steps": 0, "seeds": 6, "eval_every_steps": 42}
    knobs |= {"log_every_steps": 42}  # a run that ends writes a line
    tiny_runs.train(tmp_path / "own", tiny_runs.SAC, **knobs)
    for num_steps in (84, 100):
        tiny_runs.train(tmp_path / "shared", tiny_runs.SAC, **knobs, eval_env="shared", num_steps=num_steps)
    tiny_runs.assert_same_run(tmp_path / "shared", tmp_path / "own")


def test_advice_where_rewards_are_too_large(tmp_path):
    knobs = {"env": "odd_worlds:odd/Rich-v0", "max_episode_steps": 0, "seeds": 6, "exploration_steps": 20}
    with pytest.raises(Diverged, match=r"rewards \(up to 1e\+09\) .*gymnasium.wrappers.TransformReward\)") as caught:
        tiny_runs.train(tmp_path, tiny_runs.SAC, **knobs)
    assert "learning_rate" not in str(caught.value)


def test_a_rule_that_is_wrong_is_told_once(tmp_path, capsys):
    tiny_runs.train(tmp_path, termination_fn="never", max_episode_steps=100, num_steps=110, seeds=0)
    warnings = [line for line in capsys.readouterr().err.splitlines() if "disagree" in line]
    assert len(warnings) == 1
    assert "step 60: --termination_fn=never and env InvertedPendulum-v5 disagree on " in warnings[0]
    assert "a time limit is not an end" in warnings[0]
