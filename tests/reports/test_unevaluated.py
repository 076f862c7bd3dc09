import pytest

from mbpo_jax.reports import unevaluated

ERROR, PENALTY = "fit_model/holdout_mse_elite_mean", "roll_out/penalty_mean"


def lines(num_seeds):
    """Errors of every seed at steps 10 and 20; penalties of the last seed only."""
    errors = [{"step": step, "seed": s, ERROR: s + 0.01 * step} for step in (10, 20) for s in range(num_seeds)]
    return [*errors, {"step": 15, "seed": num_seeds - 1, PENALTY: 3.0}, {"step": 15, "seed": 0, "other": "x"}]


def test_the_newest_value_of_each_metric_counts():
    assert unevaluated.last(lines(2)) == {0: {ERROR: 0.2}, 1: {ERROR: 1.2, PENALTY: 3.0}}
    assert unevaluated.last([]) == {}


@pytest.mark.parametrize(("num_seeds", "named"), [(1, 0), (2, 2), (20, 0)])
def test_a_seed_has_one_colour_in_all_panels_and_few_seeds_are_named(num_seeds, named):
    drawn = unevaluated.figure(lines(num_seeds), "bc on none", "updates")
    drawn.canvas.draw()  # warnings, of panels that collapse, are errors here
    error, penalty = drawn.axes
    assert [line.get_color() for line in error.lines] == [line.get_color() for line in penalty.lines]
    assert [len(line.get_xdata()) for line in penalty.lines] == [0] * (num_seeds - 1) + [1]
    legend = error.get_legend()
    assert (0 if legend is None else len(legend.get_texts())) == named


def test_a_run_that_has_reported_nothing_says_so():
    (axes,) = unevaluated.figure([], "bc on none", "updates").axes
    assert [text.get_text() for text in axes.texts] == ["nothing reported yet"]


def test_what_is_no_number_is_damage():
    with pytest.raises(ValueError, match=r"damaged: roll_out/penalty_mean must be a number, got \{'a': 1\}"):
        unevaluated.last([{"step": 1, "seed": 0, PENALTY: {"a": 1}}])


def test_returns_of_training_are_known_online():
    assert unevaluated.in_words({PENALTY: 1.5}).endswith("1.5; returns are unknown: not evaluated")
    known = {"train/return_mean": -7.0}
    assert unevaluated.in_words(known) == "mean return of the newest training episodes -7.0; not evaluated"
    figure = unevaluated.figure([{"step": 1, "seed": 0} | known], "sac on Ant-v5", "steps")
    assert figure.get_suptitle() == "sac on Ant-v5 (not evaluated)"
