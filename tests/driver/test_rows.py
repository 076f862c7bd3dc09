"""Every row of the registry through the driver; `mbpo` and `sac` are what the other files run."""

import numpy as np
import pytest
import tiny_runs

from mbpo_jax import rewards
from mbpo_jax.algorithms import REGISTRY
from mbpo_jax.driver.interaction.policy import load_policy
from mbpo_jax.studies import bidirectional

ROWS = tiny_runs.AGENTS | tiny_runs.THROUGH_MODEL


def test_every_row_is_run_somewhere():
    others = tiny_runs.TABLES, tiny_runs.PLANNING, tiny_runs.OFFLINE_ROWS
    assert REGISTRY.keys() == {"mbpo", "sac"}.union(ROWS, *others)


CHANGES = {"num_steps": 90, "eval_every_steps": 30, "eval_episodes": 1}


@pytest.fixture(scope="module", params=ROWS)
def whole(request, tmp_path_factory):
    """(row, directory of a run of it that went through)"""
    run_dir = tmp_path_factory.mktemp("rows") / request.param
    assert tiny_runs.train(run_dir, ROWS[request.param], **CHANGES).finished
    return request.param, run_dir


def test_a_run_tells_and_leaves_what_it_should(whole):
    name, run_dir = whole
    agent = tiny_runs.saved(run_dir).arrays["0"]["state"]["agent"]
    agent = agent.get("agent", agent)  # inside its scale, where it has one
    if name == "double_horizon":  # bursts at 60, 70, 80 and 90: 25 updates of critics and 60 of both, then 5 and 10
        assert int(agent["num_updates"]) == 85 + 3 * 15
        assert int(agent["actor"]["opt_state"]["0"]["count"]) == 10  # Adam begins each burst anew
    else:
        assert int(agent["num_updates"]) == 31  # one at each of the steps 60 to 90
        moments = agent["actor"]["opt_state"]["1" if name == "svg" else "0"]  # svg cuts gradients first
        assert int((moments["0"] if name == "svg" else moments)["count"]) == (15 if "td3" in name else 31)
    logged = {key for line in tiny_runs.lines(run_dir) for key in line}
    value = "update_agent/value_mean" if name == "svg" else "update_agent/q_mean"
    assert {value, "update_agent/critic_loss", "update_agent/actor_loss", "eval/return_mean"} <= logged
    assert any(key.startswith("roll_out/") for key in logged) == name.startswith(("mbpo", "maac", "bmpo"))
    assert any(key.startswith("fit_model/") for key in logged) == ("ddpg" != name != "td3")
    compared = {line[key] for line in tiny_runs.lines(run_dir) for key in line if "termination_disagreement" in key}
    assert compared == (set() if name in {"td3", "ddpg", "svg"} else {0.0})
    assert load_policy(run_dir)(np.zeros(4, np.float32)).shape == (1,)


@pytest.mark.parametrize("whole", ["td3", "mbpo_td3"], indirect=True)
def test_a_run_that_is_stopped_between_two_updates_of_the_actor_ends_like_one_that_is_not(whole, tmp_path):
    name, run_dir = whole
    knobs = ROWS[name] | CHANGES
    assert tiny_runs.train(tmp_path, knobs, num_steps=70).finished
    agent = tiny_runs.saved(tmp_path).arrays["0"]["state"]["agent"]
    assert (int(agent["num_updates"]), int(agent["actor"]["opt_state"]["0"]["count"])) == (11, 5)
    assert tiny_runs.train(tmp_path, knobs).finished
    tiny_runs.assert_same_bits(tiny_runs.saved(tmp_path).arrays, tiny_runs.saved(run_dir).arrays)


@pytest.mark.parametrize("whole", tiny_runs.THROUGH_MODEL, indirect=True)
def test_a_run_through_the_model_that_is_stopped_ends_like_one_that_is_not(whole, tmp_path):
    name, run_dir = whole
    knobs = ROWS[name] | CHANGES
    assert tiny_runs.train(tmp_path, knobs, num_steps=70).finished
    assert tiny_runs.train(tmp_path, knobs).finished
    tiny_runs.assert_same_bits(tiny_runs.saved(tmp_path).arrays, tiny_runs.saved(run_dir).arrays)


