"""Data sets that the command writes, read back with minari itself and compared with where their numbers come from."""

import json
import subprocess
import sys
import types
from pathlib import Path

import gymnasium
import minari
import numpy as np
import odd_worlds  # noqa: F401  (registers environments)
import pytest
import small_sets
import tiny_runs

from mbpo_jax import collect, load_policy
from mbpo_jax.data_sets.data_set import episode_returns, return_mean
from mbpo_jax.data_sets.read import read
from mbpo_jax.driver.interaction.spaces import Spaces
from mbpo_jax.driver.storage import checkpoint


def run(capsys, *words):
    """Status, output and error of a command line."""
    status = collect.main([str(word) for word in words])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def collected(capsys, out, *words):
    """The episodes of a data set as minari reads them, and our part of its metadata."""
    status, lines, err = run(capsys, *words, f"--out={out}")
    assert (status, err) == (0, "")
    described = [line for line in lines.splitlines() if not line.startswith("when it was made: ")]
    assert len(described) == 5 and lines.startswith(f"data set: {out} (Minari, ")
    data_set = minari.MinariDataset(out / "data")
    return list(data_set.iterate_episodes()), data_set.storage.metadata["mbpo_jax"]


def assert_played(episodes, env, seed, stream=2):
    """Every number of these episodes is what the environment itself gives for the actions."""
    for episode in episodes:
        entropy = np.random.SeedSequence([seed, stream, episode.id])
        obs, _ = env.reset(seed=int(entropy.generate_state(1)[0]))
        np.testing.assert_array_equal(episode.observations[0], obs.astype(np.float32))
        for i, action in enumerate(episode.actions):
            obs, reward, terminated, truncated, _ = env.step(action)
            np.testing.assert_array_equal(episode.observations[i + 1], obs.astype(np.float32))
            assert episode.rewards[i] == np.float32(reward)
            assert episode.terminations[i] == terminated
            is_last = i + 1 == len(episode.actions) and episode is episodes[-1]
            assert episode.truncations[i] == ((truncated or is_last) and not terminated)


def test_random_actions_and_every_number_of_them(tmp_path, capsys):
    out = tmp_path / "random-v0"
    words = ("--policy=random", "--env=InvertedPendulum-v5", "--num_steps=300", "--seed=3", "--max_episode_steps=6")
    episodes, own = collected(capsys, out, *words)
    assert sum(map(len, episodes)) == 300
    assert_played(episodes, gymnasium.make("InvertedPendulum-v5", max_episode_steps=6), seed=3)
    assert {bool(episode.truncations[-1]) for episode in episodes} == {True, False}
    actions = np.concatenate([episode.actions for episode in episodes])
    assert actions.dtype == np.float32 and 2.9 < np.abs(actions).max() <= 3.0 and abs(actions.mean()) < 0.4
    assert len(np.unique(actions)) == 300
    whole = [episode.rewards.sum() for episode in episodes if episode.terminations[-1] or len(episode) == 6]
    assert own["policy_return_mean"] == pytest.approx(np.mean(whole))
    assert (own["policy"], own["env"], own["seed"]) == ("random", "InvertedPendulum-v5", 3)
    assert {"python", "jax", "gymnasium", "mujoco", "minari", "h5py", "mbpo-jax"} <= own["versions"].keys()
    assert own["commit"] and own["command"].endswith(f"--max_episode_steps=6 --out={out}")
    env = minari.MinariDataset(out / "data").recover_environment()
    assert (env.spec.id, env.spec.max_episode_steps) == ("InvertedPendulum-v5", 6)


