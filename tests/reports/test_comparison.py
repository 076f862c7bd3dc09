import dataclasses
import json
import math

import pytest
from some_curves import curve, experiment, flat

from mbpo_jax.reports import comparison, published


def published_row(step, env="Hopper-v5", algorithm="MBPO"):
    return next(row for row in published.comparable(algorithm, env) if row.step == step)


def test_a_row_holds_the_numbers_worked_by_hand():
    seeds = [curve(flat(value, 25_000), seed) for seed, value in enumerate((300.0, 500.0, 600.0, 1000.0))]
    row = next(row for row in comparison.compare(experiment(seeds)) if row.step == 25_000)
    assert row.values == {0: 300.0, 1: 500.0, 2: 600.0, 3: 1000.0}
    assert (row.mean, row.iqm, row.window) == (600.0, 550.0, 10_000)
    low, high = row.interval
    assert 300.0 <= low < 450.0 < 700.0 < high <= 1000.0
    assert row.published == published_row(25_000)
    # 521.25 ± 222.23: 0.354 deviations above the mean.
    assert row.percentile == pytest.approx(50.0 * (1.0 + math.erf(78.75 / 222.23 / math.sqrt(2.0))), abs=0.01)
    assert row.verdict == "inside"


@pytest.mark.parametrize(
    ("value", "wanted"), [(744.0, "above"), (743.0, "inside"), (300.0, "inside"), (298.0, "below")]
)
def test_the_verdict_is_that_of_the_published_row(value, wanted):
    rows = comparison.compare(experiment([curve(flat(value, 25_000))]))
    assert {row.step: row.verdict for row in rows}[25_000] == wanted  # 521.25 ± 222.23: 299.02 to 743.48


def test_rows_are_the_milestones_the_end_and_the_published_end():
    steps = [row.step for row in comparison.compare(experiment([curve(flat(1.0, 83_000))]))]
    assert steps == [25_000, 50_000, 75_000, 80_000, 125_000]
    rows = comparison.compare(experiment([curve(flat(1.0, 125_000))]))
    assert [row.step for row in rows] == [25_000, 50_000, 75_000, 100_000, 125_000]
    assert not any(row.verdict == "not reached" for row in rows)


def test_an_algorithm_that_nobody_published_gets_no_verdict():
    one = experiment([curve(flat(1.0, 83_000))], algorithm="new")
    (row,) = comparison.compare(one)
    assert (row.step, row.published, row.percentile, row.verdict) == (83_000, None, None, "not published")
    assert comparison.steps_near_best(one) == {0: (1000, 1000)}


def test_what_is_published_after_the_reported_steps_has_no_row():
    one = dataclasses.replace(experiment([curve(flat(1.0, 20_000))]), until_step=20_000)
    assert [(row.step, row.published.step) for row in comparison.compare(one)] == [(20_000, 20_000)]
    (early,) = comparison.compare(dataclasses.replace(experiment([curve(flat(1.0, 9000))]), until_step=9000))
    assert (early.step, early.window, early.verdict) == (9000, "last tenth", "not reached")


def test_seeds_of_unlike_length_count_where_they_have_been():
    rows = comparison.compare(experiment([curve(flat(100.0, 30_000), 0), curve(flat(300.0, 60_000), 1)]))
    seen = {row.step: (row.values, row.mean) for row in rows}
    assert seen == {
        25_000: ({0: 100.0, 1: 300.0}, 200.0),
        30_000: ({0: 100.0, 1: 300.0}, 200.0),  # the last that both have reached
        50_000: ({1: 300.0}, 300.0),
        60_000: ({1: 300.0}, 300.0),
        125_000: ({}, None),
    }


def test_a_seed_a_step_short_has_not_reached_it():
    (short, end) = comparison.compare(experiment([curve(flat(1.0, 14_000) | {14_999: 1.0})]))
    assert (short.step, end.step, end.verdict, end.mean, end.percentile) == (10_000, 125_000, "not reached", None, None)
    assert comparison.compare(experiment([curve(flat(1.0, 15_000))]))[0].step == 15_000


def test_a_run_shorter_than_what_is_published_is_told_by_its_last_tenth():
    rows = comparison.compare(experiment([curve({8000: 1.0, 9000: 2.0, 9500: 4.0}), curve(flat(7.0, 9000), 1)]))
    assert [(row.step, row.window, row.verdict) for row in rows] == [
        (9000, "last tenth", "not reached"),  # the last step of both
        (125_000, 10_000, "not reached"),
    ]
    assert rows[0].values == {0: 2.0, 1: 7.0}
    assert rows[0].mean == 4.5
    assert rows[0].published is None


def test_an_environment_that_nobody_published_has_one_row_without_a_verdict():
    (row,) = comparison.compare(
        experiment([curve(flat(1000.0, 5000, 250))], "inverted_pendulum", "InvertedPendulum-v5")
    )
    assert (row.step, row.mean, row.published, row.percentile, row.verdict) == (
        *(5000, 1000.0, None, None, "not published"),
    )


def test_sac_is_set_beside_sac_with_its_longer_window():
    evaluations = flat(0.0, 950_000, 5000) | {step: 3300.0 for step in range(955_000, 1_000_001, 5000)}
    rows = comparison.compare(experiment([curve(evaluations, algorithm="sac")], "hopper_sac", algorithm="sac"))
    last = next(row for row in rows if row.step == 1_000_000)
    assert (last.published.algorithm, last.window, last.mean, last.verdict) == ("SAC", 50_000, 3300.0, "inside")


def test_a_return_that_is_no_number_is_no_success():
    rows = comparison.compare(experiment([curve(flat(math.nan, 15_000))]))
    assert rows[0].verdict == "not finite"


