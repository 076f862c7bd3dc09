"""Runs that learn from a data set: stopped, resumed, loaded; one set of rows for all seeds, and none in checkpoints."""

import contextlib
import os
import re
import shutil
import signal

import jax
import numpy as np
import pytest
import tiny_runs

from mbpo_jax import evaluate, main
from mbpo_jax.data_sets import read
from mbpo_jax.driver import divergence, offline, setup
from mbpo_jax.driver.config import Diverged, StorageFailure
from mbpo_jax.driver.interaction.policy import load_policy
from mbpo_jax.driver.phase_runner import PhaseRunner
from mbpo_jax.driver.seeds import SeedAxis
from mbpo_jax.driver.storage import run_json
from mbpo_jax.driver.trained import load_trained
from mbpo_jax.launch import flags
from mbpo_jax.number_text import short
from mbpo_jax.reports import curves


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny_runs.write_data_set(tmp_path_factory.mktemp("data") / "rows.npz")


@pytest.fixture(scope="module", params=tiny_runs.OFFLINE_ROWS)
def whole(request, data, tmp_path_factory):
    """(row, directory of a run of it that went through)"""
    run_dir = tmp_path_factory.mktemp("offline") / request.param
    assert tiny_runs.train(run_dir, tiny_runs.OFFLINE_ROWS[request.param], dataset=data).finished
    return request.param, run_dir


def test_a_run_leaves_what_it_should_and_no_copy_of_the_data(whole):
    name, run_dir = whole
    saved = tiny_runs.saved(run_dir)
    assert "replay" not in saved.arrays["0"]
    lines = tiny_runs.lines(run_dir)
    assert [line["step"] for line in lines if "eval/return_mean" in line] == [20, 40]
    assert all(line["replay/rows"] == 120 for line in lines if "replay/rows" in line)
    logged = {key for line in lines for key in line}
    assert {"update_agent/actor_loss", "eval/return_mean"} <= logged
    of_model = {
        "fit_model/holdout_mse_elite_mean",
        "fit_model/termination_recall",
        "roll_out/transitions",
        "roll_out/data_penalty_mean",
    }
    assert logged & of_model == (of_model if name == "mopo" else set())
    assert ("measure_scale/obs_scale" in logged) == (name != "bc")
    action = load_policy(run_dir)(np.zeros(4, np.float32))
    assert action.shape == (1,) and abs(float(action[0])) <= 3.0


def test_a_stopped_run_ends_like_one_that_is_not(whole, data, tmp_path):
    name, run_dir = whole
    knobs = tiny_runs.OFFLINE_ROWS[name]
    assert tiny_runs.train(tmp_path, knobs, dataset=data, num_steps=25).finished
    assert tiny_runs.train(tmp_path, knobs, dataset=data).finished
    tiny_runs.assert_same_bits(tiny_runs.saved(tmp_path).arrays, tiny_runs.saved(run_dir).arrays)


@pytest.mark.parametrize("whole", ["mopo"], indirect=True)
def test_a_run_that_is_killed_ends_like_one_that_is_not(data, whole, tmp_path):
    _, run_dir = whole
    words = tiny_runs.argv(tmp_path, tiny_runs.MOPO, dataset=data)
    for moment, steps in (("fit:1", ()), ("save:20", (None, 20))):  # in the fit; while a checkpoint is written
        done = tiny_runs.command(tiny_runs.__file__, moment, "SIGKILL", *words)
        assert done.returncode == -signal.SIGKILL and "Traceback" not in done.stderr, done.stderr
        newest = tiny_runs.saved(tmp_path) if steps else None
        assert (newest and newest.record["step"]) in (None, *steps)
    assert tiny_runs.train(tmp_path, tiny_runs.MOPO, dataset=data).finished
    tiny_runs.assert_same_run(tmp_path, run_dir)