def test_what_was_written_is_read_as_it_was(tmp_path, capsys):
    out = tmp_path / "random-v0"
    episodes, _ = collected(capsys, out, "--policy=random", "--env=InvertedPendulum-v5", "--num_steps=150")
    data_set = read(str(out))
    assert (data_set.env_id, data_set.max_episode_steps) == ("InvertedPendulum-v5", 1000)
    np.testing.assert_array_equal(data_set.obs, np.concatenate([episode.observations[:-1] for episode in episodes]))
    np.testing.assert_array_equal(data_set.next_obs, np.concatenate([episode.observations[1:] for episode in episodes]))
    drawn = np.random.default_rng([0, 3, 0]).uniform(-1, 1, (len(episodes[0]), 1))
    np.testing.assert_allclose(data_set.action[: len(drawn)], drawn, atol=1e-6)


def test_the_same_command_elsewhere_collects_a_data_set_of_the_same_sum(tmp_path, capsys):
    """So that results on it can be continued where its files are not, as docs/offline.md says."""
    words = "--policy=random", "--env=InvertedPendulum-v5", "--num_steps=150"
    outs = tmp_path / "a-v0", tmp_path / "b-v0"
    commands = [collected(capsys, out, *words)[1]["command"] for out in outs]
    assert commands[0] != commands[1]
    assert read(str(outs[0])).sha256 == read(str(outs[1])).sha256


