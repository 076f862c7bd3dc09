import dataclasses
import json
import math
import os

import pytest
from some_curves import curve

from mbpo_jax.driver.storage.metrics import MetricsWriter
from mbpo_jax.reports import learning_curves

CONFIG = {
    "run": {"algorithm": "mbpo", "env": "Hopper-v5", "num_steps": 4000, "seeds": [3, 4]},
    "algorithm": {"updates_per_step": 20, "model": {"model_hidden_units": 200}},
    "versions": {"python": "3.11.2", "jax": "0.10.2"},
    "commit": "abc",
    "device": {"backend": "gpu", "kinds": ["NVIDIA H200"]},
}


@pytest.fixture
def run_dir(tmp_path):
    """A run of seeds 3 and 4, in the middle."""
    path = tmp_path / "run"
    with MetricsWriter(path) as writer:
        for step in (1000, 2000):
            for seed in (3, 4):
                writer.write(step, seed, {"eval/return_mean": step / 100 + seed, "eval/return_std": seed / 2})
                writer.write(step, seed, {"seconds/env_step": step / 1000, "seconds/train": step / 100})
        writer.write(2250, 3, {"critic/loss_mean": 1.0})
    (path / "config.json").write_text(json.dumps(CONFIG))
    return path


def test_a_run_gives_the_curve_of_a_seed_with_its_provenance(run_dir):
    assert learning_curves.read_run(run_dir, "h", 4) == learning_curves.LearningCurve(
        experiment="h",
        algorithm="mbpo",
        env="Hopper-v5",
        seed=4,
        num_steps=4000,
        commit="abc",
        versions={"python": "3.11.2", "jax": "0.10.2"},
        devices=("NVIDIA H200",),
        seconds=22.0,  # 2 and 20, as the last line with seconds says
        steps=(1000, 2000),
        returns=(14.0, 24.0),
        stds=(2.0, 2.0),
        elapsed=(11.0, 22.0),  # the line of seed 3, which comes before
        flags=CONFIG["run"] | {"updates_per_step": 20, "model.model_hidden_units": 200},
    )


def test_the_summary_gives_the_seconds_unless_the_run_went_on(run_dir):
    (run_dir / "summary.json").write_text('{"step": 2000, "seconds": 99.5}')
    assert learning_curves.read_run(run_dir, "h", 3).seconds == 99.5
    (run_dir / "summary.json").write_text('{"step": 1000, "seconds": 99.5}')
    assert learning_curves.read_run(run_dir, "h", 3).seconds == 22.0