@pytest.mark.parametrize("whole", ["mopo"], indirect=True)
def test_a_run_that_is_stopped_within_a_round_of_rollouts_ends_like_one_that_is_not(data, whole, tmp_path, monkeypatch):
    run = PhaseRunner.run

    def run_and_stop(self, roots, step, state, replay, done, should_stop, *hooks):
        asked = [0]

        def asked_to_stop():
            asked[0] += 1
            if (self.phase.name, step, asked[0]) == ("roll_out", 16, 3):  # after one of the second round's steps
                os.kill(os.getpid(), signal.SIGTERM)
            return should_stop()

        return run(self, roots, step, state, replay, done, asked_to_stop, *hooks)

    with monkeypatch.context() as patched:
        patched.setattr(PhaseRunner, "run", run_and_stop)
        assert not tiny_runs.train(tmp_path, tiny_runs.MOPO, dataset=data).finished
    saved = tiny_runs.saved(tmp_path)
    state = saved.arrays["0"]["state"]
    assert (saved.record["step"], saved.record["phase_done"]) == (16, [False])
    first_round, so_far = int(state["round_rows"][0]), int(state["imagined"]["size"])
    assert 0 < first_round < so_far
    assert tiny_runs.train(tmp_path, tiny_runs.MOPO, dataset=data).finished
    tiny_runs.assert_same_run(tmp_path, whole[1])


def test_what_was_learnt_is_opened_with_its_data(whole):
    name, run_dir = whole
    trained = load_trained(run_dir)
    assert int(trained.replay.size) == 120
    if name == "mopo":
        rows = jax.tree.map(lambda leaf: leaf[:5], trained.replay.rows)
        dynamics = trained.algorithm.dynamics(trained.state)
        _, reward, ends = dynamics.step_fn(jax.random.key(0), 0, rows.obs, rows.action)
        assert np.isfinite(reward).all() and ends.dtype == bool
    scale = 1.0 if name == "bc" else trained.state.agent.scale.std
    assert np.isfinite(scale).all()


def test_the_advice_on_learning_that_diverges_is_on_what_there_is_offline(data, tmp_path):
    arrays, name = dict(np.load(data)), str(tmp_path / "rows.npz")
    np.savez(name, **arrays | {"rewards": arrays["rewards"] * np.float32(1e25)})
    with pytest.raises(Diverged, match="^update_agent: .* of update 5 ") as caught:
        tiny_runs.train(tmp_path / "run", tiny_runs.OFFLINE_ROWS["td3_bc"], dataset=name)
    assert re.match(r"The data's rewards \(up to .*e\+25\) are too large .* in the file", caught.value.advice)
    small = offline.as_replay(read.read(str(data), np.float32([-3]), np.float32([3]))).rows
    assert divergence.advice([small], offline=True).startswith("Try a smaller --learning_rate")
    assert divergence.advice([small], offline=False) is None  # the driver's own, which names --updates_per_step, too


def test_data_that_moved_are_found_after_the_run_was_told(data, tmp_path):
    before, after, run_dir = tmp_path / "before.npz", tmp_path / "after.npz", tmp_path / "run"
    shutil.copy(data, before)
    assert tiny_runs.train(run_dir, tiny_runs.OFFLINE_ROWS["bc"], dataset=before).finished
    before.rename(after)
    with pytest.raises(
        ValueError, match=r"before.npz'.*; if it has moved, train this run once more with its new --data"
    ):
        load_trained(run_dir)
    assert tiny_runs.train(run_dir, tiny_runs.OFFLINE_ROWS["bc"], dataset=after).finished
    assert load_trained(run_dir).run.dataset == str(after)


@pytest.mark.parametrize("lifting", ["each", "vmap"])
def test_seeds_share_the_rows_and_learn_what_they_would_alone(lifting, data, tmp_path):
    knobs = tiny_runs.OFFLINE_ROWS["bc"] | {"dataset": data, "num_steps": 20}
    assert tiny_runs.train(tmp_path / "all", knobs, seeds="0,1,2", seed_lifting=lifting).finished
    assert tiny_runs.train(tmp_path / "one", knobs, seeds="1").finished
    (ours, alone) = (tiny_runs.saved(tmp_path / name).arrays["1"]["state"] for name in ("all", "one"))
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6 if lifting == "vmap" else 0)


def test_a_shared_value_is_there_once_for_each_device():
    rows = jax.numpy.zeros(3)
    shared = SeedAxis(3, "each").share(rows)
    assert len(shared) == 3
    assert len({leaf.unsafe_buffer_pointer() for leaf in shared}) == min(3, len(jax.local_devices()))
    assert SeedAxis(3, "vmap").share(rows).shape == (3,)


