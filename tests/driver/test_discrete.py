"""Discrete spaces: numbers outside, one-hot rows inside; and runs of the rows that take them."""

import json

import gymnasium
import jax
import numpy as np
import pytest
import tiny_runs
from gymnasium.spaces import Box, Discrete

from mbpo_jax import collect, evaluate, study
from mbpo_jax.driver.config import Broken
from mbpo_jax.driver.interaction import spaces
from mbpo_jax.driver.interaction.acting import compile_acting
from mbpo_jax.driver.interaction.environment import Environment
from mbpo_jax.driver.interaction.environment_process import SimulatorProcess
from mbpo_jax.driver.interaction.policy import load_policy
from mbpo_jax.driver.interaction.simulator import Simulator
from mbpo_jax.driver.seeds import SeedAxis
from mbpo_jax.driver.trained import load_trained
from mbpo_jax.environment_check.examination import examine
from mbpo_jax.main import main


class Counter(gymnasium.Env):
    """Observes the action that it was given before, and pays it; numbers begin at 5 and at -1."""

    def __init__(self, gives=None):
        self.observation_space, self.action_space = Discrete(3, start=5), Discrete(3, start=-1)
        self.gives = gives

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return 6, {}

    def step(self, action):
        assert isinstance(action, np.int64)  # which has a hash: some look it up
        return 6 + int(action) if self.gives is None else self.gives, float(action), False, False, {}


class Boxes(Counter):
    """As many numbers as FrozenLake has, but no choices."""

    def __init__(self):
        super().__init__()
        self.observation_space, self.action_space = Box(-1, 1, (16,)), Box(-1, 1, (4,))


@pytest.fixture(scope="module", autouse=True)
def registered():
    gymnasium.register("discrete/Counter-v0", Counter, max_episode_steps=4)
    gymnasium.register("discrete/Boxes-v0", Boxes, max_episode_steps=4)
    for name, given in {"Beyond": 8, "Fraction": 6.0, "Vector": np.array([5, 6])}.items():
        gymnasium.register(f"discrete/{name}-v0", Counter, max_episode_steps=4, kwargs={"gives": given})
    yield
    for name in [name for name in gymnasium.registry if name.startswith("discrete/")]:
        del gymnasium.registry[name]


# -- the seam ----------------------------------------------------------------------------------------------------


def test_numbers_become_rows_and_rows_numbers():
    env = Environment("discrete/Counter-v0", seed=0)
    assert (env.obs_dim, env.action_dim) == (3, 3)
    np.testing.assert_array_equal(env.reset(), np.float32([0, 1, 0]), strict=True)
    for i, row in enumerate(np.eye(3, dtype=np.float32)):
        step = env.step(row)
        np.testing.assert_array_equal(step.next_obs, row, strict=True)
        assert step.reward == i - 1
    np.testing.assert_array_equal(env.actions, np.eye(3))  # the journal, by which an episode is repeated
    np.testing.assert_array_equal(env.repeat(0, np.eye(3)[:2], 0.0), [0, 1, 0])


@pytest.mark.parametrize(
    "name, why",
    [
        ("Beyond", r"\[5, 7\], got array\(8\)"),
        ("Fraction", r"one whole number in \[5, 7\], got array\(6"),
        ("Vector", "got array"),
    ],
)
def test_an_observation_outside_of_its_space_is_the_environments_failure(name, why):
    env = Environment(f"discrete/{name}-v0", seed=0)
    env.reset()
    with pytest.raises(Broken, match=f"returned an observation outside its space: .*{why}"):
        env.step(np.float32([1, 0, 0]))


def test_a_process_of_its_own_gives_the_same_numbers():
    simulators = [Simulator("FrozenLake-v1", 0), SimulatorProcess("FrozenLake-v1", 0, timeout_s=60)]
    here, there = (simulator.spaces for simulator in simulators)
    assert spaces.same(here, there)
    for seed in range(3):
        rows = [simulator.reset(seed) for simulator in simulators]
        np.testing.assert_array_equal(*rows)
        for action in (1, 2, 1, 2):
            row = np.eye(4, dtype=np.float32)[action]
            steps = [simulator.step(here.to_environment(row)) for simulator in simulators]
            np.testing.assert_array_equal(*(step.next_obs for step in steps))
            assert steps[0][1:] == steps[1][1:]
            if steps[0].terminal:
                break
    for simulator in simulators:
        simulator.close()


