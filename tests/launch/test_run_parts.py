"""Parts of a run become one, whoever gathers them and however often."""

import dataclasses
import json
import pathlib
import shutil

import pytest
import tiny_runs

from mbpo_jax.driver import loop
from mbpo_jax.driver.config import RunConfig, StorageFailure
from mbpo_jax.driver.storage import metrics
from mbpo_jax.launch import flags, run_parts

PLACE = {"distributed": "true", "coordinator": "127.0.0.1:1", "num_processes": 2, "process_id": 0}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, mbpo_run):
    """Directory with the two parts of `mbpo_run`, trained one after the other. Read only."""
    run_dir = tmp_path_factory.mktemp("parts")
    run, knobs = flags.parse(tiny_runs.argv(run_dir, seeds="0,1,2", **PLACE))
    for index in (0, 1):
        assert loop.train(run_parts.part_config(run, index), knobs).finished
    return run_dir


@pytest.fixture
def finished(trained, tmp_path):
    """(the whole run, its algorithm's knobs), with parts of its own that are not gathered."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return flags.parse(tiny_runs.argv(tmp_path, seeds="0,1,2", **PLACE))


def contents(run_dir):
    return {path.name: path.read_bytes() for path in pathlib.Path(run_dir).rglob("*.*") if "part_" not in str(path)}


def test_gathering_again_changes_nothing(finished, mbpo_run):
    run, knobs = finished
    run_parts.gather(run, knobs)
    once = contents(run.run_dir)
    run_parts.gather(dataclasses.replace(run, process_id=1), knobs)  # another process, as late
    assert contents(run.run_dir) == once
    assert {"config.json", "metrics.jsonl", "summary.json", "curves.png", "seed_2.npz", "seed_2_best.npz"} <= set(once)
    assert tiny_runs.lines(run.run_dir) == tiny_runs.lines(mbpo_run)


def test_nothing_is_gathered_before_every_part_has_finished(finished):
    run, knobs = finished
    path = pathlib.Path(run.run_dir) / "part_1_of_2" / "summary.json"
    summary = json.loads(path.read_text())
    assert (summary["finished"], summary["step"]) == (True, 160)
    for unfinished in ({"finished": False}, {"step": 120}):  # stopped within the last step; a shorter run, continued
        path.write_text(json.dumps(summary | unfinished))
        assert run_parts.gather(run, knobs) is None
    path.unlink()
    assert run_parts.gather(run, knobs) is None
    assert not (pathlib.Path(run.run_dir) / "summary.json").exists()
    path.write_text("[]")
    with pytest.raises(StorageFailure, match=str(path)):
        run_parts.gather(run, knobs)


def test_a_part_without_an_environment_to_be_evaluated_in_finishes_too(tmp_path):
    part = RunConfig(run_dir=str(tmp_path), num_steps=160)
    summary = {"step": 160, "finished": True, "seeds": {"0": {"final": None, "best": None}}}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    assert run_parts._finished_summary(part) == summary


def test_parts_of_another_run_are_not_gathered(finished):
    run, knobs = finished
    path = pathlib.Path(run.run_dir) / "part_1_of_2" / "config.json"
    path.write_text(path.read_text().replace('"batch_size": 16', '"batch_size": 17'))
    with pytest.raises(ValueError, match="part_1_of_2.* holds another run: .*batch_size was 17, is 16"):
        run_parts.gather(run, knobs)


def test_the_clocks_of_the_parts_become_one():
    def part(seeds, seconds, act, compilations):
        phases = {"act": act} | ({"fit": 3.0} if act == 1.0 else {})
        return {
            "algorithm": "mbpo",
            "step": 100,
            "seeds": seeds,
            "env_steps_per_second": 100 / seconds,
            "seconds": seconds,
            "seconds_per_phase": phases,
            "compilations": compilations,
            "peak_memory_bytes": 1000 * compilations,
        }

    run = RunConfig(seeds=(7, 8, 9), num_steps=100)
    assert run_parts._merge_summaries(
        run, [part({"7": "a", "9": "c"}, 4.0, 1.0, 5), part({"8": "b"}, 5.0, 2.0, 6)]
    ) == {
        "algorithm": "mbpo",
        "step": 100,
        "seeds": {"7": "a", "8": "b", "9": "c"},
        "env_steps_per_second": 20.0,
        "seconds": 5.0,
        "seconds_per_phase": {"act": 1.5, "fit": 1.5},
        "compilations": 11,
        "peak_memory_bytes": 6000,
    }


def test_lines_are_in_the_order_of_one_process(tmp_path):
    for name, seeds in (("a", (5, 3)), ("b", (4,))):
        with metrics.MetricsWriter(tmp_path / name) as writer:
            for step in (9, 10):
                for word in ("log", "eval") if step == 10 else ("log",):
                    for seed in seeds:
                        writer.write(step, seed, {word: 1})
    lines = run_parts._merge_lines([tmp_path / "a", tmp_path / "b"], (5, 4, 3)).decode().splitlines()
    order = [(line["step"], *(list(line)[2:]), line["seed"]) for line in map(json.loads, lines)]
    assert order == [(step, word, seed) for step, word in ((9, "log"), (10, "log"), (10, "eval")) for seed in (5, 4, 3)]