def test_minari_finds_it_by_its_id(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    collected(capsys, tmp_path / "here/random-v0", "--policy=random", "--env=odd/World-v0", "--num_steps=100")
    assert list(minari.list_local_datasets()) == ["here/random-v0"]
    assert minari.load_dataset("here/random-v0").total_steps == 100
    assert len(read("here/random-v0").reward) == 100


# -- of a run ----------------------------------------------------------------------------------------------------


def test_replay_is_what_the_agent_had_seen(mbpo_run, tmp_path, capsys):
    words = (mbpo_run, "--policy=replay", "--agent_seed=1")
    episodes, own = collected(capsys, tmp_path / "medium-replay-v0", *words)
    buffer = tiny_runs.saved(mbpo_run).arrays["1"]["replay"]
    rows = buffer["rows"]
    np.testing.assert_array_equal(np.concatenate([e.observations[:-1] for e in episodes]), rows["obs"])
    np.testing.assert_array_equal(np.concatenate([e.observations[1:] for e in episodes]), rows["next_obs"])
    np.testing.assert_allclose(np.concatenate([e.actions for e in episodes]), 3 * rows["action"], atol=1e-6)
    np.testing.assert_array_equal(np.concatenate([e.rewards for e in episodes]), rows["reward"])
    np.testing.assert_array_equal(np.concatenate([e.terminations for e in episodes]), rows["terminal"] > 0)
    begins = np.cumsum([0, *map(len, episodes)])[:-1]
    np.testing.assert_array_equal(begins[1:], np.flatnonzero(buffer["first"][1:]) + 1)
    assert all(e.truncations[-1] != e.terminations[-1] for e in episodes)
    assert (own["policy"], own["agent_seed"], own["run_dir"]) == ("replay", 1, str(mbpo_run))
    assert own["notes"] == ["the oldest 60 rows of seed 1 had been replaced"]


@pytest.mark.parametrize("which", ["last", "best"])
def test_a_policy_without_noise_acts_as_the_saved_one(which, mbpo_run, tmp_path, capsys):
    words = (mbpo_run, f"--policy={which}", "--num_steps=100", "--deterministic", "--agent_seed=2", "--seed=5")
    episodes, own = collected(capsys, tmp_path / "expert-v0", *words)
    assert_played(episodes, gymnasium.make("InvertedPendulum-v5", max_episode_steps=5), seed=5)
    policy = load_policy(mbpo_run, 2, best=which == "best")
    for episode in episodes[:5]:
        for obs, action in zip(episode.observations, episode.actions):
            np.testing.assert_allclose(action, policy(obs), atol=1e-6)
    assert own["step"] == (160 if which == "last" else None) and own["deterministic"] is True
    assert own["algorithm"] == "mbpo"


def test_medium_data_are_of_the_first_checkpoint_with_a_third_of_the_best_return(tmp_path, capsys):
    run_dir = tmp_path / "run"
    often = {"eval_every_steps": 20, "checkpoint_every_steps": 20, "checkpoints_kept": 9, "max_episode_steps": 100}
    tiny_runs.train(run_dir, tiny_runs.SAC, seeds=2, **often)
    lines = tiny_runs.lines(run_dir)
    returns = {20: 9.0, 40: 80.0, 60: 40.0, 80: 90.0, 100: 70.0}  # a third of 90 is 30, two thirds are 60
    for line in lines:
        if "eval/return_mean" in line:
            line["eval/return_mean"] = returns[line["step"]]
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ("--num_steps=60", "--seed=2")
    episodes, own = collected(capsys, tmp_path / "medium-v0", run_dir, "--policy=medium", *words)
    assert own["step"] == 60
    same, _ = collected(capsys, tmp_path / "same-v0", run_dir, "--policy=last", "--step=60", *words)
    for medium, last in zip(episodes, same, strict=True):
        np.testing.assert_array_equal(medium.actions, last.actions)
    episodes, own = collected(capsys, tmp_path / "medium-replay-v0", run_dir, "--policy=medium-replay")
    assert own["step"] == 60
    seen = checkpoint.load(run_dir, 60).arrays["2"]["replay"]["rows"]["obs"][:60]
    np.testing.assert_array_equal(np.concatenate([e.observations[:-1] for e in episodes]), seen)


def test_a_policy_with_its_noise_is_repeated_by_its_seed(mbpo_run, tmp_path, capsys):
    words = (mbpo_run, "--policy=last", "--num_steps=100")
    one, own = collected(capsys, tmp_path / "a-v0", *words)
    again, _ = collected(capsys, tmp_path / "b-v0", *words)
    for first, second in zip(one, again, strict=True):
        np.testing.assert_array_equal(first.actions, second.actions)
    assert_played(one, gymnasium.make("InvertedPendulum-v5", max_episode_steps=5), seed=0)
    policy = load_policy(mbpo_run, 0)
    noise = np.concatenate([e.actions - np.stack([policy(obs) for obs in e.observations[:-1]]) for e in one])
    assert noise.std() > 0.05 and len(np.unique(noise)) > 95
    assert own["deterministic"] is False


def test_a_mixture_is_one_after_the_other(mbpo_run, tmp_path, capsys):
    parts = [tmp_path / "medium-v0", tmp_path / "expert-v0"]
    of_part = []
    for part, seed in zip(parts, (1, 2)):
        words = ("--policy=random", "--env=InvertedPendulum-v5", "--num_steps=100", f"--seed={seed}")
        of_part.append(collected(capsys, part, *words)[0])
    episodes = [*of_part[0], *of_part[1]]
    mixed, own = collected(capsys, tmp_path / "medium-expert-v0", "--mix", *parts)
    assert len(mixed) == len(episodes)
    for mine, wanted in zip(mixed, episodes):
        for name in ("observations", "rewards", "terminations", "truncations"):
            np.testing.assert_array_equal(getattr(mine, name), getattr(wanted, name))
        np.testing.assert_allclose(mine.actions, wanted.actions, atol=1e-6)
    whole = [[episode for episode in some if episode.terminations[-1]] for some in of_part]  # the last may be cut off
    returns = [np.mean([episode.rewards.sum() for episode in some]) for some in whole]
    assert own["sources"] == [
        {"name": str(p), "rows": 100, "sha256": read(str(p)).sha256, "return_mean": pytest.approx(mean)}
        for p, mean in zip(parts, returns)
    ]
    assert not of_part[0][-1].terminations[-1]  # the first part ends within an episode, which the mean leaves out
    mean = np.mean([episode.rewards.sum() for some in whole for episode in some])
    assert own["policy_return_mean"] == pytest.approx(mean)
    assert return_mean(read(str(tmp_path / "medium-expert-v0"))) == (pytest.approx(mean), sum(map(len, whole)))
    collected(capsys, tmp_path / "other-v0", "--policy=random", "--env=odd/World-v0", "--num_steps=100")
    status, _, err = run(capsys, "--mix", parts[0], tmp_path / "other-v0", f"--out={tmp_path / 'no-v0'}")
    assert status == 2 and "--mix must name data sets of one environment, got the" in err


def sum_of(obs, action, next_obs):
    return obs[:, 0] + 10.0 * action[:, 0] + 100.0 * next_obs[:, 0]


def test_a_data_set_gets_another_reward(tmp_path, capsys, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    words = ("--policy=random", "--env=InvertedPendulum-v5", "--num_steps=60")  # whose actions are in [-3, 3]
    before, _ = collected(capsys, tmp_path / "before-v0", *words)
    mix = ("--mix", tmp_path / "before-v0")
    after, own = collected(capsys, tmp_path / "after-v0", *mix, f"--reward_fn={__name__}:sum_of")
    assert own["reward_fn"] == f"{__name__}:sum_of"
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(new.observations, old.observations)
        paid = sum_of(old.observations[:-1], old.actions, old.observations[1:])
        np.testing.assert_allclose(new.rewards, paid, rtol=1e-4, atol=1e-5)
    for name, got in (("nowhere:f", "ModuleNotFoundError"), ("math:pi", "TypeError"), ("numpy:stack", "TypeError")):
        status, _, err = run(capsys, *mix, f"--reward_fn={name}", f"--out={tmp_path / 'no-v0'}")
        assert status == 2 and f"got '{name}' ({got}" in err and len(err.splitlines()) == 1


@pytest.mark.parametrize(("flag", "policy"), [("agent_seed", "last"), ("agent_seed", "replay"), ("step", "last")])
def test_an_agent_or_checkpoint_that_is_not_there_is_a_wrong_flag(flag, policy, mbpo_run, tmp_path, capsys):
    words = [f"--policy={policy}", f"--{flag}=7", f"--out={tmp_path / 'no-v0'}"]
    status, _, err = run(capsys, mbpo_run, *words, *(["--num_steps=9"] if policy == "last" else []))
    assert status == 2 and f"error: --{flag} must be " in err and "got 7" in err


@pytest.mark.parametrize(("low", "high", "recorded"), [(0, 2, [0, 1, 2]), (-128, 127, [-128, 0, 127])])
def test_a_reward_function_gets_the_whole_numbers_that_were_recorded(low, high, recorded, tmp_path, monkeypatch):
    low, high = np.array([low], np.int8), np.array([high], np.int8)
    action = np.array(recorded, np.int8)[:, None].repeat(50, axis=0)
    arrays = small_sets.columns(lengths=(150,), ends="t") | {"actions": action}
    found = read(small_sets.npz(tmp_path / "whole.npz", arrays), low, high)
    changed, _ = collect.relabelled(found, {}, f"{__name__}:first_action")
    np.testing.assert_array_equal(changed.reward, action[:, 0])


def test_a_return_whose_last_reward_was_left_out_is_not_known_after_the_rewards_have_changed(tmp_path):
    arrays = small_sets.without(small_sets.columns(lengths=(40, 60), ends="tl"), "next_observations")
    found = read(small_sets.npz(tmp_path / "short.npz", arrays))
    np.testing.assert_array_equal(episode_returns(found)[1], [True, True])
    changed, _ = collect.relabelled(found, {}, f"{__name__}:first_action")
    np.testing.assert_array_equal(episode_returns(changed)[1], [True, False])


def first_action(obs, action, next_obs):
    return action[:, 0]


def test_the_first_rows_of_a_part_begin_an_episode(mbpo_run, tmp_path, capsys):
    """The oldest rows of this run had been replaced, in the middle of an episode."""
    mixed, _ = collected(capsys, tmp_path / "mixed-v0", "--mix", mbpo_run, mbpo_run)
    begins = np.cumsum([0, *map(len, mixed)])
    assert {0, 100, 200, 300, 400, 500, 600} <= set(begins.tolist())
    of_run = episode_returns(read(str(mbpo_run)))[1].tolist()
    assert episode_returns(read(str(tmp_path / "mixed-v0")))[1].tolist() == of_run + of_run
    assert of_run.count(False) >= 3


# -- files -------------------------------------------------------------------------------------------------------

RANDOM = ("--policy=random", "--env=odd/World-v0", "--num_steps=100")


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_mixture_remembers_which_ends_have_no_successor_and_which_rewards_it_loses(tmp_path, capsys):
    """Minari needs an observation after the end; the row's own stands in for it, and must not be learnt as a change."""
    tiny_runs.write_data_set(tmp_path / "whole.npz", largest_action=1.0)
    with np.load(tmp_path / "whole.npz") as stored:
        np.savez(tmp_path / "short.npz", **{name: stored[name] for name in stored if name != "next_observations"})
    given, out = read(str(tmp_path / "short.npz")), tmp_path / "mixed-v0"
    _, own = collected(capsys, out, "--mix", tmp_path / "short.npz")
    found = read(str(out))
    assert found.has_successor.sum() == len(found.reward) - 8
    np.testing.assert_array_equal(found.has_successor, given.has_successor)
    assert own["policy_return_mean"] == pytest.approx(return_mean(given)[0])  # of the policy, all rewards counted
    assert return_mean(found)[0] != pytest.approx(return_mean(given)[0])
    assert "7 episodes lose their last reward" in own["notes"][-1]
    metadata = json.loads((out / "data/metadata.json").read_text())
    assert "None" not in metadata["description"] and metadata["requirements"] == []


def test_a_data_set_is_replaced_only_where_it_is_said(tmp_path, capsys):
    out = tmp_path / "random-v0"
    collected(capsys, out, *RANDOM)
    before = contents(out)
    status, _, err = run(capsys, *RANDOM, "--seed=1", f"--out={out}")
    assert status == 2 and contents(out) == before
    refused = f"--out must be a new folder, got '{out}', where a data set exists; --overwrite replaces it"
    assert err == f"mbpo_jax: error: {refused}\n"
    collected(capsys, out, *RANDOM, "--seed=1", "--overwrite")
    assert contents(out) != before
    assert [path.name for path in tmp_path.iterdir()] == ["random-v0"]
    (tmp_path / "mine-v0").mkdir()
    (tmp_path / "mine-v0/thesis.txt").write_text("all of it")
    status, _, err = run(capsys, *RANDOM, f"--out={tmp_path / 'mine-v0'}", "--overwrite")
    assert status == 2 and "which holds something other than a data set" in err
    assert (tmp_path / "mine-v0/thesis.txt").read_text() == "all of it"


def test_a_kill_in_the_middle_leaves_nothing_that_passes_for_a_data_set(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    out = tmp_path / "random-v0"
    collected(capsys, out, *RANDOM)
    before = contents(out)
    code = f"""
import os, pathlib, signal, sys
from mbpo_jax.data_sets import read, write
out = pathlib.Path({str(out)!r})
data_set = read.read(str(out))
def kill(*unused):
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[1] == "writing":
    write.files.sync = kill
else:
    write.os.rename = kill
write.write(out, data_set, {{}}) if sys.argv[1] == "replacing" else write.write(out.with_name("new-v0"), data_set, {{}})
"""
    for moment in ("writing", "renaming", "replacing"):
        ended = subprocess.run([sys.executable, "-c", code, moment], capture_output=True, text=True)
        assert ended.returncode == -9, ended.stderr
        assert not (tmp_path / "new-v0").exists() and contents(out) == before
        assert list(minari.list_local_datasets()) == ["random-v0"]
        with pytest.raises(ValueError, match="must be a file, a folder, or the id"):
            read("new-v0")
    collected(capsys, tmp_path / "new-v0", *RANDOM)
    collected(capsys, out, *RANDOM, "--seed=1", "--overwrite")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new-v0", "random-v0"]


def test_long_collecting_says_how_far_it_is(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(collect, "REPORT_EVERY_S", -1)
    status, _, err = run(capsys, *RANDOM, f"--out={tmp_path / 'x-v0'}")
    assert status == 0 and err.splitlines()[42] == "collected 42 of 100 steps"


def test_an_environment_that_fails_leaves_nothing(tmp_path, capsys):
    status, _, err = run(
        capsys, "--policy=random", "--env=odd/Stuck-v0", "--num_steps=100", f"--out={tmp_path / 'x-v0'}"
    )
    assert status == 5 and "Stuck-v0" in err
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(tmp_path, capsys):
    with tiny_runs.full_disk(4096):
        status, _, err = run(capsys, *RANDOM, f"--out={tmp_path / 'x-v0'}")
    assert status == 6 and len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


# -- flags -------------------------------------------------------------------------------------------------------

OUT = "--out=somewhere/new-v0"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ((OUT,), "either --policy=random|last|best|medium|replay|medium-replay or --mix must be given"),
        (("--policy=random", "--mix", "a", OUT), "either --policy"),
        (("--policy=random", "--env=odd/World-v0", OUT), "--num_steps must be given with --policy=random"),
        (("--policy=random", "--num_steps=9", OUT), "--env must be given with --policy=random"),
        (("--policy=last", "--num_steps=9", OUT), "RUN_DIR must be given with --policy=last"),
        (("nowhere", "--policy=replay", OUT), "RUN_DIR must be the directory of a run, got 'nowhere'"),
        (("nowhere", "--policy=replay", "--num_steps=9", OUT), "--num_steps is not read with --policy=replay, got 9"),
        (("nowhere", "--policy=best", "--step=9", "--num_steps=9", OUT), "--step is not read with --policy=best"),
        (("--mix", "a", "b", "--seed=0", OUT), "--seed is not read with --mix"),
        (("--mix", "a", "b", OUT), "dataset 'a': it must be a file, a folder, or the id"),
        (
            ("--policy=random", "--env=odd/World-v0", "--num_steps=0", OUT),
            "--num_steps: must be a whole number, 1 or more",
        ),
        (("--policy=random", "--env=odd/World-v0", "--num_steps=9"), "required: --out"),
        (
            ("--policy=random", "--env=odd/World-v0", "--num_steps=9", "--seed=2147483648", OUT),
            "--seed: must be at most 2147483647, got '2147483648'",
        ),
        (("--policy=expert", OUT), "--policy: invalid choice: 'expert'"),
        (("nowhere", "--policy=medium", "--step=9", "--num_steps=9", OUT), "--step is not read with --policy=medium"),
        (("nowhere", "--policy=medium-replay", "--step=9", OUT), "--step is not read with --policy=medium-replay"),
        ((*RANDOM, "--out=somewhere/new"), "--out must be a folder whose name ends in a version"),
        (("--policy=random", "--env=odd/Wrld-v0", "--num_steps=9", OUT), "--env must be an installed Gymnasium id"),
    ],
)
def test_wrong_flags_are_one_line(words, reason, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "none"))
    status, out, err = run(capsys, *words)
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1 and err.startswith("mbpo_jax: error: ") and reason in err


def test_more_steps_than_fit_the_memory_are_refused_before_the_first():
    env = types.SimpleNamespace(obs_dim=10**6, action_dim=1, spaces=Spaces(10**6, np.zeros(1), np.ones(1), 5))
    with pytest.raises(ValueError, match=r"^num_steps must be so few that their rows fit the memory, got 2147483647"):
        collect.play(env, acts=None, num_steps=2**31 - 1, env_id="Large-v0")


def test_what_the_data_set_says_of_its_command_can_be_typed_again(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/mbpo_jax"])
    out = tmp_path / "a folder/x-v0"
    own = collected(capsys, out, *RANDOM)[1]
    assert own["command"] == f"mbpo_jax collect {' '.join(RANDOM)} '--out={out}'"
    assert json.loads((out / "data/metadata.json").read_text())["dataset_id"] == "x-v0"
