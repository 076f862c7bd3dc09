import json
import os
import shutil
import signal
import time
from contextlib import ExitStack

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs

from mbpo_jax.algorithms import REGISTRY
from mbpo_jax.driver import loop, metric_warnings, setup
from mbpo_jax.driver.config import Diverged, EnvironmentFailure, RunConfig, StorageFailure
from mbpo_jax.driver.interaction import acting, policy
from mbpo_jax.driver.interaction.environment import EVALUATION, Environment
from mbpo_jax.driver.phase_runner import PhaseRunner
from mbpo_jax.driver.storage import lock, metrics, run_json
from mbpo_jax.driver.storage.checkpoint import Checkpoints
from mbpo_jax.driver.storage.resumable_directory import ResumableDirectory
from mbpo_jax.launch import flags
from mbpo_jax.main import EXIT_STOPPED


@pytest.fixture(scope="module")
def alone(tmp_path_factory, mbpo_run):
    """Seed 1 of `mbpo_run` in a run of its own, which compiles its programs."""
    run_dir = tmp_path_factory.mktemp("alone") / "run"
    setup.compile_programs.cache_clear()
    assert tiny_runs.train(run_dir, seeds=1).finished
    return run_dir


@pytest.fixture(scope="module")
def own_process(tmp_path_factory):
    """The run of `mbpo_run` from the command line, in a fresh process."""
    run_dir = tmp_path_factory.mktemp("process") / "run"
    done = tiny_runs.command("-m", "mbpo_jax.main", *tiny_runs.argv(run_dir, seeds="0,1,2"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return run_dir


def parameters(run_dir, seed):
    return tiny_runs.saved(run_dir).arrays[str(seed)]


# -- the same run ------------------------------------------------------------------------------------------------


def test_a_seed_of_three_is_the_seed_alone_bit_for_bit(mbpo_run, alone):
    tiny_runs.assert_same_bits(parameters(mbpo_run, 1), parameters(alone, 1))
    assert tiny_runs.lines(mbpo_run, seed=1) == tiny_runs.lines(alone)


def test_the_same_seeds_give_the_same_run_in_another_process(mbpo_run, own_process):
    tiny_runs.assert_same_run(own_process, mbpo_run)


def test_what_a_policy_carries_goes_on_inside_an_episode(tmp_path, monkeypatch):
    """An agent whose actions fade with the steps of an episode, stopped inside the first one."""
    entry = REGISTRY["sac"]

    def build(config, spec):
        agent = entry.build(config, spec)

        def act(key, actor, carry, obs, explore):
            action, _ = agent.act(key, actor, (), obs, explore)
            return action / (1.0 + carry["steps"]), {"steps": carry["steps"] + 1.0}

        return agent._replace(begin_episode=lambda key, actor: {"steps": jnp.zeros(())}, act=act)

    monkeypatch.setitem(REGISTRY, "sac", entry._replace(build=build))
    knobs = tiny_runs.SAC | {"env": "Swimmer-v5", "max_episode_steps": 200, "eval_every_steps": 100}
    assert tiny_runs.train(tmp_path / "whole", knobs).finished
    assert tiny_runs.train(tmp_path / "run", knobs, num_steps=83).finished
    assert float(tiny_runs.saved(tmp_path / "run").arrays["0"]["carry"]["steps"]) == 83 - 60
    assert tiny_runs.train(tmp_path / "run", knobs).finished
    tiny_runs.assert_same_bits(*(parameters(tmp_path / name, 0) for name in ("run", "whole")))


def test_other_seeds_give_other_runs(mbpo_run):
    arrays = tiny_runs.saved(mbpo_run).arrays
    for name in ("replay", "state"):
        leaves = [np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(arrays[s][name])]) for s in "012"]
        assert len({leaf.tobytes() for leaf in leaves}) == 3
    first = [tiny_runs.lines(mbpo_run, seed)[0]["train/return_mean"] for seed in (0, 1, 2)]
    kernels = [arrays[s]["state"]["agent"]["actor"]["params"]["_Mlp_0"]["Dense_0"]["kernel"].tobytes() for s in "012"]
    assert len(set(kernels)) == 3
    assert len(set(first)) > 1


# -- longer, stopped and killed ----------------------------------------------------------------------------------