def test_other_data_is_refused_where_a_run_goes_on(data, tmp_path):
    knobs = tiny_runs.OFFLINE_ROWS["bc"] | {"num_steps": 20}
    mine = tiny_runs.write_data_set(tmp_path / "mine.npz")
    run_dir = tmp_path / "run"
    assert tiny_runs.train(run_dir, knobs, dataset=mine).finished
    moved = mine.rename(tmp_path / "moved.npz")
    assert tiny_runs.train(run_dir, knobs, dataset=moved, num_steps=25).finished  # the same rows, elsewhere
    tiny_runs.write_data_set(moved, seed=1)
    with pytest.raises(ValueError, match=r"^dataset '.*moved\.npz' is not what .* was trained in: dataset_sha256 was "):
        tiny_runs.train(run_dir, knobs, dataset=moved, num_steps=30)
    (run_dir / run_json.CONFIG).unlink()  # a checkpoint knows it, too
    with pytest.raises(StorageFailure, match="SHA-256 was"):
        tiny_runs.train(run_dir, knobs, dataset=moved, num_steps=30)


def test_a_run_without_an_environment_learns_and_says_that_it_knows_no_returns(tmp_path, capsys):
    data = tiny_runs.write_data_set(tmp_path / "rows.npz", largest_action=1.0)
    knobs = tiny_runs.MOPO | {"dataset": data, "env": "none", "termination_fn": "never", "quiet": "false"}
    knobs["max_episode_steps"] = 0
    run_dir = tmp_path / "run"
    result = tiny_runs.train(run_dir, knobs)
    assert result.finished
    assert result.summary["seeds"]["0"]["final"] is None
    assert result.summary["finished"] is True
    assert "no environment, so returns are unknown" in capsys.readouterr().err
    shown = {
        "fit_model/holdout_mse_elite_mean": "the model's held-out error",
        "roll_out/penalty_mean": "penalty of the policy's actions",
        "roll_out/data_penalty_mean": "penalty of the data's actions",
        "eval/start_value_mean": "critics' value at the data's first states",
        "update_agent/actor_loss": "the actor's loss",
    }
    last = {name: [line[name] for line in tiny_runs.lines(run_dir) if name in line][-1] for name in shown}
    assert result.summary["seeds"]["0"]["last"] == last
    printed = main.summary_text(result, 1.0)
    for name, label in shown.items():
        assert f"{label} {short(last[name])};" in printed
    assert "returns are unknown: not evaluated" in printed
    figure = curves.curves_figure(run_dir)
    assert [axes.get_title() for axes in figure.axes] == list(shown.values())
    assert [axes.lines[0].get_ydata()[-1] for axes in figure.axes] == list(last.values())
    assert "returns are unknown: not evaluated" in figure.get_suptitle()
    logged = {key for line in tiny_runs.lines(run_dir) for key in line}
    assert "eval/start_value_mean" in logged and "eval/return_mean" not in logged
    assert load_policy(run_dir)(np.zeros(4, np.float32)).shape == (1,)
    command = [str(run_dir), "--episodes=1"]
    assert evaluate.main(command) == 2
    assert (
        "--env must be the Gymnasium id of an environment to play in: the run had --env=none" in capsys.readouterr().err
    )
    assert evaluate.main([*command, "--env=InvertedPendulum-v5", "--best"]) == 2
    assert "--best must be left out, since the run in " in capsys.readouterr().err
    assert evaluate.main([*command, "--env=InvertedPendulum-v5"]) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"algorithm": "bc"}, r"^dataset must name what bc learns from: .* got ''"),
        (
            {"algorithm": "sac", "dataset": "x.npz"},
            r"^dataset is read by mopo, .* only; sac learns from its .*, got 'x.npz'",
        ),
        ({"algorithm": "sac", "env": "none"}, r"^env must be a Gymnasium id, .*, got 'none'"),
        (
            {"algorithm": "bc", "dataset": "x.npz", "num_steps": "51"},
            r"^num_steps must be a multiple of updates_per_call, which is 50, got 51",
        ),
        (  # an evaluation at 75 would be of 50 updates
            {"algorithm": "bc", "dataset": "x.npz", "num_steps": "100", "eval_every_steps": "25"},
            r"^eval_every_steps must be a multiple of updates_per_call, which is 50, got 25",
        ),
        (
            {"algorithm": "bc", "dataset": "x.npz", "eval_env": "shared"},
            r"^eval_env must be 'own' with a dataset, .*, got 'shared'",
        ),
        (
            {"algorithm": "bc", "dataset": "x.npz", "env": "none", "max_episode_steps": "7"},
            r"^max_episode_steps must be 0 with env=none, got 7",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        tiny_runs.train(tmp_path / "run", {"quiet": "true"} | changes)
    assert not (tmp_path / "run").exists()


def test_data_of_another_environment_is_refused(tmp_path):
    odd = tiny_runs.write_data_set(tmp_path / "odd.npz", obs_dim=5)
    with pytest.raises(
        ValueError, match=r"^dataset must have the 4 observations of env 'InvertedPendulum-v5', got .* 5"
    ):
        tiny_runs.train(tmp_path / "run", tiny_runs.OFFLINE_ROWS["bc"], dataset=odd)


@pytest.mark.parametrize(
    ("recorded_in", "said"), [("Walker2d-v5", True), ("InvertedPendulum-v4", False), ("odd:InvertedPendulum-v5", False)]
)
def test_data_that_were_recorded_in_another_environment_of_the_same_sizes_say_so(
    recorded_in, said, data, tmp_path, monkeypatch
):
    run, config = flags.parse(tiny_runs.argv(tmp_path / "run", tiny_runs.OFFLINE_ROWS["bc"], dataset=data))
    found = read.read(str(data), np.float32([-3]), np.float32([3]))._replace(env_id=recorded_in)
    monkeypatch.setattr(read, "read", lambda *_: found)
    with contextlib.ExitStack() as stack:
        last = setup.build(run, config, stack).data_set_lines[-1]
    assert (f"recorded in {recorded_in}, used with InvertedPendulum-v5" in last) == said


def test_actions_are_scaled_by_the_environments_bounds(data):
    rows = offline.as_replay(read.read(str(data), np.float32([-3]), np.float32([3]))).rows
    with np.load(data) as stored:
        np.testing.assert_allclose(rows.action, stored["actions"] / 3.0, atol=1e-6)


def test_a_model_does_not_learn_from_a_terminal_whose_successor_nobody_recorded(data, tmp_path):
    """Its next observation is a stand-in; a critic needs the row, for the end is its value."""
    with np.load(data) as stored:
        np.savez(tmp_path / "short.npz", **{name: stored[name] for name in stored if name != "next_observations"})
    found = read.read(str(tmp_path / "short.npz"), np.float32([-3]), np.float32([3]))
    with_model, without = (tiny_runs.build(name) for name in ("mopo", "td3_bc"))
    assert found.terminal.sum() == 8
    assert offline.usable(found, without) is found
    rows = offline.usable(found, with_model)
    assert rows.terminal.sum() == 0 and len(rows.reward) == len(found.reward) - 8
    assert rows.first.sum() == found.first.sum()
    assert "8 of them left out" in rows.notes[-1]
    with pytest.raises(
        ValueError, match=r"^dataset must have next_observations for --termination_fn=learned, got .* 8 "
    ):
        offline.usable(found, with_model, "learned")


def test_the_return_of_the_data_counts_the_rows_that_are_left_out(data, tmp_path):
    """Nobody learns from the last row before a time limit without a successor, and no model from a terminal without."""
    with np.load(data) as stored:
        arrays = {name: stored[name] for name in stored if name != "next_observations"}
    arrays["rewards"] = (10.0 * arrays["terminals"] + 3.0 * arrays["timeouts"]).astype(np.float32)
    np.savez(tmp_path / "paid.npz", **arrays)
    knobs = tiny_runs.MOPO | {"termination_fn": "never", "dataset": tmp_path / "paid.npz"}
    run, config = flags.parse(tiny_runs.argv(tmp_path / "run", knobs))
    with contextlib.ExitStack() as stack:
        made = setup.build(run, config, stack)
        kept = setup.task_to_json(made)
    assert made.data_set.terminal.sum() == 0 and made.data_set.reward.sum() == 0
    assert kept["dataset_return_mean"] == pytest.approx(101 / 15)  # 8 of 15 episodes end by a terminal
    _, episodes, returns, _, last = made.data_set_lines
    assert episodes.startswith("episodes: 15, 8 ended by a terminal, 7 otherwise; 7 to 8 rows")
    assert returns.startswith("returns: mean 6.73, from 3.00 to 10.00 over 15 whole episodes")
    assert "8 of them left out" in last


def test_the_rows_of_an_offline_run_are_those_of_its_data(whole):
    _, run_dir = whole
    with pytest.raises(
        ValueError, match=r"learnt from a data set and holds no rows of its own: give that data set, '.*rows.npz'"
    ):
        read.read(str(run_dir))
