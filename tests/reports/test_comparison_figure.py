import math

import numpy as np
import pytest
from some_curves import curve, experiment, flat

from mbpo_jax.reports import comparison_figure, published, statistics


def drawn(axes):
    """label -> (steps, values) of every line."""
    return {line.get_label(): tuple(map(list, line.get_data())) for line in axes.get_lines()}


def bands(axes):
    """The lowest and highest value of each band, in the order drawn, by its leftmost step."""
    edges = []
    for collection in axes.collections:
        vertices = collection.get_paths()[0].vertices
        left = vertices[vertices[:, 0] == vertices[:, 0].min(), 1]
        edges.append((left.min(), left.max()))
    return edges


def test_a_panel_shows_the_published_band_up_to_our_end_and_every_experiment():
    hopper = experiment([curve(flat(100.0, 20_000), 0), curve(flat(300.0, 23_000), 1)])
    changed = experiment([curve(flat(50.0, 15_000))], "changed")
    figure = comparison_figure.figure([hopper, experiment([], "walker2d", "Walker2d-v5"), changed])
    panel, other = figure.axes
    assert (panel.get_title(), other.get_title()) == ("Hopper-v5", "Walker2d-v5")
    lines = drawn(panel)
    rows = published.comparable("MBPO", "Hopper-v5")[:3]
    assert lines["published MBPO: mean of 5 seeds, ±1 sd"] == (
        [10_000, 15_000, 20_000],
        [row.return_mean for row in rows],
    )
    steps, mean = lines["hopper: mean of 2 seeds, 95 % interval"]
    assert steps == list(range(6000, 20_001, 1000))  # after exploration, where both seeds are
    assert set(mean) == {200.0}
    alone = [label for label in lines if label.endswith("alone")]
    assert alone == ["_seed 1 alone"] and lines[alone[0]] == (list(range(20_000, 23_001, 1000)), [300.0] * 4)
    assert drawn(panel)["changed: one seed"] == (list(range(6000, 15_001, 1000)), [50.0] * 10)
    first, second = (line for line in panel.get_lines() if line.get_label() == "_seed 0")
    assert next(iter(first.get_xdata())) == 1000  # single evaluations from the beginning
    assert first.get_color() != second.get_color()
    low, high = rows[0].return_mean - rows[0].return_std, rows[0].return_mean + rows[0].return_std
    assert bands(panel) == [(pytest.approx(low), pytest.approx(high)), (100.0, 300.0)]
    assert [text.get_text() for text in panel.get_legend().get_texts()] == [
        label for label in lines if not label.startswith("_")
    ]
    assert panel.get_xlim() == (0.0, 1.02 * 23_000)
    assert "no evaluations yet" in [text.get_text() for text in other.texts]
    assert drawn(other)["published MBPO: mean of 5 seeds, ±1 sd"][0][-1] == 300_000  # nothing of ours to end at


def test_a_panel_without_anything_to_compare_has_no_published_band():
    (panel,) = comparison_figure.figure([experiment([curve(flat(100.0, 20_000))], "new", algorithm="new")]).axes
    assert not any(label.startswith("published") for label in drawn(panel))
    assert drawn(panel)["new: one seed"][0] == list(range(1000, 20_001, 1000))


def test_the_mean_line_is_of_windows_where_the_published_one_is():
    evaluations = {1000: 9000.0, 6000: 1.0, 15_000: 2.0, 16_000: 6.0, 30_000: 5.0}
    line = comparison_figure.mean_line([curve(evaluations)], 10_000)
    assert line.steps == [6000, 15_000, 16_000, 30_000]
    np.testing.assert_allclose(line.mean, [1.0, 1.5, 4.0, 5.0])
    assert line.interval is None
    raw = comparison_figure.mean_line([curve(evaluations)], None)
    assert (raw.steps, list(raw.mean)) == (list(evaluations), list(evaluations.values()))


def test_the_interval_is_that_of_the_mean():
    curves = [curve({1000: value, 2000: 2 * value}, seed) for seed, value in enumerate((1.0, 2.0, 6.0))]
    line = comparison_figure.mean_line(curves, None)
    np.testing.assert_allclose(line.mean, [3.0, 6.0])
    wanted = statistics.bootstrap_interval([[1.0, 2.0, 6.0]], statistics.mean, comparison_figure.NUM_RESAMPLES)
    np.testing.assert_allclose(np.array(line.interval)[:, 0], wanted)
    np.testing.assert_allclose(np.array(line.interval)[:, 1], 2 * np.array(wanted))


def test_unpublished_short_and_broken_runs_are_drawn_too(tmp_path):
    pendulum = experiment([curve({250: 5.0, 500: math.nan})], "pendulum", "InvertedPendulum-v5")
    short = experiment([curve({1000: 1.0})], "short")
    apart = experiment([curve({10: 1.0}), curve({20: 1.0}, 1)], "apart", "Swimmer-v5")
    figure = comparison_figure.figure([pendulum, short, apart])
    first, second, third = figure.axes
    assert drawn(first)["pendulum: one seed"][0] == [250, 500]
    assert drawn(second)["short: one seed"] == ([], [])  # exploration only
    assert drawn(third)["apart: mean of 2 seeds, 95 % interval"] == ([], [])
    comparison_figure.draw([pendulum, short, apart], tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_legends_lie_below_the_axes_and_inside_the_picture():
    flat_at_the_top = experiment([curve(flat(1000.0, 5000, 250))], "pendulum", "InvertedPendulum-v5")
    envs = ("Hopper-v5", "Walker2d-v5", "HalfCheetah-v5")
    others = [experiment([curve(flat(1.0, 15_000))], env, env) for env in envs]
    more = [experiment([curve(flat(1.0, 15_000))], f"hopper_{index}") for index in range(6)]
    figure = comparison_figure.figure([flat_at_the_top, *others, *more])
    figure.draw_without_rendering()
    for axes in figure.axes:
        legend, below = axes.get_legend().get_window_extent(), axes.xaxis.label.get_window_extent()
        assert legend.y1 <= below.y0  # under the axis's own words too
        assert not any(legend.overlaps(other.get_tightbbox()) for other in figure.axes if other is not axes)
        assert 0 <= legend.x0 < legend.x1 <= figure.bbox.width and 0 <= legend.y0


def test_many_experiments_have_no_bands_which_would_hide_each_other_but_a_taller_legend():
    def pendulums(count):
        seeds = [curve({250: 1.0, 500: 9.0}, 0), curve({250: 3.0, 500: 9.0}, 1)]
        return [experiment(seeds, f"pendulum_{index}", "InvertedPendulum-v5") for index in range(count)]

    few, many = (comparison_figure.figure(pendulums(count)) for count in (6, 7))
    assert (len(few.axes[0].collections), len(many.axes[0].collections)) == (6, 0)
    assert "pendulum_0: mean of 2 seeds, 95 % interval" in drawn(few.axes[0])
    assert drawn(many.axes[0])["pendulum_0: mean of 2 seeds"] == ([250, 500], [2.0, 9.0])
    assert many.get_figheight() > few.get_figheight()