@pytest.mark.parametrize(
    "observations, actions", [(Discrete(4, start=2), Discrete(2)), (Box(-1, 1, (3,)), Box(-1, 1, (2, 2)))]
)
def test_spaces_come_back_from_json(observations, actions):
    given = spaces.from_gymnasium(observations, actions, 7)
    json = spaces.spaces_to_json(given)
    back = spaces.spaces_from_json(json)
    assert spaces.spaces_to_json(back) == json
    assert back.obs_start == (2 if isinstance(observations, Discrete) else None)
    assert (back.action_start is None) == isinstance(actions, Box)
    assert ("obs_start" in json) == isinstance(observations, Discrete)
    if isinstance(observations, Discrete):
        with pytest.raises(ValueError, match="obs_start"):
            spaces.spaces_from_json(json | {"obs_start": 0.5})


def test_random_actions_are_any_of_the_numbers():
    axis = SeedAxis(1)
    explore = jax.vmap(compile_acting(_Nothing(), axis, 3, one_hot_actions=True).explore, in_axes=(None, 0))
    drawn = np.asarray(explore((jax.random.key(0),), np.arange(3000))[0])
    assert set(np.unique(drawn)) == {0.0, 1.0}
    np.testing.assert_array_equal(drawn.sum(axis=1), 1.0)
    np.testing.assert_allclose(drawn.mean(axis=0), 1 / 3, atol=0.035)


class _Nothing:
    act = begin_episode = staticmethod(lambda *arguments: ())


# -- what takes which --------------------------------------------------------------------------------------------

TAKERS = "; q_planning and dyna_q take such spaces"


@pytest.mark.parametrize(
    "algorithm, env, why",
    [
        ("sac", "FrozenLake-v1", f"for sac, got 'FrozenLake-v1' with Discrete(16) and Discrete(4){TAKERS}"),
        ("td3", "discrete/Counter-v0", f"with Discrete(3, start=5) and Discrete(3, start=-1){TAKERS}"),
        ("mbpo", "CartPole-v1", "for tables, got 'CartPole-v1' with a Box of 4 numbers and Discrete(2)"),
        ("dyna_q", "CartPole-v1", "for tables, got 'CartPole-v1' with a Box of 4 numbers and Discrete(2)"),
        ("dyna_q", "Blackjack-v1", "with Tuple(Discrete(32), Discrete(11), Discrete(2)) and Discrete(2)"),
        (
            "q_planning",
            "InvertedPendulum-v5",
            "got 'InvertedPendulum-v5' with a Box of 4 numbers and a Box of 1 number",
        ),
    ],
)
def test_an_algorithm_that_cannot_take_a_space_is_refused_in_a_line(algorithm, env, why, tmp_path, capsys):
    words = [f"--env={env}", "--max_episode_steps=30", f"--run_dir={tmp_path / 'run'}", "--compile_cache=off"]
    status = main([f"--algorithm={algorithm}", *words])
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert status == 2
    assert "--env must have" in line
    assert why in line
    assert not (tmp_path / "run" / "config.json").exists()


# -- runs --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=tiny_runs.TABLES)
def whole(request, tmp_path_factory):
    """(row, directory of a run of it that went through)"""
    run_dir = tmp_path_factory.mktemp("discrete") / request.param
    assert tiny_runs.train(run_dir, tiny_runs.TABLES[request.param]).finished
    return request.param, run_dir


def test_a_run_keeps_rows_of_numbers_and_both_kinds_of_end(whole):
    trained = load_trained(whole[1])
    rows = tiny_runs.rows_of(trained.replay)
    for name, size in (("obs", 16), ("next_obs", 16), ("action", 4)):
        values = getattr(rows, name)
        assert values.shape == (50 if whole[0] == "dyna_q" else 120, size)
        assert set(np.unique(values)) == {0.0, 1.0}
        np.testing.assert_array_equal(values.sum(axis=1), 1.0)
    assert trained.spec.one_hot_actions
    begins = np.flatnonzero(np.asarray(trained.replay.first))[1:]
    ends = rows.terminal[begins - 1]
    assert 0 < ends.sum() < len(ends)  # holes end episodes, and so does the time limit of five steps
    assert int(np.sum(trained.state.model.visits)) == 120


