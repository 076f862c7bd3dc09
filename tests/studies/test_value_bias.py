import types

import jax
import numpy as np
import pytest
import tiny_runs

from mbpo_jax import agents
from mbpo_jax.algorithms import REGISTRY, planned
from mbpo_jax.driver.trained import Trained, load_trained
from mbpo_jax.studies import value_bias


@pytest.fixture(scope="module")
def finding(run_dir):
    return value_bias.study(run_dir, num_episodes=3)


def test_discounted_returns_worked_by_hand():
    reward, bonus = np.asarray([1.0, 2.0, 3.0]), np.asarray([0.5, 0.25, 8.0])
    ends = value_bias.discounted_returns(reward, bonus, True, 0.5)
    # 3; 2 + (0.25 + 3) / 2; 1 + (0.5 + 3.625) / 2: the bonus of the state after the end is not due
    np.testing.assert_array_equal(ends, [3.0625, 3.625, 3.0])
    cut = value_bias.discounted_returns(reward, bonus, False, 0.5)
    np.testing.assert_array_equal(cut, [4.0625, 5.625, 7.0])  # 8 / 2 more, then 8 / 4 and 8 / 8


def test_bias_worked_by_hand():
    statistics = value_bias.bias(np.asarray([1.0, 2.0, 3.0]), np.asarray([-2.0, -4.0, -6.0]))
    assert statistics["value_mean"] == 2.0
    assert statistics["return_mean"] == -4.0
    assert statistics["bias_mean"] == 6.0  # 3, 6 and 9
    assert statistics["bias_std"] == pytest.approx(np.sqrt(6.0))
    assert statistics["normalised_bias_mean"] == 1.5  # the sign of the return does not turn it round
    assert statistics["normalised_bias_std"] == pytest.approx(np.sqrt(6.0) / 4.0)
    assert statistics["correlation"] == pytest.approx(-1.0)


def test_statistics_that_are_not_defined_are_none():
    statistics = value_bias.bias(np.ones(3), np.zeros(3))
    assert statistics["normalised_bias_mean"] is statistics["normalised_bias_std"] is statistics["correlation"] is None


@pytest.mark.parametrize(("discount", "steps"), [(0.99, 459), (0.9, 44), (0.0, 1)])
def test_the_tail_ends_where_a_reward_weighs_a_hundredth(discount, steps):
    assert value_bias.steps_of_tail(discount) == steps
    assert discount**steps <= value_bias.TAIL_WEIGHT
    assert steps == 1 or discount ** (steps - 1) > value_bias.TAIL_WEIGHT


def test_critics_that_promise_a_constant_too_much_are_off_by_it(run_dir, finding, monkeypatch):
    build = agents.build

    def too_high(config, spec):
        agent = build(config, spec)
        q_values = agent.critic.q_values
        return agent._replace(critic=agent.critic._replace(q_values=lambda *args: q_values(*args) + 7.0))

    monkeypatch.setattr(agents, "build", too_high)
    monkeypatch.setattr(
        value_bias.episodes, "deterministic_policy", None
    )  # where entropy counts, the policy acts with noise
    higher = value_bias.study(run_dir, num_episodes=3).numbers["points"]
    for before, after in zip(finding.numbers["points"], higher, strict=True):
        assert after["return_mean"] == before["return_mean"]
        assert after["bias_mean"] == pytest.approx(before["bias_mean"] + 7.0, abs=1e-4)
        assert after["bias_std"] == pytest.approx(before["bias_std"], abs=1e-4)


def test_the_smallest_critic_and_the_bonus_count(run_dir, finding, monkeypatch):
    """Critics 3 and 2, endless rewards of 1 and bonuses of 5: the return is 1 / (1 - 0.9) + 5 * 0.9 / (1 - 0.9)."""
    build = agents.build

    def constant(config, spec):
        agent = build(config, spec)
        critic = agent.critic._replace(
            q_values=lambda state, obs, action: np.asarray([[3.0], [2.0]]) * np.ones(len(obs)),
            target_action=lambda key, state, obs: (None, 5.0 * np.ones(len(obs))),
        )
        return agent._replace(critic=critic)

    monkeypatch.setattr(agents, "build", constant)
    monkeypatch.setattr(value_bias.episodes, "play", lambda env, choose, number, num_steps: endless(num_steps))
    numbers = value_bias.study(run_dir, num_episodes=2).numbers
    for point in numbers["points"]:
        assert point["value_mean"] == 2.0
        assert point["return_mean"] == pytest.approx(10.0 + 45.0, rel=value_bias.TAIL_WEIGHT)
        assert point["return_mean"] < 55.0  # what lies beyond the tail
        assert point["normalised_bias_mean"] == pytest.approx(-53.0 / 55.0, rel=0.01)
        assert point["episode_steps_mean"] == 5 + 44


def endless(num_steps):
    return value_bias.Episode(
        np.zeros((num_steps + 1, 4), np.float32), np.zeros((num_steps, 1), np.float32), np.ones(num_steps), False
    )


def test_episodes_go_on_past_the_time_limit_and_steps_beyond_it_are_not_compared(run_dir, monkeypatch):
    compared, lengths = [], []
    bias, play = value_bias.bias, value_bias.episodes.play

    def measured(*arguments):
        episode = play(*arguments)
        lengths.append(len(episode.reward))
        return episode

    monkeypatch.setattr(value_bias, "bias", lambda q, returns: compared.append(len(q)) or bias(q, returns))
    monkeypatch.setattr(value_bias.episodes, "play", measured)
    numbers = value_bias.study(run_dir, num_episodes=3).numbers
    assert max(point["episode_steps_mean"] for point in numbers["points"]) > 5  # the limit of the run
    assert compared == np.minimum(lengths, 5).reshape(-1, 3).sum(1).tolist()