def test_a_run_that_is_made_longer_is_the_long_run(alone, tmp_path):
    first = tiny_runs.train(tmp_path, seeds=1, num_steps=80)
    assert (first.finished, first.summary["step"]) == (True, 80)
    second = tiny_runs.train(tmp_path, seeds=1)
    assert (second.finished, second.summary["step"]) == (True, 160)
    tiny_runs.assert_same_run(tmp_path, alone)
    assert second.summary["compilations"] == 0  # what was restored fits the programs that this process has


def test_a_run_that_continues_in_another_process_compiles_nothing_that_was_not_compiled(alone, tmp_path):
    tiny_runs.train(tmp_path, seeds=1, num_steps=80)
    programs = set(os.listdir(jax.config.jax_compilation_cache_dir))
    setup.compile_programs.cache_clear()  # as another process has none
    second = tiny_runs.train(tmp_path, seeds=1)
    # all but what explores: init of state and buffer, act, add, evaluation; of roll-out: which program is first,
    # beginning, horizon step; update; of the fit: which program is first, beginning, slice, single minibatch, end of an
    # epoch
    assert second.summary["compilations"] == 14
    assert set(os.listdir(jax.config.jax_compilation_cache_dir)) == programs


def test_an_end_between_lines_of_metrics_changes_no_parameter_of_what_follows(alone, tmp_path):
    tiny_runs.train(tmp_path, seeds=1, num_steps=67)
    assert [line["step"] for line in tiny_runs.lines(tmp_path)][-2:] == [67, 67]  # metrics and evaluation of the end
    tiny_runs.train(tmp_path, seeds=1)
    tiny_runs.assert_same_bits(parameters(tmp_path, 1), parameters(alone, 1))
    assert tiny_runs.lines(tmp_path)[-2:] == tiny_runs.lines(alone)[-2:]


def test_a_finished_run_that_is_called_again_stays_as_it_is(alone, tmp_path):
    shutil.copytree(alone, tmp_path / "run")
    again = tiny_runs.train(tmp_path / "run", seeds=1)
    assert (again.finished, again.summary["step"]) == (True, 160)
    tiny_runs.assert_same_run(tmp_path / "run", alone)
    before = json.loads((alone / "summary.json").read_text())
    assert again.summary["seeds"] == before["seeds"]


def test_a_run_cannot_be_made_shorter(alone, tmp_path):
    run_dir = tmp_path / "run"
    shutil.copytree(alone, run_dir)
    with pytest.raises(ValueError, match="num_steps must be 160 or more.*got 100"):
        tiny_runs.train(run_dir, seeds=1, num_steps=100)
    config = json.loads((run_dir / "config.json").read_text())
    assert config["run"]["num_steps"] == 160  # a refused call leaves no trace
    tiny_runs.assert_same_run(run_dir, alone)


def interrupted(moment, number, run_dir, **environment):
    script = tiny_runs.__file__
    return tiny_runs.command(script, moment, number, *tiny_runs.argv(run_dir, seeds="0,1,2"), **environment)


def test_a_run_that_is_stopped_and_killed_ends_like_one_that_is_not(mbpo_run, tmp_path, monkeypatch, capsys):
    # asked to stop in the middle of the seeds' first fits
    with monkeypatch.context() as patched:
        for owner, name in ((PhaseRunner, "run"), (Checkpoints, "save")):
            patched.setattr(owner, name, getattr(owner, name))  # as it was, afterwards
        words = tiny_runs.argv(tmp_path, seeds="0,1,2")
        assert tiny_runs.main(["fit:60", "SIGINT", *words]) == EXIT_STOPPED
    assert capsys.readouterr() == ("", "mbpo_jax: stopped and saved; run the same command again to continue\n")
    saved = tiny_runs.saved(tmp_path)
    assert (saved.record["step"], saved.record["phase"]) == (60, 0)
    assert saved.record["phase_done"] == [False, False, False]
    fits = [saved.arrays[seed]["state"]["model"]["fit"] for seed in "012"]
    assert [(bool(fit["running"]), int(fit["num_steps"])) for fit in fits] == [(True, 3)] * 3
    assert json.loads((tmp_path / "summary.json").read_text())["step"] == 60
    # killed in the middle of the next fit: the step of the newest checkpoint is 80
    done = interrupted("fit:110", "SIGKILL", tmp_path)
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, "")
    assert tiny_runs.saved(tmp_path).record["step"] == 80
    # killed while a checkpoint is written: it is there or it is not
    done = interrupted("save:120", "SIGKILL", tmp_path, JAX_NUM_CPU_DEVICES="1")  # several before
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, "")
    assert tiny_runs.saved(tmp_path).record["step"] in (80, 120)
    assert tiny_runs.train(tmp_path, seeds="0,1,2").finished
    tiny_runs.assert_same_run(tmp_path, mbpo_run)


