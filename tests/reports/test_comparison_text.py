import pytest
from some_curves import curve, experiment, flat

from mbpo_jax.reports import comparison_text, scores


def text_of(*experiments, references=()):
    return comparison_text.report(experiments, "python -m x --flag", "picture.png", dict(references))


def cells(text, begin):
    """The cells of the rows that begin with a name."""
    return [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith(f"| {begin} |")]


def test_a_row_of_the_table_tells_what_was_worked_by_hand():
    seeds = [curve(flat(600.0, 15_000), seed) for seed in (0, 3)]
    text = text_of(experiment(seeds))
    assert cells(text, "hopper") == [
        ["hopper", "15,000", "2", "600", "600 [600, 600]", "600, 600", "MBPO 319 ± 159 (n = 5)", "96", "above"],
        ["hopper", "125,000", "0", "-", "-", "-", "MBPO 3336 ± 346 (n = 5)", "-", "not reached"],
    ]
    header = cells(text, "experiment")[0]
    assert header == [
        "experiment",
        "step",
        "seeds",
        "mean",
        "IQM [95 %]",
        "each seed",
        "published",
        "percentile",
        "verdict",
    ]


def test_experiments_of_one_environment_share_a_table():
    changed = experiment([curve(flat(1.0, 15_000), experiment="changed")], "changed")
    text = text_of(experiment([curve(flat(2.0, 15_000))]), experiment([], "walker2d", "Walker2d-v5"), changed)
    assert text.count("## Hopper-v5") == 1
    assert text.index("| hopper |") < text.index("| changed |") < text.index("## Walker2d-v5")
    assert text.count("| experiment |") == 1  # nothing to tabulate for the other


def test_what_learnt_from_one_data_set_stands_under_it():
    data = {"dataset_sha256": "0123456789abcdef", "dataset_rows": 1000, "dataset_return_mean": 41.6}
    mixed = curve({40: 55.0}, algorithm="mopo", dataset=data)
    cloned = curve({40: 30.0}, algorithm="bc", dataset={"dataset_sha256": "0123456789abcdef"})  # of an older version
    offline = [
        experiment([seed], name, algorithm=seed.algorithm, dataset="mixed-v0", as_published=False)
        for name, seed in (("mixed_bc", cloned), ("mixed_mopo", mixed))
    ]
    online = experiment([curve(flat(2.0, 15_000))])
    text = text_of(*offline, online)
    assert text.index("## Hopper-v5, mixed-v0") < text.index("| mixed_mopo |") < text.index("## Hopper-v5\n")
    sentence = "Data set: 1,000 rows, mean episode return **42**, SHA-256 0123456789ab."
    assert text.count(sentence) == text.count("Data set") == 1
    assert cells(text, "mixed_mopo")[0][3:] == ["55", "55", "55", "-", "-", "not published"]
    assert "seed's best" not in text
    scored = text_of(*offline, online, references=[scores.parse("Hopper-v5=15,65")])
    assert "Score: 0 is a return of 15 (random policy), 100 is 65 (expert), measured on Hopper-v5." in scored
    assert [row[-1] for row in cells(scored, "experiment")] == ["score", "verdict"]  # none online
    assert cells(scored, "mixed_mopo")[0][8:] == ["not published", "80.0"]
    assert text_of(*offline, online, references=[scores.parse("Ant-v5=15,65")]) == text
    other = curve({40: 1.0}, seed=1, algorithm="mopo", dataset={"dataset_sha256": "fedcba9876543210"})
    with pytest.raises(
        ValueError, match="Hopper-v5, mixed-v0 must be of the same data, got SHA-256 0123456789ab, fedcba987654$"
    ):
        text_of(experiment([mixed, other], "mixed_mopo", algorithm="mopo", dataset="mixed-v0", as_published=False))


def test_every_number_comes_with_its_origin():
    seeds = [
        curve(flat(1.0, 15_000), 0),
        curve(flat(1.0, 15_000), 1, seconds=9000.0),
        curve(flat(1.0, 15_000), 2, commit=None, devices=None, seconds=None, flags=None),
    ]
    text = text_of(experiment(seeds, missing_seeds=(4, 5)))
    assert (
        "* hopper: `experiments/hopper.flags` (mbpo); seeds 0, 1 to 15,000 steps, commit abc1234, cpu; "
        "seed 2 to 15,000 steps, commit unknown, device unknown, flags not recorded; 1.5 to 2.5 hours per process; "
        "no curves for seeds 4, 5"
    ) in text.splitlines()
    assert "* published: 4kubo/erl_lib results/main/gym/mbpo/Hopper.csv, window mean" in text
    assert "    python -m x --flag\n" in text
    assert "](picture.png)" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [((29.0,), "0.5 minutes"), ((100.0, 5400.0), "1.7 to 90.0 minutes"), ((360.0, 362.0), "0.1 hours")],
)
def test_short_runs_are_given_in_minutes(seconds, text):
    seeds = [curve(flat(1.0, 15_000), seed, seconds=value) for seed, value in enumerate(seconds)]
    assert f"cpu; {text} per process" in text_of(experiment(seeds))


def test_windows_that_are_not_the_usual_ones_are_told():
    pendulum = experiment([curve(flat(1000.0, 5000, 250))], "pendulum", "InvertedPendulum-v5")
    evaluations = flat(1.0, 1_000_000, 5000)
    sac = experiment([curve(evaluations, algorithm="sac")], "hopper_sac", algorithm="sac")
    text = text_of(pendulum, sac)
    assert cells(text, "pendulum")[0][1] == "5,000 (last tenth)"
    assert cells(text, "hopper_sac")[-2][1] == "1,000,000 (window 50,000)"
    assert "* nothing is published" in text


def test_the_aggregate_names_what_it_is_of():
    text = text_of(
        experiment([curve(flat(318.83, 15_000))]),
        experiment([curve(flat(1e6, 15_000))], "walker2d", "Walker2d-v5"),
        experiment([], "halfcheetah", "HalfCheetah-v5"),
    )
    assert "At 15,000 steps" in text
    assert "over experiments (seeds) hopper (1), walker2d (1). " in text
    assert "(no interval from one seed each)" in text
    assert "the first listed experiment counts that runs MBPO with the published" in text
    assert "There is no step that" in text_of(experiment([curve(flat(1.0, 15_000))]))


def test_where_nothing_is_published_a_line_says_when_each_seed_was_near_its_best_and_stayed():
    timed = curve({250: 1000.0, 500: 1.0, 750: 995.0}, 2, elapsed=(30.4, 60.0, 2000.6))
    never = curve({250: float("nan")}, 3)
    seeds = [curve({250: 1.0, 1000: 995.0, 1250: 1000.0}, 0), curve({250: 1000.0, 500: 2.0}, 1), timed, never]
    text = text_of(experiment(seeds, "pendulum", "InvertedPendulum-v5"), experiment(seeds))
    assert [line for line in text.splitlines() if "within 1 %" in line] == [
        "* pendulum, evaluations within 1 % of the seed's best: seed 0 all from 1,000 on; "
        "seed 1 first at 250, not the last one; seed 2 first at 250 (30 s), all from 750 (2,001 s) on; seed 3 never"
    ]
