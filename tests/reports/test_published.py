import math

import pytest

from mbpo_jax.algorithms import REGISTRY
from mbpo_jax.reports import published


@pytest.mark.parametrize(
    ("env", "wanted"),
    [
        ("Hopper-v5", "Hopper"),
        ("HalfCheetah-v4", "HalfCheetah"),
        ("mbpo_jax/AntTruncatedObs-v5", "AntTruncatedObs"),
        ("my_package:mine/World-v10", "World"),
        ("Half-v2Cheetah", "Half-v2Cheetah"),
    ],
)
def test_a_gymnasium_id_has_a_published_name(env, wanted):
    assert published.environment_of(env) == wanted


@pytest.mark.parametrize(
    ("algorithm", "env", "step", "mean", "std", "num_seeds"),
    [
        ("MBPO", "Hopper-v5", 25_000, 521.2, 222.2, 5),
        ("MBPO", "Hopper-v5", 125_000, 3336.5, 345.8, 5),
        ("MBPO", "Walker2d-v5", 300_000, 4815.3, 562.7, 5),
        ("MBPO", "HalfCheetah-v5", 100_000, 9470.0, 673.5, 5),
        ("MBPO", "HalfCheetah-v5", 400_000, 12742.3, 1302.5, 5),
        ("MBPO", "mbpo_jax/AntTruncatedObs-v5", 300_000, 5300.9, 637.0, 5),
        ("MBPO", "mbpo_jax/HumanoidTruncatedObs-v5", 200_000, 3318.3, 1537.3, 5),
        ("SAC", "Hopper-v5", 1_000_000, 3362.1, 245.4, 5),
        ("SAC", "HalfCheetah-v5", 50_000, 5732.5, 520.5, 8),
        ("TD3", "Ant-v5", 1_000_000, 4242.6, 1037.3, 10),
        ("DHMBPO", "Hopper-v5", 50_000, 3469.7, 140.8, 8),
        ("DHMBPO", "mbpo_jax/AntTruncatedObs-v5", 50_000, 4689.6, 1205.9, 8),
    ],
)
def test_rows_are_the_published_ones(algorithm, env, step, mean, std, num_seeds):
    (row,) = [row for row in published.comparable(algorithm, env) if row.step == step]
    assert row.return_mean == pytest.approx(mean, abs=0.0501)
    assert row.return_std == pytest.approx(std, abs=0.0501)
    assert row.num_seeds == num_seeds


@pytest.mark.parametrize(
    ("env", "last"),
    [
        ("Hopper-v5", 125_000),
        ("Walker2d-v5", 300_000),
        ("HalfCheetah-v5", 400_000),
        ("mbpo_jax/AntTruncatedObs-v5", 300_000),
        ("mbpo_jax/HumanoidTruncatedObs-v5", 300_000),
    ],
)
def test_mbpo_is_known_every_5_000_steps_to_its_end(env, last):
    rows = published.comparable("MBPO", env)
    assert [row.step for row in rows] == list(range(10_000, last + 1, 5000))
    assert {(row.window_steps, row.num_seeds) for row in rows} == {(10_000, 5)}


def test_all_observations_and_truncated_ones_are_two_environments():
    assert published.comparable("MBPO", "Ant-v5") == ()
    assert published.comparable("SAC", "mbpo_jax/HumanoidTruncatedObs-v5") == ()


def test_windows_are_as_long_as_they_were():
    windows = {row.step: row.window_steps for row in published.comparable("SAC", "Walker2d-v5")}
    assert windows[500_000] == 10_000
    assert windows[1_000_000] == 50_000