def test_a_policy_is_given_numbers_and_returns_them_greedily(whole):
    q = np.asarray(load_trained(whole[1]).state.q)
    policy = load_policy(whole[1])
    np.testing.assert_array_equal(policy.actor, q)
    best = q == q.max(axis=1, keepdims=True)
    for state in range(16):
        action = policy(state)
        assert isinstance(action, np.int64)
        assert best[state, action]
    assert policy(np.int64(3)) == policy(np.array(3)) or best[3].sum() > 1
    for wrong in (16, -1, 2.0, np.zeros(16), (3, {}), "a"):
        with pytest.raises(ValueError, match=r"one whole number in \[0, 15\], got"):
            policy(wrong)


def test_ties_are_broken_by_episode_and_step(whole):
    policy = load_policy(whole[1])
    policy.actor = np.zeros_like(policy.actor)
    chosen = []
    for episode in (0, 1, 0):
        policy.reset(episode)
        chosen.append([int(policy(5)) for _ in range(40)])
    assert chosen[0] == chosen[2] != chosen[1]
    assert set(chosen[0]) == {0, 1, 2, 3}


def test_a_run_that_is_stopped_ends_like_one_that_is_not(whole, tmp_path):
    name, run_dir = whole
    assert tiny_runs.train(tmp_path, tiny_runs.TABLES[name], num_steps=80).finished
    assert tiny_runs.train(tmp_path, tiny_runs.TABLES[name]).finished
    tiny_runs.assert_same_run(tmp_path, run_dir)


def test_what_a_run_says_of_its_task(whole, capsys):
    knobs = tiny_runs.TABLES[whole[0]] | {"quiet": "false"}
    tiny_runs.train(whole[1], knobs)
    assert "FrozenLake-v1: one of 16 states, one of 4 actions; at most 5 steps" in capsys.readouterr().err


def test_the_whole_command_plays_a_policy_and_refuses_another_kind_of_task(whole, capsys):
    command = [str(whole[1]), "--episodes=2"]
    assert evaluate.main(command) == 0
    assert "episode" in capsys.readouterr().out
    for env, has in (
        ("discrete/Counter-v0", "got one with 3 and 3"),
        ("discrete/Boxes-v0", "got a Box of 16 numbers and a Box"),
    ):
        assert evaluate.main([*command, f"--env={env}"]) == 2
        assert has in capsys.readouterr().err


def test_studies_of_models_and_critics_refuse_a_run_of_tables(whole, tmp_path, capsys):
    for name in ("compounding", "value_bias"):
        assert study.main([name, f"--run_dir={whole[1]}", f"--output_dir={tmp_path}"]) == 2
        err = capsys.readouterr().err
        assert "the run must have" in err and whole[0] in err


def test_nothing_is_recorded_of_numbers(whole, tmp_path, capsys):
    for words in (
        ["--policy=random", "--env=FrozenLake-v1", "--num_steps=9"],
        [str(whole[1]), "--policy=replay"],
    ):
        assert collect.main([*words, f"--out={tmp_path / 'lake-v0'}"]) == 2
        assert "Discrete(16) and Discrete(4)" in capsys.readouterr().err


def test_the_check_of_an_environment_takes_numbers():
    def problems(name):
        return examine(f"discrete/{name}-v0", "auto", num_steps=40, seed=0, max_episode_steps=0).problems

    assert problems("Counter") == []
    (problem,) = problems("Beyond")
    assert "observations leave their space, Discrete(3, start=5) (8)" in problem.text


def test_the_study_of_lengths_counts_the_episodes_that_the_run_counted(whole, tmp_path, capsys):
    name, run_dir = whole
    command = ["episode_lengths", f"--run_dirs={run_dir}", f"--output_dir={tmp_path}"]
    if name == "dyna_q":  # it gave rows away
        assert study.main(command) == 2
        assert "with 120 steps and --replay_capacity=50" in capsys.readouterr().err
        return
    (num_episodes,) = tiny_runs.saved(run_dir).record["environments"]["episodes"]
    assert study.main([*command, f"--num_episodes={num_episodes + 1}"]) == 2
    assert f"must be at most {num_episodes}, the number of complete episodes of seed 0" in capsys.readouterr().err
    assert study.main([*command, f"--num_episodes={num_episodes}"]) == 0
    (run,) = json.loads((tmp_path / "episode_lengths.json").read_text())["runs"]
    assert run["name"] == "algorithm=q_planning"
    rest = 120 - sum(run["mean_steps"])
    assert 0 <= rest <= 5  # of the episode that was running
    assert max(run["mean_steps"]) == 5