def test_each_evaluation_has_the_seconds_of_the_line_before_it(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    with MetricsWriter(tmp_path) as writer:
        for step in (250, 500, 750, 1000):  # as a run writes them: the line of a step comes before its evaluation
            writer.write(step, 3, {"seconds/env_step": step / 100, "seconds/train": step / 10})
            if step % 500 == 0:
                writer.write(step, 3, {"eval/return_mean": 1.0, "eval/return_std": 0.0})
    found = learning_curves.read_run(tmp_path, "h", 3)
    assert (found.steps, found.elapsed) == ((500, 1000), (55.0, 110.0))
    cut = learning_curves.until(found, 700)
    assert (cut.steps, cut.elapsed, cut.seconds) == ((500,), (55.0,), 55.0)
    path = tmp_path / "seed_3.json"
    learning_curves.save(path, found)
    assert learning_curves.load(path) == found


def test_no_run_or_no_evaluation_is_no_curve(run_dir, tmp_path):
    assert learning_curves.read_run(tmp_path / "nowhere", "h", 3) is None
    assert learning_curves.read_run(run_dir, "h", 5) is None


def test_what_a_run_does_not_tell_is_not_known(run_dir):
    (run_dir / "config.json").write_text(json.dumps({"run": CONFIG["run"]}))
    with MetricsWriter(run_dir) as writer:
        writer.write(1000, 3, {"eval/return_mean": 1.0})
    found = learning_curves.read_run(run_dir, "h", 3)
    unknown = (found.commit, found.versions, found.devices, found.seconds, found.stds, found.flags)
    assert unknown == (None,) * 6


@pytest.mark.parametrize(
    ("name", "text"),
    [("config.json", "{"), ("config.json", "{}"), ("metrics.jsonl", "{}\n"), ("summary.json", "[]")],
)
def test_a_damaged_run_is_named_with_its_file(run_dir, name, text):
    (run_dir / name).write_text(text)
    with pytest.raises(ValueError, match=f"run/{name}.* damaged"):
        learning_curves.read_run(run_dir, "h", 3)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("summary.json", {"step": "x", "seconds": 1.0}),
        ("summary.json", {"step": None, "seconds": 1.0}),
        ("summary.json", {"step": 2000, "seconds": "abc"}),
        ("summary.json", {"step": 2000, "seconds": math.nan}),
        ("summary.json", {"step": 2000, "seconds": True}),
        ("metrics.jsonl", {"eval/return_mean": [1]}),
        ("metrics.jsonl", {"eval/return_mean": "abc"}),
        ("metrics.jsonl", {"eval/return_mean": 10**400}),
        ("metrics.jsonl", {"eval/return_mean": 1.0, "eval/return_std": None}),
        ("metrics.jsonl", {"seconds/train": "abc"}),
        ("metrics.jsonl", {"eval/return_mean": 1.0, "step": 2**31}),
        ("metrics.jsonl", {"eval/return_mean": 1.0, "step": -1}),
    ],
)
def test_what_is_no_number_is_named_with_its_file(run_dir, name, values):
    if name == "metrics.jsonl":
        with (run_dir / name).open("a") as file:
            file.write(json.dumps({"step": 3000, "seed": 3} | values) + "\n")
    else:
        (run_dir / name).write_text(json.dumps(values))
    with pytest.raises(ValueError, match=f"run/{name} is damaged: "):
        learning_curves.read_run(run_dir, "h", 3)


def test_a_file_from_before_flags_were_kept_stays_as_it_is(tmp_path):
    path = tmp_path / "old.json"
    learning_curves.save(path, curve({1: 1.0}, flags=None))
    assert "flags" not in json.loads(path.read_text())
    assert learning_curves.load(path).flags is None


def test_a_file_gives_back_what_was_saved(tmp_path):
    path = learning_curves.path_of(tmp_path, "hopper", 2)
    assert path == tmp_path / "curves/hopper/seed_2.json"
    nothing = dict.fromkeys(("num_steps", "commit", "versions", "devices", "seconds", "stds", "flags"))
    flags = {"length": [1, 2], "rate": 3e-4, "target": None, "is_on": True, "rule": "auto"}
    data = {"dataset_sha256": "ab", "dataset_rows": 3, "dataset_return_mean": None}
    whole = curve({0: 1.5, 1000: -math.inf}, stds=(0.0, 0.25), flags=flags)
    for saved in (whole, dataclasses.replace(whole, dataset=data, elapsed=(3.0, 4.5)), curve({5: 1.0}, **nothing)):
        learning_curves.save(path, saved)
        assert learning_curves.load(path) == saved
        absent = [saved.elapsed, saved.flags, saved.dataset].count(None)
        entries = len(dataclasses.fields(saved)) - absent
        assert len(path.read_text().splitlines()) == 2 + entries  # a line for each
        json.loads(path.read_text(), parse_constant=pytest.fail)  # strict JSON


def test_nan_survives_a_file(tmp_path):
    learning_curves.save(tmp_path / "a.json", curve({1: math.nan}))
    assert math.isnan(learning_curves.load(tmp_path / "a.json").returns[0])


