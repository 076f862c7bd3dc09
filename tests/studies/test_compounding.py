import json

import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.driver.trained import load_trained
from mbpo_jax.studies import compounding
from mbpo_jax.studies.episodes import Episode
from mbpo_jax.types import Dynamics


@pytest.fixture(scope="module")
def trained(run_dir):
    return load_trained(run_dir)


def drive(action, start=0.0):
    """An episode of a world where each action is added to the first of four numbers, and the others stand."""
    obs = np.zeros((len(action) + 1, 4), np.float32)
    obs[:, 0] = start + np.concatenate([[0.0], np.cumsum(action)])
    return Episode(obs, np.asarray(action, np.float32)[:, None], np.zeros(len(action), np.float32), False)


def world(drift):
    """That world's model, wrong by `drift` at every step."""

    def step(key, group, obs, action):
        return obs.at[:, 0].add(action[:, 0] + drift), jnp.zeros(len(obs)), jnp.ones(len(obs), bool)

    return Dynamics(step, 2)


def imagining(trained, dynamics):
    """The run with other dynamics."""
    return trained._replace(algorithm=trained.algorithm._replace(dynamics=lambda state: dynamics))


@pytest.fixture
def episodes():
    random = np.random.default_rng(0)
    return [drive(random.uniform(-1, 1, size), start) for size, start in ((30, 0.0), (12, 5.0), (3, 100.0))]


def test_a_model_that_is_right_has_no_error_wherever_it_starts(trained, episodes, monkeypatch):
    trained = imagining(trained, world(0.0))
    errors, exploded = compounding._errors(trained, episodes, 10, 41, np.ones(4))
    assert exploded == 0.0
    assert errors.shape == (10, 42)  # a multiple of the two elites
    np.testing.assert_allclose(errors, 0.0, atol=1e-5)


def test_a_constant_drift_adds_up_and_is_measured_in_units_of_the_scale(trained, episodes, monkeypatch):
    trained = imagining(trained, world(0.5))
    errors, _ = compounding._errors(trained, episodes, 10, 40, np.asarray([2.0, 1.0, 1.0, 1.0]))
    by_step = 0.25 * np.arange(1, 11) / 2.0  # root of a mean over four dimensions, three of which are right
    np.testing.assert_allclose(errors, np.broadcast_to(by_step[:, None], errors.shape), rtol=1e-4)
    assert compounding._growth(np.median(errors, axis=1))["exponent"] == pytest.approx(1.0, abs=1e-3)


def test_a_dimension_that_never_changes_has_no_say(trained, episodes, monkeypatch):
    """Whatever the model makes of the last dimension: the mean is over the other three."""
    scale = compounding.scale_of(np.float32([[0, 0, 0, 0.45], [4, 2, 2, 0.45], [0, 0, 0, 0.45], [4, 2, 2, 0.45]] * 500))
    np.testing.assert_allclose(scale, [2.0, 1.0, 1.0, np.inf])

    def step(key, group, obs, action):
        moved = obs.at[:, 0].add(action[:, 0] + 0.5).at[:, 3].add(0.01)
        return moved, jnp.zeros(len(obs)), jnp.ones(len(obs), bool)

    trained = imagining(trained, Dynamics(step, 2))
    errors, _ = compounding._errors(trained, episodes, 10, 40, scale)
    by_step = 0.25 * np.arange(1, 11) / np.sqrt(3.0)
    np.testing.assert_allclose(errors, np.broadcast_to(by_step[:, None], errors.shape), rtol=1e-4)
    assert compounding._over(np.asarray([1.0, 2.0]), np.asarray([4.0, 0.0])) == [0.25, None]


def test_growth_worked_by_hand():
    assert compounding._growth(3.0 * np.arange(1, 20) ** 2.0) == pytest.approx(
        {"error_first": 3.0, "error_last": 3.0 * 361, "exponent": 2.0}
    )
    assert compounding._growth(np.asarray([4.0])) == {"error_first": 4.0, "error_last": 4.0, "exponent": None}


def test_the_fan_repeats_one_action_sequence_past_any_end(trained, episodes, monkeypatch):
    trained = imagining(trained, world(0.5))  # it says that every step is the last
    fan = compounding._fan(trained, episodes[0], 5)
    assert (fan["rows"], fan["exploded"]) == (6, 0.0)
    for percentile in fan["percentiles"]:
        np.testing.assert_allclose(percentile[:, 0], episodes[0].obs[:, 0] + 0.5 * np.arange(31), atol=1e-4)
    np.testing.assert_allclose(fan["spread"], 0.0, atol=1e-6)
    np.testing.assert_array_equal(fan["real"], episodes[0].obs)