def three():
    """Two environments that are published, with two seeds and one, and a third that is not."""
    hopper = published_row(15_000).return_mean
    walker = published_row(15_000, "Walker2d-v5").return_mean
    return [
        experiment([curve(flat(9e9, 15_000))], "hopper_no_model", as_published=False),  # an ablation, and the first
        experiment([curve(flat(hopper * 0.5, 15_000), 0), curve(flat(hopper * 1.5, 21_000), 1)]),
        experiment([curve(flat(9e9, 15_000))], "hopper_again"),  # not the first of its environment
        experiment([curve(flat(walker * 2.0, 40_000))], "walker2d", "Walker2d-v5"),
        experiment([curve(flat(1000.0, 15_000))], "inverted_pendulum", "InvertedPendulum-v5"),
        experiment([curve(flat(1.0, 15_000))], "sac", "HalfCheetah-v5", algorithm="sac"),
    ]


def test_the_aggregate_is_over_what_mbpo_earns_of_the_published_mean():
    whole = comparison.aggregate(three())
    assert whole.step == 15_000  # the last published step that every seed has reached
    assert whole.values == {
        "hopper": {0: pytest.approx(0.5), 1: pytest.approx(1.5)},
        "walker2d": {0: pytest.approx(2.0)},
    }
    assert whole.iqm == pytest.approx(4.0 / 3.0)
    # Walker2d is in every resample; Hopper's two are (0.5, 0.5), (0.5, 1.5), (1.5, 0.5) or (1.5, 1.5).
    assert whole.interval == (pytest.approx(1.0), pytest.approx(5.0 / 3.0))


def test_no_aggregate_of_one_environment_or_without_a_common_step():
    assert comparison.aggregate(three()[:3]) is None
    assert comparison.aggregate([three()[0], *three()[2:3]]) is None
    late = experiment([curve(flat(1.0, 9000))], "halfcheetah", "HalfCheetah-v5")
    assert comparison.aggregate([*three(), late]) is None
    assert comparison.aggregate([]) is None


SPARSE = {40_000: 1.0, 80_000: 2.0, 120_000: 3.0}  # windows that end at 45,000 have the first one, at 50,000 none


def test_a_gap_in_the_evaluations_is_not_called_not_reached():
    rows = comparison.compare(experiment([curve(SPARSE), curve(SPARSE, 1)]))
    none = "no evaluation in the window"
    assert [(row.step, row.mean, row.verdict) for row in rows] == [
        (25_000, None, none),
        (50_000, None, none),
        (75_000, None, none),
        (100_000, None, none),
        (120_000, 3.0, "below"),
        (125_000, None, "not reached"),
    ]


def test_the_aggregate_is_at_a_step_where_every_seed_has_a_value():
    def pair(evaluations):
        walker = experiment([curve(flat(1.0, 200_000))], "walker2d", "Walker2d-v5")
        return [experiment([curve(flat(1.0, 200_000)), curve(evaluations, 1)]), walker]

    assert comparison.aggregate(pair(SPARSE)).step == 120_000
    whole = comparison.aggregate(pair({40_000: 1.0, 118_000: 2.0, 200_000: 3.0}))
    assert (whole.step, set(whole.values["hopper"])) == (125_000, {0, 1})
    gap = {40_000: 1.0, 200_000: 3.0}  # reaches 125,000, where Hopper's published rows end, with nothing in the window
    whole = comparison.aggregate(pair(gap))
    assert (whole.step, set(whole.values["hopper"])) == (45_000, {0, 1})
    assert comparison.aggregate(pair({200_000: 3.0})) is None


def test_seeds_whose_evaluations_do_not_meet_are_told_where_they_are():
    seeds = [curve({5000: 7.0}, 0), curve({1000: 2.0}, 1)]
    (row,) = comparison.compare(experiment(seeds, "pendulum", "InvertedPendulum-v5"))
    assert (row.step, row.values, row.mean) == (1000, {1: 2.0}, 2.0)


def test_seeds_of_unpublished_environments_settle():
    seeds = [curve({250: 1.0, 500: 995.0, 750: 1000.0}, 0), curve({250: 1000.0, 500: 2.0}, 1)]
    pendulum = experiment(seeds, "pendulum", "InvertedPendulum-v5")
    assert comparison.steps_near_best(pendulum) == {0: (500, 500), 1: (250, None)}
    assert comparison.to_json([pendulum], {})["experiments"][0]["steps_near_best"] == {
        "0": [500, 500],
        "1": [250, None],
    }
    assert comparison.steps_near_best(experiment(seeds)) is None


def test_the_numbers_are_strict_json_and_the_same_each_time():
    experiments = [*three(), experiment([curve(flat(math.nan, 15_000))], "broken"), experiment([], missing_seeds=(7,))]
    text = json.dumps(comparison.to_json(experiments, {}), allow_nan=False)
    assert text == json.dumps(comparison.to_json(experiments, {}), allow_nan=False)
    value = json.loads(text)
    assert len(value["rows"]) == sum(len(comparison.compare(one)) for one in experiments)
    row = next(row for row in value["rows"] if row["experiment"] == "hopper" and row["step"] == 15_000)
    assert row["published"]["return_mean"] == published_row(15_000).return_mean
    assert row["values"] == {"0": pytest.approx(159.415), "1": pytest.approx(478.245)}
    assert next(row for row in value["rows"] if row["experiment"] == "broken")["mean"] == "nan"
    assert value["aggregate"]["iqm"] == pytest.approx(4.0 / 3.0)
    assert value["experiments"][1]["curves"][1]["commit"] == "abc1234"
    assert value["experiments"][-1]["missing_seeds"] == [7]