def test_a_file_that_says_the_same_is_left_alone(tmp_path):
    path = tmp_path / "a.json"
    learning_curves.save(path, curve({1: 1.0}))
    os.utime(path, (1, 1))
    learning_curves.save(path, curve({1: 1.0}))
    assert path.stat().st_mtime == 1
    learning_curves.save(path, curve({1: 2.0}))
    assert path.stat().st_mtime > 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": [2000, 1000]}, "steps must increase"),
        ({"steps": [1000, 1000]}, "steps must increase"),
        ({"steps": [1000]}, "differ in length"),
        ({"stds": [1.0]}, "differ in length"),
        ({"elapsed": [1.0]}, "differ in length"),
        ({"elapsed": [1.0, "nan"]}, "elapsed is"),
        ({"steps": [], "returns": []}, "there must be at least one"),
        ({"returns": [1.0, "many"]}, "returns is"),
        ({"returns": [1.0, [2.0]]}, "returns is"),
        ({"returns": None}, "returns is"),
        ({"steps": [1000.5, 2000]}, "steps is"),
        ({"seed": True}, "seed is"),
        ({"env": None}, "env is"),
        ({"versions": {"jax": 1}}, "versions is"),
        ({"seconds": "long"}, "seconds is"),
        ({"seconds": math.inf}, "seconds is"),
        ({"returns": [1.0, 10**400]}, "returns is"),
        ({"steps": [-1, 2000]}, "steps is"),
        ({"steps": [1000, 10**12]}, "steps is"),
        ({"dataset": {"dataset_rows": 3}}, "dataset is"),
        ({"dataset": {"dataset_sha256": "ab", "dataset_rows": "3"}}, "dataset is"),
        ({"flags": [1]}, "flags is"),
        ({"flags": {"rate": {}}}, "flags is"),
        ({"flags": {"rate": math.nan}}, "flags is"),
        ({"step": 3}, "step is"),
    ],
)
def test_a_damaged_file_is_named_with_what_is_wrong(tmp_path, changes, message):
    path = tmp_path / "bad.json"
    learning_curves.save(path, curve({1000: 1.0, 2000: 2.0}))
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ValueError, match=rf"bad\.json is damaged: .*{message}"):
        learning_curves.load(path)


@pytest.mark.parametrize("text", ["", "[1]", '{"experiment": "a"}', "\x00"])
def test_what_is_no_curve_is_named(tmp_path, text):
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(ValueError, match=r"bad\.json is damaged"):
        learning_curves.load(tmp_path / "bad.json")


def test_the_run_is_taken_unless_the_file_is_longer():
    run_curve = curve({1000: 1.0, 2000: 2.0})
    assert learning_curves.longer(None, None) is None
    assert learning_curves.longer(None, run_curve) is run_curve
    for last_step, wanted in ((1999, run_curve), (2000, run_curve), (2001, None)):
        kept = curve({last_step: 7.0})
        assert learning_curves.longer(kept, run_curve) is (wanted or kept)
        assert learning_curves.longer(kept, None) is kept


def test_a_curve_until_a_step_holds_what_was_evaluated_up_to_it():
    whole = curve({1000: 1.0, 2000: 2.0, 3000: 3.0}, stds=(0.1, 0.2, 0.3))
    assert learning_curves.until(whole, 999) is None
    for last_step in (2000, 2999):
        cut = learning_curves.until(whole, last_step)
        assert (cut.steps, cut.returns, cut.stds) == ((1000, 2000), (1.0, 2.0), (0.1, 0.2))
        assert (cut.seconds, cut.seed, cut.flags) == (None, whole.seed, whole.flags)  # the time was that of all of it
    assert learning_curves.until(whole, 3000) is whole
    assert learning_curves.until(curve({1000: 1.0, 2000: 2.0}), 1000).stds is None


def test_a_file_in_another_s_place_is_refused(tmp_path):
    path = tmp_path / "a.json"
    assert learning_curves.load_kept(path, "hopper", 0) is None
    learning_curves.save(path, curve({1: 1.0}, seed=1))
    assert learning_curves.load_kept(path, "hopper", 1) == curve({1: 1.0}, seed=1)
    with pytest.raises(ValueError, match=r"a\.json holds seed 1 of hopper, not seed 0 of hopper"):
        learning_curves.load_kept(path, "hopper", 0)