def test_a_few_rollouts_that_explode_leave_the_percentiles_alone(trained, episodes, monkeypatch):
    """One of twenty rollouts is 1e12 off and would swamp a mean; the band from 10 to 90 % does not notice."""

    def replayed(trained, starts, actions, key):
        imagined = np.repeat(episodes[0].obs[:, None].astype(np.float64), 20, axis=1)
        imagined[1:, 0] = 1e12
        return imagined, 0.05

    monkeypatch.setattr(compounding, "_replayed", replayed)
    fan = compounding._fan(trained, episodes[0], 20)
    for percentile in fan["percentiles"]:
        np.testing.assert_allclose(percentile, episodes[0].obs, atol=1e-6)
    np.testing.assert_allclose(fan["spread"], 0.0, atol=1e-6)


def test_percentiles_worked_by_hand(trained, episodes, monkeypatch):
    """Eleven rollouts that lie 0, 1, ... 10 above the environment."""

    def replayed(trained, starts, actions, key):
        return episodes[0].obs[:, None] + np.arange(11.0)[:, None], 0.0

    monkeypatch.setattr(compounding, "_replayed", replayed)
    fan = compounding._fan(trained, episodes[0], 11)
    for percentile, above in zip(fan["percentiles"], (1.0, 2.5, 5.0, 7.5, 9.0), strict=True):
        np.testing.assert_allclose(percentile, episodes[0].obs + above)
    np.testing.assert_allclose(fan["spread"], 8.0)
    first = compounding._drawn(fan)[0]  # the only dimension that varies
    assert (first["dimension"], len(first["environment"])) == (0, 31)
    np.testing.assert_allclose(np.subtract(first["p75"], first["environment"]), 7.5, rtol=1e-3)


def test_cutting_keeps_one_observation_more_than_actions(episodes):
    cut = compounding._piece(episodes[0], 0, 7)
    assert (cut.obs.shape, cut.action.shape, cut.reward.shape) == ((8, 4), (7, 1), (7,))
    np.testing.assert_array_equal(cut.obs, episodes[0].obs[:8])


def test_a_run_is_studied_from_its_files(run_dir):
    finding = compounding.study(run_dir, step=120, fan_steps=4, fan_rows=10, num_steps=2, num_starts=20)
    numbers = finding.numbers
    assert (numbers["step"], numbers["seed"], numbers["real_rows"]) == (120, 0, 100)
    assert numbers["error"]["steps"] == [1, 2]
    assert 0.0 < numbers["error"]["median"][0] <= numbers["error"]["p90"][0]
    assert numbers["fan"]["rows"] == 10
    assert 1 <= numbers["fan"]["steps"] <= 4
    assert "InvertedPendulum-v5 after 120 steps" in finding.sentence
    assert finding.figure.get_suptitle() == "InvertedPendulum-v5, 120 environment steps"
    later = compounding.study(run_dir, seed=3, fan_steps=4, fan_rows=10, num_steps=2, num_starts=20)
    assert later.numbers["step"] == 160
    assert later.numbers["error_first"] != numbers["error_first"]


def test_the_figure_is_drawn_from_the_numbers_alone():
    """Of two dimensions, each with a panel beside that of the errors."""
    real = [0.0, 1.0, 2.0]
    drawn = [
        {"dimension": dim, "environment": real} | {f"p{q}": [q / 100] * 3 for q in compounding.PERCENTILES}
        for dim in (1, 4)
    ]
    drawn[1]["p90"] = [0.9, 1e15, 1e15]
    numbers = {
        "env": "X",
        "step": 1000,
        "error": {"steps": [1, 2], "median": [0.1, 0.2], "p90": [0.3, 0.4], "exploded_share": 0.0},
        "fan": {"steps": 2, "rows": 1000, "exploded_share": 0.27, "drawn": drawn},
    }
    figure = compounding._figure(json.loads(json.dumps(numbers)))
    errors, first, second = figure.axes
    np.testing.assert_array_equal(errors.get_lines()[0].get_ydata(), [0.1, 0.2])
    environment, median = first.get_lines()
    np.testing.assert_array_equal(environment.get_ydata(), real)
    np.testing.assert_array_equal(median.get_ydata(), [0.5] * 3)
    assert first.get_title(loc="left") == "27% of the rollouts exploded"
    (legend,) = figure.subfigs[1].legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "environment",
        "model, median",
        "10 to 90 %",
        "25 to 75 %",
    ]
    assert (first.get_ylabel(), second.get_ylabel()) == ("obs 1", "obs 4")
    assert second.get_ylim()[1] < 5.0  # what exploded does not set the scale


def test_what_explodes_is_reported(trained, episodes, monkeypatch):
    trained = imagining(trained, world(1e17))
    assert compounding._fan(trained, episodes[0], 4)["exploded"] == 1.0
    _, exploded = compounding._errors(trained, episodes, 10, 40, np.ones(4))
    assert exploded == 1.0
    numbers = {"env": "X", "step": 1, "error_first": 1.0, "error_last": 1.0, "exponent": None}
    sentence = compounding._sentence(
        numbers | {"error": {"steps": [1], "exploded_share": 0.0}, "fan": {"exploded_share": 0.25}}
    )
    assert sentence.endswith("In the model 25% of the fan exploded.")