def test_a_stop_between_the_phases_of_a_step(alone, tmp_path, monkeypatch):
    run = PhaseRunner.run

    def run_and_hit(self, roots, step, *rest):
        if self.phase.name == "roll_out" and step == 110:
            os.kill(os.getpid(), signal.SIGTERM)
        return run(self, roots, step, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(PhaseRunner, "run", run_and_hit)
        stopped = tiny_runs.train(tmp_path, seeds=1)
    assert not stopped.finished
    record = tiny_runs.saved(tmp_path).record
    assert (record["step"], record["phase"]) == (110, 1)
    assert tiny_runs.train(tmp_path, seeds=1).finished
    tiny_runs.assert_same_run(tmp_path, alone)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL  # as it was before the runs


def stopped_at(monkeypatch, phase, step, run_dir, **changes):
    """Stops a run as the phase of a step begins; returns the record of what was saved."""
    run = PhaseRunner.run

    def run_and_hit(self, roots, at, *rest):
        if (self.phase.name, at) == (phase, step):
            os.kill(os.getpid(), signal.SIGTERM)
        return run(self, roots, at, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(PhaseRunner, "run", run_and_hit)
        assert not tiny_runs.train(run_dir, seeds=1, **changes).finished
    return tiny_runs.saved(run_dir).record


def test_a_second_stop_in_the_same_step_does_not_lose_what_was_done_since_the_first(alone, tmp_path, monkeypatch):
    places = [stopped_at(monkeypatch, phase, 110, tmp_path) for phase in ("fit_model", "roll_out", "update_agent")]
    assert [(place["step"], place["phase"]) for place in places] == [(110, 0), (110, 1), (110, 2)]
    assert {"110", "110.1", "110.2"} >= {path.name for path in (tmp_path / "checkpoints").iterdir()} - {"40", "80"}
    assert tiny_runs.train(tmp_path, seeds=1).finished
    tiny_runs.assert_same_run(tmp_path, alone)


def test_a_stop_that_nothing_happened_before_saves_nothing(tmp_path, monkeypatch):
    for _ in range(3):
        stopped_at(monkeypatch, "fit_model", 110, tmp_path)
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert {"80", "110"} <= names <= {"40", "80", "110"}  # 40 if it was the best


def test_metrics_of_a_fit_that_was_stopped_are_no_reason_for_warnings(tmp_path, monkeypatch):
    """Some are 0 until the fit has ended."""
    seen = []
    monkeypatch.setattr(metric_warnings, "find", lambda metrics, *_: seen.append(metrics) or {})
    stopped_at(monkeypatch, "fit_model", 60, tmp_path)  # the first phase of the run
    assert seen == []


@pytest.mark.parametrize("hit", [1, 2])
def test_a_stop_in_an_evaluation_is_answered_in_it(mbpo_run, tmp_path, monkeypatch, hit):
    """Stopped in the second evaluation, by whichever of the seeds' episodes is `hit`; told once, in the end."""
    begin, begun = Environment.reset, []

    def reset_and_hit(self, episode=None):
        if self._stream == EVALUATION:
            begun.append(episode)
            if len(begun) == 6 + hit:  # 3 seeds with 2 episodes each come before
                os.kill(os.getpid(), signal.SIGTERM)
                while signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:  # until the main thread has heard of it
                    time.sleep(0.01)
        return begin(self, episode)

    with monkeypatch.context() as patched:
        patched.setattr(Environment, "reset", reset_and_hit)
        assert not tiny_runs.train(tmp_path, seeds="0,1,2").finished
    record = tiny_runs.saved(tmp_path).record
    assert (record["step"], record["phase"]) == (80, 3)  # all phases are done, lines and evaluation are not
    assert max(line["step"] for line in tiny_runs.lines(tmp_path)) == 60
    assert tiny_runs.train(tmp_path, seeds="0,1,2").finished
    tiny_runs.assert_same_run(tmp_path, mbpo_run)
    manifests = [json.loads(path.read_text())["content"] for path in tmp_path.glob("checkpoints/*/manifest.json")]
    assert all(content["score"] is not None for content in manifests if content["record"]["phase"] is None)


@pytest.mark.parametrize("step", [80, 160])
def test_an_evaluation_that_a_stop_put_off_is_part_of_a_checkpoint(tmp_path, monkeypatch, step):
    """So that its checkpoint can be the best, and at the end of a run the same command has nothing left to do."""
    begin = Environment.reset

    def reset_and_hit(self, episode=None):
        if self._stream == EVALUATION and self.begun == step // 40 - 1 and episode == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        self.begun += episode == 1 and self._stream == EVALUATION
        return begin(self, episode)

    with monkeypatch.context() as patched:
        patched.setattr(Environment, "begun", 0, raising=False)
        patched.setattr(Environment, "reset", reset_and_hit)
        assert not tiny_runs.train(tmp_path, seeds=1, checkpoints_kept=99).finished
    assert tiny_runs.saved(tmp_path).record["phase"] == 3
    assert tiny_runs.train(tmp_path, seeds=1, checkpoints_kept=99).finished
    of_step = sorted(tmp_path.glob(f"checkpoints/{step}*/manifest.json"))
    scores = [json.loads(path.read_text())["content"]["score"] for path in of_step]
    assert len(scores) == 2 and scores[0] is None and scores[1] is not None
    before = (tmp_path / metrics.FILE_NAME).read_bytes()
    assert tiny_runs.train(tmp_path, seeds=1, checkpoints_kept=99).finished
    assert (tmp_path / metrics.FILE_NAME).read_bytes() == before
    assert sorted(tmp_path.glob(f"checkpoints/{step}*/manifest.json")) == of_step


def test_a_damaged_checkpoint_costs_time_and_no_numbers(alone, tmp_path, capsys):
    shutil.copytree(alone, tmp_path / "run")
    newest = tmp_path / "run" / "checkpoints" / "160"
    largest = max((path for path in newest.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 3] ^= 1
    largest.write_bytes(data)
    assert tiny_runs.train(tmp_path / "run", seeds=1).finished
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1  # although the run is quiet
    assert lines[0].startswith(f"mbpo_jax: checkpoint {newest} is passed over: ")
    assert lines[0].endswith(f"{largest.name} is damaged")
    tiny_runs.assert_same_run(tmp_path / "run", alone)
    assert (tmp_path / "run" / "checkpoints" / "160.1").is_dir()
    assert largest.read_bytes() == data  # the evidence stays


def test_lost_lines_of_metrics_are_made_again_from_an_older_checkpoint(alone, tmp_path, capsys):
    run_dir = tmp_path / "run"
    shutil.copytree(alone, run_dir)
    path = run_dir / metrics.FILE_NAME
    text = path.read_bytes()
    path.write_bytes(text[:-1])
    assert tiny_runs.train(run_dir, seeds=1).finished
    assert "160 is passed over" in capsys.readouterr().err
    tiny_runs.assert_same_run(run_dir, alone)
    path.write_bytes(b"{" + text[1:].replace(b'"step": 20', b'"step": 21'))
    with pytest.raises(StorageFailure, match=r"no checkpoint can be used.*metrics.jsonl is damaged"):
        tiny_runs.train(run_dir, seeds=1)
    path.unlink()
    with pytest.raises(StorageFailure, match=r"metrics.jsonl has 0 bytes, but the checkpoint has seen"):
        tiny_runs.train(run_dir, seeds=1)


def test_a_run_that_lost_its_checkpoints_is_not_overwritten(alone, tmp_path):
    run_dir = tmp_path / "run"
    shutil.copytree(alone, run_dir)
    shutil.rmtree(run_dir / "checkpoints")
    before = (run_dir / metrics.FILE_NAME).read_bytes()
    with pytest.raises(StorageFailure, match="has metrics up to step 160 but no checkpoint: restore"):
        tiny_runs.train(run_dir, seeds=1)
    assert (run_dir / metrics.FILE_NAME).read_bytes() == before


def test_a_kill_before_the_lines_of_a_run_without_checkpoints_are_cut_leaves_its_config(tmp_path, monkeypatch):
    """With the new interval in the config, its lines would look like those of a run that lost its checkpoints."""
    run, knobs = flags.parse(tiny_runs.argv(tmp_path, tiny_runs.SAC, checkpoint_every_steps=1000))
    run_json.write_config(tmp_path, run, knobs)
    with metrics.MetricsWriter(tmp_path) as writer:
        writer.write(500, 0, {})
    monkeypatch.setattr(loop, "MetricsWriter", None)  # calling it raises
    with pytest.raises(TypeError):
        tiny_runs.train(tmp_path, tiny_runs.SAC, checkpoint_every_steps=20)
    with ExitStack() as stack:
        assert ResumableDirectory(run, knobs, {}, stack).newest() is None


def test_a_lost_config_is_written_anew_since_checkpoints_know_the_run(alone, tmp_path, capsys):
    run_dir = tmp_path / "run"
    shutil.copytree(alone, run_dir)
    (run_dir / "config.json").write_text("{")
    with pytest.raises(StorageFailure, match="160 is passed over: it belongs to another run"):
        tiny_runs.train(run_dir, seeds=1, hidden_units=9)
    assert (run_dir / "config.json").read_text() == "{"
    assert tiny_runs.train(run_dir, seeds=1).finished
    assert "config.json: JSONDecodeError" in capsys.readouterr().err
    assert json.loads((run_dir / "config.json").read_text())["run"]["seeds"] == [1]
    tiny_runs.assert_same_run(run_dir, alone)


def test_a_changed_flag_that_may_change_is_reported(tmp_path, capsys):
    tiny_runs.train(tmp_path, tiny_runs.SAC, seeds=1, num_steps=10, quiet="false")
    assert "num_steps was" not in capsys.readouterr().err
    tiny_runs.train(tmp_path, tiny_runs.SAC, seeds=1, num_steps=20, checkpoints_kept=7, quiet="false")
    lines = capsys.readouterr().err.splitlines()
    assert "num_steps was 10, is 20" in lines
    assert "checkpoints_kept was 2, is 7" in lines


def test_two_processes_in_one_directory(tmp_path):
    with lock.locked(tmp_path):
        done = tiny_runs.command("-m", "mbpo_jax.main", *tiny_runs.argv(tmp_path, tiny_runs.SAC, seeds=1))
    assert (done.returncode, done.stdout) == (6, "")
    assert f"run_dir {tmp_path} is in use by process {os.getpid()} on " in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == [lock.FILE_NAME]


@pytest.mark.parametrize("eval_episodes", [1, 0])
def test_logging_evaluating_and_saving_do_not_change_what_is_learnt(alone, tmp_path, eval_episodes):
    changes = {"log_every_steps": 7, "eval_every_steps": 33, "checkpoint_every_steps": 150}
    result = tiny_runs.train(tmp_path, seeds=1, profile=3, eval_episodes=eval_episodes, **changes)
    tiny_runs.assert_same_bits(parameters(tmp_path, 1), parameters(alone, 1))
    assert (result.summary["seeds"]["1"]["final"] is None) == (eval_episodes == 0)
    lines = tiny_runs.lines(tmp_path)
    known = result.summary["seeds"]["1"].get("last", {}).get("train/return_mean")
    assert known == (
        None if eval_episodes else [line for line in lines if "train/return_mean" in line][-1]["train/return_mean"]
    )
    evaluated = [line["step"] for line in lines if "eval/return_mean" in line]
    assert evaluated == ([33, 66, 99, 132, 160] if eval_episodes else [])
    assert policy.policy_path(tmp_path, 1).exists()  # of the last evaluation, or of when it would have been


def test_a_running_episode_that_cannot_be_repeated_is_reported_and_given_up(tmp_path, capsys):
    knobs = {"env": "odd_worlds:odd/Drifts-v0", "max_episode_steps": 0, "quiet": "false", "seeds": 3}
    tiny_runs.train(tmp_path, tiny_runs.SAC, **knobs, num_steps=10)
    assert "did not repeat" not in capsys.readouterr().err
    tiny_runs.train(tmp_path, tiny_runs.SAC, **knobs, num_steps=20)
    assert "seed 3: env odd_worlds:odd/Drifts-v0 did not repeat its running episode" in capsys.readouterr().err
    rows = parameters(tmp_path, 3)["replay"]["rows"]
    times, starts = rows["obs"][:, 0].tolist(), rows["obs"][:, 1]
    assert times == [*range(10), *range(10)]  # the second call began a new episode
    assert len(set(starts[:10])) == len(set(starts[10:])) == 1  # and no row goes from one world to the other
    np.testing.assert_array_equal(rows["next_obs"][:, 1], starts)


# -- what a run stores -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def no_model(tmp_path_factory):
    """MBPO with real rows only, whose buffer has never wrapped."""
    run_dir = tmp_path_factory.mktemp("no_model") / "run"
    tiny_runs.train(run_dir, seeds=2, real_fraction=1, replay_capacity=1000, num_steps=100)
    return run_dir


def test_every_row_is_what_the_environment_did_and_a_time_limit_is_not_terminal(no_model):
    rows = parameters(no_model, 2)["replay"]["rows"]
    assert rows["reward"].shape == (100,)
    assert np.abs(rows["action"]).max() <= 1.0
    env = Environment("InvertedPendulum-v5", 2, max_episode_steps=5)
    obs, ends = env.reset(), []
    for i in range(100):
        np.testing.assert_array_equal(rows["obs"][i], obs)
        step = env.step(rows["action"][i])
        np.testing.assert_array_equal(rows["next_obs"][i], step.next_obs)
        assert rows["reward"][i] == step.reward
        assert rows["terminal"][i] == float(step.terminal)
        obs = step.next_obs
        if step.terminal or step.truncated:
            ends.append((step.terminal, step.truncated))
            obs = env.reset()
            assert not np.array_equal(obs, step.next_obs)
    env.close()
    assert {(True, False), (False, True)} <= set(ends)
    assert 0 < rows["terminal"].sum() < len(ends)


def test_training_returns_are_those_of_the_episodes_since_the_last_line(no_model):
    rows = parameters(no_model, 2)["replay"]["rows"]
    env = Environment("InvertedPendulum-v5", 2, max_episode_steps=5)
    env.reset()
    finished = {}
    for i in range(100):
        step = env.step(rows["action"][i])
        if step.terminal or step.truncated:
            finished.setdefault(20 * (i // 20 + 1), []).append(env.episode_return)
            env.reset()
    env.close()
    lines = [line for line in tiny_runs.lines(no_model) if "train/episodes" in line]
    assert [line["step"] for line in lines] == [20, 40, 60, 80, 100]
    assert {line["step"]: line["train/episodes"] for line in lines} == {k: len(v) for k, v in finished.items()}
    for line in lines:
        assert line["train/return_mean"] == pytest.approx(np.mean(finished[line["step"]]))


def test_without_imagined_rows_no_model_is_learnt(no_model):
    logged = {name for line in metrics.read(no_model / "metrics.jsonl") for name in line}
    assert not any(name.startswith(("fit_model", "roll_out")) for name in logged)
    assert not any(name in logged for name in ("seconds/fit_model", "seconds/roll_out"))
    last = [line for line in tiny_runs.lines(no_model) if "update_agent/q_mean" in line][-1]
    assert last["update_agent/real_row_fraction"] == 1.0
    state = parameters(no_model, 2)["state"]
    assert int(state["model"]["fit"]["num_steps"]) == 0
    assert int(state["imagined"]["num_added"]) == 0
    assert int(state["agent"]["num_updates"]) == 41  # one update at each of the steps 60 to 100


def test_sac_learns_from_real_rows(sac_run):
    arrays = parameters(sac_run, 1)
    assert arrays["replay"]["rows"]["obs"].shape == (100, 11)
    assert int(arrays["state"]["agent"]["num_updates"]) == 41
    logged = {name for line in tiny_runs.lines(sac_run) for name in line}
    assert {"update_agent/q_mean", "update_agent/temperature", "eval/return_mean"} <= logged
    assert not any(name.startswith(("fit_model", "roll_out")) for name in logged)


def test_exploration_is_uniform_and_ends_when_it_should(sac_run):
    actions = parameters(sac_run, 1)["replay"]["rows"]["action"]
    explored, num = actions[:60], 60 * 3
    assert explored.min() < -0.95
    assert explored.max() > 0.95
    assert abs(explored.mean()) < 4 * np.sqrt(1 / 3 / num)
    assert abs(explored.var() - 1 / 3) < 4 * np.sqrt(4 / 45 / num)
    assert len(np.unique(explored)) == num
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(1), acting.EXPLORE), 60)
    uniform = jax.random.uniform(key, (3,), minval=-1.0, maxval=1.0)
    assert not np.array_equal(actions[60], uniform)  # step 60 is the policy's
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(1), acting.EXPLORE), 59)
    np.testing.assert_array_equal(actions[59], jax.random.uniform(key, (3,), minval=-1.0, maxval=1.0))


# -- what a run tells --------------------------------------------------------------------------------------------

AFTER_A_FIT = {
    "fit_model/holdout_mse_per_member",
    "fit_model/elites",
    "fit_model/epochs",
    "roll_out/length",
    "roll_out/buffer_rows",
    "roll_out/model_reward_min",
    "roll_out/model_reward_max",
    "roll_out/real_reward_min",
    "roll_out/real_reward_max",
}
AFTER_AN_UPDATE = {f"update_agent/{name}" for name in ("real_row_fraction", "q_mean", "entropy", "temperature")}
ALWAYS = {"replay/rows", "compilations"}
SECONDS = {f"seconds/{n}" for n in ("env_step", "fit_model", "roll_out", "update_agent", "evaluate", "checkpoint")}


def test_metrics_hold_what_was_promised(mbpo_run):
    lines = metrics.read(mbpo_run / "metrics.jsonl")
    assert [(line["step"], line["seed"]) for line in lines if "replay/rows" in line] == [
        (step, seed) for step in range(20, 161, 20) for seed in (0, 1, 2)
    ]
    training = [line for line in lines if "replay/rows" in line and line["seed"] == 1]
    for line in training:
        assert ALWAYS <= set(line)
        assert (AFTER_AN_UPDATE <= set(line)) == (line["step"] >= 60)
        assert (AFTER_A_FIT <= set(line)) == (line["step"] in (60, 120, 160))  # fits at 60, 110 and 160
        assert not AFTER_A_FIT & set(line) or AFTER_A_FIT <= set(line)
    assert set(training[-1]) >= SECONDS
    evaluations = [line for line in lines if "eval/return_mean" in line]
    assert [(line["step"], line["seed"]) for line in evaluations] == [
        (step, seed) for step in (40, 80, 120, 160) for seed in (0, 1, 2)
    ]
    assert all({"eval/return_std", "eval/return_min", "eval/length_mean"} <= set(line) for line in evaluations)


def test_metrics_mean_what_they_say(mbpo_run):
    lines = {line["step"]: line for line in tiny_runs.lines(mbpo_run, seed=0) if "replay/rows" in line}
    assert [lines[step]["roll_out/length"] for step in (60, 120, 160)] == [1, 2, 3]
    # 64 starts, each of them so many steps unless it ends; in force: one epoch of such rollouts
    assert [lines[step]["roll_out/buffer_rows_limit"] for step in (60, 120, 160)] == [64, 128, 192]
    for step in (60, 120, 160):
        line = lines[step]
        assert 0 < line["roll_out/buffer_rows"] <= line["roll_out/buffer_rows_limit"]
        assert line["roll_out/model_reward_min"] <= line["roll_out/model_reward_mean"]
        assert line["roll_out/model_reward_mean"] <= line["roll_out/model_reward_max"]
        assert (line["roll_out/real_reward_min"], line["roll_out/real_reward_max"]) == (0.0, 1.0)
        mse, elites = line["fit_model/holdout_mse_per_member"], line["fit_model/elites"]
        assert elites == np.argsort(mse).tolist()[:2]
        assert line["fit_model/holdout_mse_elite_mean"] == pytest.approx(np.mean([mse[e] for e in elites]))
        assert line["fit_model/epochs"] == 2
    assert lines[160]["update_agent/real_row_fraction"] == 4 / 16
    assert [lines[step]["replay/rows"] for step in (20, 100, 120, 160)] == [20, 100, 100, 100]
    state = parameters(mbpo_run, 0)["state"]
    temperature = float(np.exp(state["agent"]["log_temperature"]["params"]))
    assert lines[160]["update_agent/temperature"] == pytest.approx(temperature, rel=1e-3)  # of one update before
    assert lines[160]["roll_out/buffer_rows"] == int(state["imagined"]["size"])


def test_seconds_and_compilations_only_grow(own_process):
    lines = [line for line in metrics.read(own_process / "metrics.jsonl") if "compilations" in line]
    for name in {*SECONDS, "compilations"}:
        values = [line[name] for line in lines if name in line]
        assert values == sorted(values)
        assert values[-1] > 0


def test_every_function_compiles_once_while_data_and_rollouts_grow(alone, own_process):
    # init of the state and of the buffer, explore, add, act, evaluation, update; of the roll-out: which program is
    # first, beginning, horizon step; of the fit: which is first, beginning, slice, single minibatch, end of an epoch
    assert json.loads((alone / "summary.json").read_text())["compilations"] == 15
    lines = [line for line in metrics.read(own_process / "metrics.jsonl") if "compilations" in line]
    by_step = {line["step"]: line["compilations"] for line in lines}
    assert by_step[20] < by_step[60] <= by_step[80]  # a warm-up: acting, evaluation, then the phases
    # then: rows 80 to 100 and the buffer wraps, rollouts of 2 and 3 steps, fits over more minibatches
    assert [by_step[step] for step in range(80, 161, 20)] == [by_step[80]] * 5


# -- what ends a run ---------------------------------------------------------------------------------------------


def test_a_failing_environment_ends_the_run_and_stores_nothing_of_the_step(tmp_path):
    knobs = {"env": "odd_worlds:odd/NanReward-v0", "max_episode_steps": 0, "checkpoint_every_steps": 1, "seeds": 6}
    knobs |= {"env_nonfinite_episodes": 0}
    with pytest.raises(EnvironmentFailure, match="reward nan, at step 4 of episode 1 .seed 6."):
        tiny_runs.train(tmp_path, tiny_runs.SAC, **knobs)
    saved = tiny_runs.saved(tmp_path)
    assert saved.record["step"] == 8  # five steps of episode 0, three of episode 1
    rows = saved.arrays["6"]["replay"]["rows"]
    assert rows["reward"].shape == (8,)
    assert all(np.isfinite(leaf).all() for leaf in rows.values())


def test_divergence_is_named_and_never_saved(tmp_path):
    # checkpoints are more frequent than lines of metrics, which is where it would show otherwise
    knobs = {"exploration_steps": 10, "checkpoint_every_steps": 1, "log_every_steps": 50, "seeds": 5}
    with pytest.raises(
        Diverged,
        match=r"update_agent: the temperature has exploded \(3e\+38\) at update 1 of environment step 10 \(seed 5\); "
        r"the newest checkpoint is from before\. .*--learning_rate",
    ):
        tiny_runs.train(tmp_path, tiny_runs.SAC, **knobs, initial_temperature=3e38)
    saved = tiny_runs.saved(tmp_path)
    assert saved.record["step"] == 9
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(saved.arrays["5"]))


