import numpy as np
import pytest

from mbpo_jax.driver.interaction.environment import Environment
from mbpo_jax.studies import versions
from mbpo_jax.studies.episodes import Episode


@pytest.mark.parametrize(
    ("env", "older"),
    [
        ("Hopper-v5", "Hopper-v4"),
        ("mbpo_jax/AntTruncatedObs-v5", "mbpo_jax/AntTruncatedObs-v4"),
        ("mbpo_jax/HumanoidTruncatedObs-v5", "mbpo_jax/HumanoidTruncatedObs-v4"),
        ("a-b/C-d-v5", "a-b/C-d-v4"),
    ],
)
def test_names_of_version_4(env, older):
    assert versions.version_4(env) == older


@pytest.mark.parametrize("body", ["Hopper", "Walker2d", "mbpo_jax/AntTruncatedObs", "mbpo_jax/HumanoidTruncatedObs"])
def test_version_4_of_a_task_is_there_and_observes_as_much(body):
    both = [Environment(name, 0) for name in (f"{body}-v5", versions.version_4(f"{body}-v5"))]
    assert both[0].obs_dim == both[1].obs_dim
    assert both[0].action_dim == both[1].action_dim
    for env in both:
        env.close()


def test_version_4_of_the_pendulum_moves_the_same_and_pays_one_for_the_last_step(run_dir, monkeypatch):
    """Known of the two: v5 gives 0 for the step that ends the episode, v4 gave 1."""
    monkeypatch.setattr(
        versions.episodes, "deterministic_policy", lambda trained, env: lambda obs: np.ones(1)
    )  # it falls
    numbers = versions.study(run_dir, seed=3, num_episodes=6).numbers
    assert numbers["other_env"] == "InvertedPendulum-v4"
    assert numbers["same_actions_state_difference"] == 0.0
    assert numbers["same_actions_reward_difference"] == 0.0
    assert numbers["lengths"] == numbers["other_lengths"]
    assert len(numbers["last_reward_differences"]) >= 1  # some fall before the time limit of 5
    assert set(numbers["last_reward_differences"]) == {1.0}
    gained = np.subtract(numbers["other_returns"], numbers["returns"])
    assert gained.sum() == len(numbers["last_reward_differences"])


def test_an_environment_with_other_observations_is_refused(run_dir):
    with pytest.raises(ValueError, match="other_env must have 4 observations and 1 actions.*Hopper-v4 with 11 and 3"):
        versions.study(run_dir, other_env="Hopper-v4", num_episodes=1)


def test_an_environment_that_does_not_exist_is_named_with_its_flag(run_dir):
    with pytest.raises(ValueError, match="other_env must be another version of InvertedPendulum-v5, got None-v4"):
        versions.study(run_dir, other_env="None-v4", num_episodes=1)


def test_differences_worked_by_hand():
    def episode(obs, reward, terminal=True):
        return Episode(np.asarray(obs, float)[:, None], np.zeros((len(reward), 1)), np.asarray(reward, float), terminal)

    here = [episode([0, 1, 2, 3], [1, 1, 0]), episode([0, 1, 2], [1, 0])]
    there = [episode([0, 1, 2.5, 3], [1, 1.25, 1]), episode([0, 1], [9])]
    measured = versions.differences(here, there)
    # the second ended earlier there: its one common step is an end there, and no end here
    assert measured == {
        "same_actions_state_difference": 0.5,
        "same_actions_reward_difference": 0.25,
        "last_reward_differences": [1.0],
    }
