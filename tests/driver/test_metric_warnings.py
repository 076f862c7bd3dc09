import numpy as np

from mbpo_jax.driver.metric_warnings import explains_little, find


def test_a_model_that_explains_little_is_named_with_its_worst_target():
    text = explains_little({"explained_share_per_target": np.float32([0.9, -3.0, 0.3])})
    assert text.startswith("the model explains 40 % of the variance of what it predicts, least that of observation 0")
    assert "least that of the reward" in explains_little({"explained_share_per_target": np.float32([0.1, 0.2])})


def test_warnings_of_all_seeds_come_by_what_they_are_about():
    poor, good = ({"explained_share_per_target": np.float32([share, share])} for share in (0.1, 0.9))
    assert list(find([good, poor], "auto", "Hopper-v5")) == ["model"]
    wrong = {"termination_disagreement_fraction": np.float32(0.5)}
    assert list(find([{"termination_disagreement_fraction": 0.0}, wrong], "never", "Hopper-v5")) == ["rule"]
    assert find([good, {}], "auto", "Hopper-v5") == {}


def test_a_rule_that_was_learnt_may_be_wrong_more_often_and_is_not_called_the_users():
    slightly, badly = ({"termination_disagreement_fraction": np.float32(share)} for share in (0.005, 0.02))
    assert find([slightly], "learned", "Hopper-v5") == {}
    assert list(find([slightly], "auto", "Hopper-v5")) == ["rule"]
    text = find([badly], "learned", "Hopper-v5")["rule"]
    assert text.startswith("the rule that --termination_fn=learned learnt and env Hopper-v5 disagree on 2 %")


def test_nothing_is_said_of_a_good_model_or_of_other_phases():
    assert explains_little({"explained_share_per_target": np.float32([0.5, 0.5])}) is None
    assert explains_little({"holdout_mse_elite_mean": 1.0}) is None
