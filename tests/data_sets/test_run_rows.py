"""The rows of a run directory are those that its environment gave."""

import json
import shutil

import numpy as np
import pytest
import tiny_runs

from mbpo_jax.data_sets import read as reading
from mbpo_jax.data_sets import run_rows
from mbpo_jax.data_sets.data_set import episode_returns
from mbpo_jax.driver.storage import checkpoint

COLUMNS = ("obs", "action", "reward", "next_obs", "terminal")


def test_the_rows_of_all_seeds_are_those_of_the_newest_checkpoint(mbpo_run):
    data_set = reading.read(str(mbpo_run))
    buffers = [tiny_runs.saved(mbpo_run).arrays[seed]["replay"] for seed in "012"]
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(data_set, name), np.concatenate([b["rows"][name] for b in buffers]))
    assert (data_set.kind, data_set.env_id, data_set.max_episode_steps) == ("run directory", "InvertedPendulum-v5", 5)
    np.testing.assert_array_equal([data_set.action_low, data_set.action_high], [[-3], [3]])
    assert data_set.notes == (
        *(f"the oldest 60 rows of seed {seed} had been replaced" for seed in range(3)),
        "seeds 0, 1, 2, one after another",
    )


def test_episodes_of_a_run(mbpo_run):
    data_set = reading.read(str(mbpo_run))
    first = np.concatenate([tiny_runs.saved(mbpo_run).arrays[seed]["replay"]["first"] for seed in "012"])
    first[[100, 200]] = True  # another seed's
    np.testing.assert_array_equal(data_set.first, first)
    last = np.append(first[1:], True)
    np.testing.assert_array_equal(data_set.truncated, last & (data_set.terminal == 0))
    assert data_set.truncated.sum() > 3 and data_set.terminal.sum() > 3
    goes_on = ~last[:-1]
    np.testing.assert_array_equal(data_set.next_obs[:-1][goes_on], data_set.obs[1:][goes_on])
    assert not (data_set.next_obs[:-1] == data_set.obs[1:]).all(axis=1)[~goes_on].any()


def test_an_episode_is_whole_that_began_among_the_rows_and_ended_by_itself_or_at_the_limit(mbpo_run):
    """Of each seed: its oldest rows are the rest of an episode, and in its last ones it may still be playing."""
    wanted = []
    for seed in "012":
        buffer = tiny_runs.saved(mbpo_run).arrays[seed]["replay"]
        starts = np.flatnonzero(np.append(True, buffer["first"][1:]))
        for start, stop in zip(starts, [*starts[1:], len(buffer["first"])]):
            ended = buffer["rows"]["terminal"][stop - 1] > 0 or stop - start == 5
            wanted.append(bool(buffer["first"][start] and ended))
    returns, whole = episode_returns(reading.read(str(mbpo_run)))
    assert whole.tolist() == wanted
    assert wanted.count(False) >= 3 and np.isfinite(returns[whole]).all()


def test_one_seed_at_an_older_step(mbpo_run):
    step = checkpoint.steps(mbpo_run)[0]
    recorded = run_rows.read(mbpo_run, step, 1)
    rows = checkpoint.load(mbpo_run, step).arrays["1"]["replay"]["rows"]
    assert len(recorded.reward) == len(rows["reward"])
    np.testing.assert_array_equal(recorded.obs, rows["obs"])
    with pytest.raises(ValueError, match="seed must be one of the run's, 0, 1, 2, got 7"):
        run_rows.read(mbpo_run, step, 7)
    with pytest.raises(ValueError, match="step must be that of a sound checkpoint, got 7"):
        run_rows.read(mbpo_run, 7, 1)


def test_the_sum_is_of_the_rows_and_not_of_the_files(mbpo_run, tmp_path):
    sha256 = reading.read(str(mbpo_run)).sha256
    copy = shutil.copytree(mbpo_run, tmp_path / "copy")
    (copy / "metrics.jsonl").write_text("")
    assert reading.read(str(copy)).sha256 == sha256
    newest = checkpoint.steps(copy)[-1]
    shutil.rmtree(copy / checkpoint.FOLDER / str(newest))
    assert reading.read(str(copy)).sha256 != sha256


def test_a_damaged_checkpoint_is_passed_over(mbpo_run, tmp_path):
    copy = shutil.copytree(mbpo_run, tmp_path / "copy")
    *_, older, newest = checkpoint.steps(copy)
    largest = max((copy / checkpoint.FOLDER / str(newest)).rglob("*"), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1])
    data_set = reading.read(str(copy))
    assert data_set.notes[0] == f"the checkpoint of step {newest} is damaged and was passed over"
    np.testing.assert_array_equal(
        data_set.obs[:5], checkpoint.load(copy, older).arrays["0"]["replay"]["rows"]["obs"][:5]
    )
    shutil.rmtree(copy / checkpoint.FOLDER)
    with pytest.raises(ValueError, match=r"dataset '.*copy': a run must have a sound checkpoint, got none"):
        reading.read(str(copy))


def test_bounds_of_another_environment_are_those_of_other_actions(mbpo_run, tmp_path):
    own = reading.read(str(mbpo_run))
    same = reading.read(str(mbpo_run), np.float32([-3]), np.float32([3]))
    np.testing.assert_array_equal(same.action, own.action)
    wider = reading.read(str(mbpo_run), np.float32([-6]), np.float32([6]))
    np.testing.assert_allclose(wider.action, own.action / 2, atol=1e-6)
    with pytest.raises(ValueError, match="actions must lie within their bounds"):
        reading.read(str(mbpo_run), np.float32([-1]), np.float32([1]))
    copy = shutil.copytree(mbpo_run, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    del config["task"]  # as older versions wrote it
    (copy / "config.json").write_text(json.dumps(config))
    np.testing.assert_array_equal(reading.read(str(copy), np.float32([-1]), np.float32([1])).action, own.action)
