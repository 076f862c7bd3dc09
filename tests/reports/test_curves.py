import json
import math
import os

import numpy as np
import pytest

from mbpo_jax.driver.storage.metrics import MetricsWriter
from mbpo_jax.reports import curves

RETURNS = {0: [1.0, 10.0, 40.0], 1: [3.0, 30.0, 20.0]}
STEPS = [0, 500, 1000]


@pytest.fixture
def run_dir(tmp_path):
    path = tmp_path / "run"
    with MetricsWriter(path) as writer:
        for index, step in enumerate(STEPS):
            for seed, returns in RETURNS.items():
                writer.write(step, seed, {"critic/loss_mean": 9.0})
                writer.write(step, seed, {"eval/return_mean": returns[index], "eval/return_std": 7.0})
    (path / "config.json").write_text(json.dumps({"run": {"algorithm": "mbpo", "env": "hopper"}}))
    return path


def drawn(figure):
    """label -> (steps, values) of every line."""
    (axes,) = figure.axes
    return {line.get_label(): tuple(map(list, line.get_data())) for line in axes.get_lines()}


def reference_csv(path, rows):
    path.write_text("step,time,reward,seed\n" + "".join(f"{s},0.0,{r},{seed}\n" for s, r, seed in rows))
    return path


def test_the_lines_are_the_metrics_and_their_mean(run_dir):
    figure = curves.curves_figure(run_dir)
    assert drawn(figure) == {
        "seed 0": (STEPS, RETURNS[0]),
        "seed 1": (STEPS, RETURNS[1]),
        "mean of 2 seeds": (STEPS, [2.0, 20.0, 30.0]),
    }
    (axes,) = figure.axes
    assert axes.get_title() == "mbpo on hopper"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("environment steps", "evaluation return")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "seed 0",
        "seed 1",
        "mean of 2 seeds",
    ]


def test_the_picture_is_a_png_that_replaces_the_old_one_in_one_move(run_dir, monkeypatch):
    (run_dir / "curves.png").write_bytes(b"old")
    before = set(os.listdir(run_dir))
    path = curves.draw_curves(run_dir)
    assert path == run_dir / "curves.png"
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert set(os.listdir(run_dir)) == before
    picture = path.read_bytes()

    def full(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        curves.draw_curves(run_dir)
    assert path.read_bytes() == picture
    assert set(os.listdir(run_dir)) == before


def test_the_reference_is_interpolated_averaged_and_cut_to_the_steps_shown(run_dir, tmp_path):
    rows = [(0, 0.0, 0.0), (2000, 20.0, 0.0), (100, 2.0, 1.0), (1900, 38.0, 1.0)]  # 0.01 and 0.02 a step
    figure = curves.curves_figure(run_dir, reference_csv(tmp_path / "Hopper.csv", rows))
    (name,) = (label for label in drawn(figure) if "published" in label)
    assert "Hopper" in name
    assert "2 seeds" in name
    steps, mean = map(np.array, drawn(figure)[name])
    assert (steps[0], steps[-1]) == (100.0, 1000.0)  # where both published seeds and the run are
    np.testing.assert_allclose(mean, 0.015 * steps)
    (axes,) = figure.axes
    (band,) = axes.collections
    low, high = band.get_paths()[0].vertices[:, 1].min(), band.get_paths()[0].vertices[:, 1].max()
    assert low == pytest.approx(1.0)  # 0.015 * 100 - 0.005 * 100
    assert high == pytest.approx(20.0)  # 0.015 * 1000 + 0.005 * 1000


def test_a_reference_that_starts_after_the_run_ends_is_left_out(run_dir, tmp_path):
    reference = reference_csv(tmp_path / "Late.csv", [(5000, 1.0, 0.0), (6000, 2.0, 0.0)])
    assert not any("published" in label for label in drawn(curves.curves_figure(run_dir, reference)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("step,time,reward,seed\n0,0,1,0\n5,0,oops,0\n", "line 3"),
        ("step,reward\n0,1\n", "line 2"),
        ("step,time,reward,seed\n0,0\n", "line 2"),
        ("step,time,reward,seed\n0,0,nan,0\n", "line 2"),
        ("", "no curve"),
        ("step,time,reward,seed\n0,0," + "1" * 140_000 + ",0\n", "line 1"),  # longer than csv reads
    ],
)
def test_a_damaged_reference_is_named(run_dir, tmp_path, content, message):
    (tmp_path / "bad.csv").write_text(content)
    with pytest.raises(ValueError, match=rf"bad\.csv.*{message}"):
        curves.curves_figure(run_dir, tmp_path / "bad.csv")


def test_a_run_without_evaluations_draws_an_empty_labelled_figure(tmp_path):
    MetricsWriter(tmp_path).close()
    figure = curves.curves_figure(tmp_path)
    assert drawn(figure) == {}
    assert figure.axes[0].get_xlabel() == "environment steps"
    assert figure.axes[0].get_title() == tmp_path.name
    assert curves.draw_curves(tmp_path).stat().st_size > 1000


def test_a_single_evaluation_at_step_zero_and_a_diverged_seed_are_drawn(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        writer.write(0, 0, {"eval/return_mean": 5.0})
        writer.write(0, 1, {"eval/return_mean": math.nan})
        writer.write(0, 2, {"eval/return_mean": -math.inf})
        writer.write(0, 3, {"eval/return_mean": math.inf})
    curves.draw_curves(tmp_path)
    lines = drawn(curves.curves_figure(tmp_path))
    assert lines["seed 0"] == ([0], [5.0])
    assert math.isnan(lines["mean of 4 seeds"][1][0])


def test_the_mean_waits_for_the_last_seed(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        for step, seed in [(0, 0), (0, 1), (100, 0)]:
            writer.write(step, seed, {"eval/return_mean": float(step + seed)})
    assert drawn(curves.curves_figure(tmp_path))["mean of 2 seeds"] == ([0], [0.5])


def test_one_seed_has_no_mean_and_many_share_a_legend_entry(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        writer.write(10, 0, {"eval/return_mean": 1.0})
        assert list(drawn(curves.curves_figure(tmp_path))) == ["seed 0"]
        for seed in range(1, 20):
            writer.write(10, seed, {"eval/return_mean": 1.0})
    (axes,) = curves.curves_figure(tmp_path).axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["20 seeds", "mean of 20 seeds"]


@pytest.mark.parametrize("config", ["{", "[]", '{"run": 3}', '{"algorithm": 5, "env": "x"}'])
def test_an_unreadable_configuration_only_costs_the_title(run_dir, config):
    (run_dir / "config.json").write_text(config)
    assert curves.curves_figure(run_dir).axes[0].get_title() == "run"


def test_a_flat_configuration_gives_the_title_too(run_dir):
    (run_dir / "config.json").write_text('{"algorithm": "sac", "env": "ant"}')
    assert curves.curves_figure(run_dir).axes[0].get_title() == "sac on ant"


def test_the_steps_of_an_offline_run_are_updates(run_dir):
    (run_dir / "config.json").write_text('{"run": {"algorithm": "bc", "env": "ant", "dataset": "rows.npz"}}')
    assert curves.curves_figure(run_dir).axes[0].get_xlabel() == "updates of the agent"


def test_a_directory_without_metrics_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"metrics\.jsonl.*directory of a run"):
        curves.draw_curves(tmp_path)