@pytest.mark.parametrize(("terminal", "expected"), [(True, [25.2, 18.0, 0.0]), (False, [47.07, 42.3, 27.0])])
def test_values_are_of_a_step_and_bonuses_of_the_state_after_it(run_dir, monkeypatch, terminal, expected):
    """Bonuses 10, 20 and 30 of the states after the steps, no rewards, discount 0.9; worked by hand."""
    build = agents.build

    def telling(config, spec):
        agent = build(config, spec)
        critic = agent.critic._replace(
            q_values=lambda state, obs, action: (obs[:, 0] + 100.0 * action[:, 0])[None],
            target_action=lambda key, state, obs: (None, 10.0 * obs[:, 0]),
        )
        return agent._replace(critic=critic)

    monkeypatch.setattr(agents, "build", telling)
    trained = load_trained(run_dir)
    obs = np.arange(4, dtype=np.float32)[:, None] * np.ones((1, 4), np.float32)
    episode = value_bias.Episode(obs, np.float32([[0.1], [0.2], [0.3]]), np.zeros(3), terminal)
    q, returns = value_bias._Comparison(trained, 1)._compare(trained, 0, episode)
    np.testing.assert_allclose(q, [10, 21, 32], rtol=1e-5)
    np.testing.assert_allclose(returns, expected, rtol=1e-5)


def test_checkpoints_from_before_learning_are_left_out_and_named(finding):
    assert [point["step"] for point in finding.numbers["points"]] == [80, 120, 160]
    assert finding.numbers["left_out"] == ["step 40: the agent's first update is at step 60"]


@pytest.fixture(scope="module")
def td3_run(tmp_path_factory):
    """Directory of a finished TD3 run, without a model. Read only."""
    run_dir = tmp_path_factory.mktemp("value_bias") / "td3"
    assert tiny_runs.train(run_dir, tiny_runs.AGENTS["td3"] | {"discount": 0.9}).finished
    return run_dir


def test_without_entropy_the_policy_acts_without_noise_and_gets_no_bonus(td3_run, monkeypatch):
    trained = load_trained(td3_run)
    assert not trained.algorithm.critic.has_entropy
    first = value_bias.study(td3_run, num_episodes=2).numbers
    assert first["algorithm"] == "td3"
    assert all(np.isfinite(point["bias_mean"]) for point in first["points"])
    monkeypatch.setattr(value_bias.episodes, "exploring_policy", lambda trained, key: None)
    assert value_bias.study(td3_run, num_episodes=2).numbers == first


def test_returns_are_of_the_agents_own_policy_and_not_of_a_plan(monkeypatch):
    """BMPO looks ahead in training, to choose among its agent's actions; its critics are of the agent alone."""
    entry, algorithm = REGISTRY["bmpo"], tiny_runs.build("bmpo")
    state = jax.eval_shape(algorithm.init, jax.random.key(0))
    assert isinstance(algorithm.actor(state), planned.Actor)
    run = types.SimpleNamespace(algorithm="bmpo", max_episode_steps=5)
    trained = Trained(run, entry.tiny_config(), 0, 80, entry.spec, algorithm, state, None)
    monkeypatch.setattr(value_bias.episodes, "open_environment", lambda *arguments: None)
    monkeypatch.setattr(value_bias.episodes, "most_steps", lambda trained: 5)
    monkeypatch.setattr(value_bias.episodes, "exploring_policy", lambda trained, key: lambda *actor: (trained, *actor))
    comparison, played = value_bias._Comparison(trained, 1), []
    monkeypatch.setattr(value_bias.episodes, "play", lambda env, choose, *numbers: played.append(choose) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        comparison(trained)
    ((acting, actor),) = played
    assert acting.algorithm.actor(state) is actor is state.agent.actor.params


def test_a_run_without_discount_is_refused(tmp_path):
    assert tiny_runs.train(tmp_path / "run", tiny_runs.SAC | {"discount": 1.0}).finished
    with pytest.raises(ValueError, match="--discount of the run must be below 1, got 1"):
        value_bias.study(tmp_path / "run", num_episodes=1)


def test_the_figure_shows_every_checkpoint(finding):
    values, normalised = finding.figure.axes
    returns, critics = values.get_lines()
    points = finding.numbers["points"]
    np.testing.assert_array_equal(returns.get_ydata(), [point["return_mean"] for point in points])
    np.testing.assert_array_equal(critics.get_ydata(), [point["value_mean"] for point in points])
    np.testing.assert_allclose(
        normalised.get_lines()[0].get_ydata(), [point["normalised_bias_mean"] for point in points]
    )


def test_the_sentence_names_the_last_checkpoint_and_how_many_overestimate():
    points = [
        {"step": step, "bias_mean": bias, "value_mean": 10.0, "return_mean": 10.0 - bias}
        for step, bias in ((1000, 2.0), (2000, -1.0))
    ]
    sentence = value_bias._sentence({"algorithm": "sac", "env": "X", "points": points})
    assert "2 checkpoints" in sentence
    assert "overestimate the discounted return at 1 of them;" in sentence
    assert sentence.endswith("at step 2,000 the mean value is 10.0, the mean discounted return 11.0.")