def test_what_stopped_being_finite_unnoticed_is_not_saved(tmp_path, monkeypatch):
    """A number that no program looks at: Adam's second moment of one bias."""
    run = PhaseRunner.run

    def run_and_spoil(self, *given):
        (state,), metrics = run(self, *given)
        actor = state.agent.actor
        moments = jax.tree.map(lambda leaf: leaf.at[(0,) * leaf.ndim].set(np.nan), actor.opt_state[0].nu)
        opt_state = (actor.opt_state[0]._replace(nu=moments), *actor.opt_state[1:])
        return (state.replace(agent=state.agent.replace(actor=actor.replace(opt_state=opt_state))),), metrics

    monkeypatch.setattr(PhaseRunner, "run", run_and_spoil)
    with pytest.raises(
        Diverged, match=r"state/agent/actor/opt_state/0/nu/.* is not finite at step 60 \(seed 1\); the new"
    ):
        tiny_runs.train(tmp_path, tiny_runs.SAC, seeds=1, checkpoint_every_steps=20)
    assert tiny_runs.saved(tmp_path).record["step"] == 40


def test_knobs_of_another_algorithm_are_refused(tmp_path):
    _, sac_config = flags.parse(["--algorithm=sac"])
    with pytest.raises(ValueError, match="algorithm_config must be a MbpoConfig for mbpo, got ModelFreeConfig"):
        loop.train(RunConfig(run_dir=str(tmp_path / "run")), sac_config)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "knobs", [{"env": "CartPole-v1"}, {"env": "NoSuchThing-v0"}, {"termination_fn": "math:pi"}, {"env": "Unknown-v1"}]
)
def test_what_cannot_begin_leaves_no_directory(tmp_path, knobs):
    with pytest.raises(ValueError):
        tiny_runs.train(tmp_path / "run", **knobs)
    assert not (tmp_path / "run").exists()


def test_another_run_in_the_directory_is_refused_and_left_alone(alone, tmp_path):
    run_dir = tmp_path / "run"
    shutil.copytree(alone, run_dir)
    with pytest.raises(ValueError, match="holds another run: hidden_units was 8, is 9; seeds was .1,., is .4,."):
        tiny_runs.train(run_dir, seeds=4, hidden_units=9)
    assert (run_dir / "config.json").read_bytes() == (alone / "config.json").read_bytes()
    tiny_runs.assert_same_run(run_dir, alone)


def test_the_checkpoints_of_a_run_can_be_opened_while_it_is_over(alone):
    assert Checkpoints(alone, 2).restore_latest().record["step"] == 160