def test_a_run_is_set_beside_its_own_kind_if_that_is_published():
    kinds = {
        (algorithm, env): {row.algorithm for row in published.reference(algorithm, env)}
        for algorithm in ("mbpo", "sac", "td3", "ddpg")
        for env in ("Hopper-v5", "mbpo_jax/AntTruncatedObs-v5", "Swimmer-v5")
    }
    assert kinds == {
        ("mbpo", "Hopper-v5"): {"MBPO"},
        ("sac", "Hopper-v5"): {"SAC"},
        ("td3", "Hopper-v5"): {"TD3"},
        ("ddpg", "Hopper-v5"): {"MBPO"},  # only its maximum over time is published
        **{(algorithm, "mbpo_jax/AntTruncatedObs-v5"): {"MBPO"} for algorithm in ("mbpo", "sac", "td3", "ddpg")},
        **{(algorithm, "Swimmer-v5"): set() for algorithm in ("mbpo", "sac", "td3", "ddpg")},
    }


@pytest.mark.parametrize("env", ["Hopper-v5", "mbpo_jax/AntTruncatedObs-v5"])
def test_an_algorithm_without_a_published_counterpart_is_set_beside_nothing(monkeypatch, env):
    monkeypatch.setitem(REGISTRY, "pets", REGISTRY["mbpo"]._replace(published=()))
    assert published.reference("pets", env) == ()
    assert {row.algorithm for row in published.reference("double_horizon", env)} == {"DHMBPO"}
    assert published.reference("gone", env) == ()  # a curve may be older than the registry
    monkeypatch.setitem(REGISTRY, "pets", REGISTRY["mbpo"]._replace(published=("PETS", "SAC")))
    assert {row.algorithm for row in published.reference("pets", "Hopper-v5")} == {"SAC"}


def test_what_the_registry_names_is_published():
    known = {row.algorithm.partition(" (")[0] for row in published.rows()}
    for name, entry in REGISTRY.items():
        assert known >= set(entry.published), name
        assert published.names_for(name) == entry.published


def test_each_step_has_one_row_of_finite_numbers_and_a_source():
    rows = published.rows()
    assert len(rows) == 500
    assert len({(*row[:2], row.step) for row in rows}) == len(rows)
    for row in rows:
        assert row.source
        assert math.isfinite(row.return_mean)
        assert row.return_std is None or (math.isfinite(row.return_std) and row.return_std >= 0.0)


def test_other_protocols_are_named_so_and_never_compared_with():
    marked = [row for row in published.rows() if row.window_steps is None]
    assert {row.algorithm for row in marked} >= {"TD3 (max-over-time)", "DDPG (original, max-over-time)"}
    assert all("(" in row.algorithm for row in marked)
    assert published.comparable("TD3 (max-over-time)", "Hopper-v5") == ()
    assert not any("MBBL" in row.version or "Bullet" in row.environment for row in published.rows())


HOPPER = {"rollout_length_schedule": [20, 150, 1, 15], "updates_per_step": 20, "real_fraction": 0.05, "batch_size": 256}


@pytest.mark.parametrize(
    ("algorithm", "env", "changes", "wanted"),
    [
        ("mbpo", "Hopper-v5", {}, True),
        ("mbpo", "Hopper-v5", {"rollout_length_schedule": [0, 1, 15, 15]}, False),
        ("mbpo", "Hopper-v5", {"updates_per_step": 10}, False),
        ("mbpo", "Hopper-v5", {"real_fraction": 1.0}, False),
        ("mbpo", "Hopper-v5", {"real_fraction": 0.5}, False),
        ("mbpo", "Walker2d-v5", {}, False),  # its rollouts are shorter
        ("mbpo", "InvertedPendulum-v5", {}, False),  # nobody published it
        ("mbpo_td3", "Hopper-v5", {}, False),
        ("mbpo", "Hopper-v5", {"agent": "sac"}, True),
        ("mbpo", "Hopper-v5", {"agent": "td3"}, False),
        ("mbpo", "Hopper-v5", {"expansion_steps": 0}, True),
        ("mbpo", "Hopper-v5", {"expansion_steps": 1}, False),
    ],
)
def test_published_mbpo_is_no_ablation(algorithm, env, changes, wanted):
    assert published.is_published_mbpo(algorithm, env, HOPPER | changes) is wanted