@pytest.mark.parametrize("whole", ["bmpo"], indirect=True)
def test_a_run_in_both_directions_can_be_studied(whole):
    finding = bidirectional.study(whole[1], num_steps=2, num_starts=10)
    assert finding.numbers["steps"] == [2]
    for way in bidirectional.WAYS:
        assert 0.0 < finding.numbers[way]["median"][0] <= finding.numbers[way]["p90"][0]
    assert finding.sentence.startswith(
        "InvertedPendulum-v5 after 90 steps: over 2 steps, the median of the mean error "
    )
    assert finding.figure.axes


def test_a_run_that_plans_resumes_inside_an_episode_and_its_policy_acts_alone(tmp_path):
    """It is stopped at its 21st planned action, so that what is carried from step to step is saved and read."""
    knobs = tiny_runs.PLANNING["pets"] | CHANGES | {"max_episode_steps": 50}
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    assert tiny_runs.train(whole, knobs).finished
    assert tiny_runs.train(resumed, knobs, num_steps=81).finished
    assert tiny_runs.train(resumed, knobs).finished
    tiny_runs.assert_same_bits(tiny_runs.saved(resumed).arrays, tiny_runs.saved(whole).arrays)
    logged = {key for line in tiny_runs.lines(whole) for key in line}
    assert {"fit_model/holdout_mse_elite_mean", "eval/return_mean"} <= logged
    assert not any(key.startswith("update_agent/") for key in logged)

    policy, again = load_policy(whole), load_policy(whole)
    obs = np.full(4, 0.01, np.float32)
    actions = np.array([policy(obs) for _ in range(3)])
    np.testing.assert_array_equal(actions, [again(obs) for _ in range(3)])
    policy.reset(0)
    np.testing.assert_array_equal(policy(obs), actions[0])  # the same episode, so the same draws and no plan left over
    assert len(np.unique(actions)) == 3

    config = whole / "config.json"
    config.write_text(config.read_text().replace("mbpo_jax.rewards:one_each_step", "my_module:my_reward"))
    with pytest.raises(ValueError, match="reward_fn must be given to load this policy, which plans with .*my_reward"):
        load_policy(whole)
    np.testing.assert_array_equal(load_policy(whole, reward_fn=rewards.one_each_step)(obs), actions[0])


def test_a_run_with_gaussian_processes_resumes_and_its_policy_acts_alone(tmp_path):
    """Stopped between two fits, so that hyperparameters and posterior are saved and read."""
    of_networks = {name for name in tiny_runs.MBPO if name.startswith(("num_m", "num_e", "model_", "fit_"))}
    knobs = {name: value for name, value in tiny_runs.PLANNING["pets"].items() if name not in of_networks} | CHANGES
    knobs |= {"member": "gp", "propagation": "mm", "inducing_rows": 8, "fit_max_iterations": 2, "fit_every_steps": 25}
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    assert tiny_runs.train(whole, knobs).finished
    assert tiny_runs.train(resumed, knobs, num_steps=70).finished
    assert tiny_runs.train(resumed, knobs).finished
    tiny_runs.assert_same_bits(tiny_runs.saved(resumed).arrays, tiny_runs.saved(whole).arrays)
    logged = {key for line in tiny_runs.lines(whole) for key in line}
    assert {"fit_model/evidence_per_target", "fit_model/explained_share_per_target"} <= logged
    obs = np.full(4, 0.01, np.float32)
    np.testing.assert_array_equal(load_policy(whole)(obs), load_policy(resumed)(obs))


def test_a_plan_beyond_the_end_of_an_episode_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"horizon must be at most the steps of an episode \(5\), got 6"):
        tiny_runs.train(tmp_path, tiny_runs.PLANNING["pets"], horizon=6)
