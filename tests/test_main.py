"""What a run leaves and prints, and the status and the line with which a wrong or failing one ends."""

import json
import re
import shutil
from pathlib import Path

import pytest

import mbpo_jax
from main_calls import arguments, python
from mbpo_jax.driver.config import Broken
from mbpo_jax.driver.interaction import task
from mbpo_jax.driver.loop import Result
from mbpo_jax.launch import flags
from mbpo_jax.main import main, summary_text
from mbpo_jax.types import Spec


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(run directory, what was printed) of a run that went through."""
    run_dir = tmp_path_factory.mktemp("main") / "run"
    process = python("-m", "mbpo_jax.main", *arguments(run_dir))
    stdout, stderr = process.communicate(timeout=240)
    assert process.returncode == 0, stderr
    return run_dir, stdout, stderr


# -- a run that goes through -------------------------------------------------------------------------------------


def test_a_run_leaves_its_files(finished):
    run_dir, _, _ = finished
    left = {".lock", "config.json", "metrics.jsonl", "checkpoints", "curves.png", "summary.json", "policies"}
    assert {path.name for path in run_dir.iterdir()} == left
    assert {path.name for path in (run_dir / "policies").iterdir()} == {
        f"seed_{seed}{best}.npz" for seed in (1, 2) for best in ("", "_best")
    }
    checkpoints = {path.name for path in (run_dir / "checkpoints").iterdir()}
    assert {"80", "100"} <= checkpoints <= {"40", "80", "100"}  # 40 if its evaluation was the best
    assert (run_dir / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((run_dir / "config.json").read_text())["run"]["seeds"] == [1, 2]


def test_a_run_prints_what_came_out_and_where_it_is(finished):
    run_dir, stdout, stderr = finished
    summary = json.loads((run_dir / "summary.json").read_text())
    lines = stdout.splitlines()
    assert lines[0] == "sac on Hopper-v5: 100 of 100 steps per seed"
    for line, seed in zip(lines[1:3], ("1", "2"), strict=True):
        final, best = summary["seeds"][seed]["final"], summary["seeds"][seed]["best"]
        assert line == (
            f"  seed {seed}: final return {final['return_mean']:.1f}; best {best['return_mean']:.1f} "
            f"at step {best['step']}"
        )
    assert re.fullmatch(r"  \d+\.\d steps/s per seed, \d+ s in this call", lines[3])
    assert {line.split()[0] for line in lines[4:-1]} == {"env_step", "update_agent", "evaluate", "checkpoint"}
    assert lines[-1] == f"  curve {run_dir}/curves.png, policies {run_dir}/policies"
    assert stderr.startswith("mbpo_jax: starting\n")
    assert stderr.count("evaluation return") == 2 * 3
    assert re.search(r"^step \d+/100  \d+%  ", stderr, re.MULTILINE)


def test_quiet_prints_nothing(finished, tmp_path, capsys):
    run_dir = tmp_path / "run"
    shutil.copytree(finished[0], run_dir)
    assert main([*arguments(run_dir, num_steps=105), "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert json.loads((run_dir / "summary.json").read_text())["step"] == 105


@pytest.mark.parametrize("flag", ["--help", "-h", "-help", "--h"])
def test_help_is_printed_and_ends_well(capsys, flag):
    assert main([flag]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for words in ("usage: python -m mbpo_jax.main", "  mbpo  ", "  sac   ", "--rollout_batch", "--seeds", "--flagfile"):
        assert words in out


# -- what cannot begin -------------------------------------------------------------------------------------------


def refusal(capsys, argv, status=2):
    """The one line that says why a command line is refused."""
    assert main(argv) == status
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[0] == "mbpo_jax: starting"
    assert len(lines) == 2
    assert lines[1].startswith("mbpo_jax: error: ")
    return lines[1]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--env=NoSuchThing-v0"], ["--env must be an installed Gymnasium id", "'NoSuchThing-v0'"]),
        (["--env=CartPole-v1"], ["env must have continuous (Box) actions", "'CartPole-v1'", "Discrete(2)"]),
        (
            ["--env=MountainCarContinuous-v0"],
            ["termination_fn is not known", "--termination_fn=package.module:function"],
        ),
        (["--termination_fn=no_such_module:f"], ["--termination_fn must be", "'no_such_module:f'"]),
        (["--flagfile=/no/such.flags"], ["/no/such.flags", "No such file"]),
        (["--nonsense=5"], ["'nonsense'", "--help"]),
        (["--num_steps=many"], ["--num_steps=many", "a whole number"]),
        (["--algorithm=sac", "--rollout_batch=10"], ["--rollout_batch=10 is not read by --algorithm=sac"]),
        (["stray"], ["'stray'", "--flag=value"]),
    ],
)
def test_a_wrong_call_ends_with_2_and_one_line(capsys, tmp_path, monkeypatch, argv, words):
    monkeypatch.chdir(tmp_path)
    line = refusal(capsys, argv)
    for word in words:
        assert word in line
    assert list(tmp_path.iterdir()) == []


def test_the_status_and_the_line_are_those_of_the_process():
    process = python("-m", "mbpo_jax.main", "--env=CartPole-v1", "--quiet")
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (2, "")
    assert re.fullmatch(r"mbpo_jax: error: --env must have continuous .* 'CartPole-v1' .*\n", err)


def test_a_changed_knob_does_not_resume(finished, capsys):
    before = (finished[0] / "config.json").read_bytes()
    line = refusal(capsys, arguments(finished[0], hidden_units=9, eval_episodes=3, num_steps=200))
    assert line.startswith("mbpo_jax: error: --run_dir '")
    assert "eval_episodes was 2, is 3; hidden_units was 8, is 9." in line
    assert str(finished[0]) in line
    assert (finished[0] / "config.json").read_bytes() == before


def test_a_summary_names_only_what_is_there(tmp_path):
    seeds = {"0": {"final": None, "best": None}}
    summary = {"algorithm": "sac", "env": "X", "step": 7, "num_steps": 100, "seeds": seeds}
    summary |= {"env_steps_per_second": 1.0, "seconds_per_phase": {}}
    text = summary_text(Result(tmp_path, summary, False), 1.0)
    assert text.splitlines()[-1] == "  nothing was saved yet"
    (tmp_path / "checkpoints").mkdir()
    text = summary_text(Result(tmp_path, summary, False), 1.0)
    assert text.splitlines()[-1] == f"  not evaluated; checkpoints {tmp_path / 'checkpoints'}"
    (tmp_path / "policies").mkdir()  # as of a run without an environment
    text = summary_text(Result(tmp_path, summary, False), 1.0)
    wanted = f"policies {tmp_path / 'policies'}, checkpoints {tmp_path / 'checkpoints'}"
    assert text.splitlines()[-1] == f"  not evaluated; {wanted}"
    (tmp_path / "curves.png").touch()
    assert summary_text(Result(tmp_path, summary, False), 1.0) == text  # it shows returns, of which there are none
    seeds["0"]["last"] = {"eval/start_value_mean": 2.5}  # as of an offline run
    lines = summary_text(Result(tmp_path, summary, False), 1.0).splitlines()
    assert lines[1] == "  seed 0: critics' value at the data's first states 2.5; returns are unknown: not evaluated"
    assert lines[-1] == f"  not evaluated; curves {tmp_path / 'curves.png'}, {wanted}"


def test_a_version_that_was_left_out_is_named(capsys):
    assert "rules are known for HalfCheetah-v4, HalfCheetah-v5" in refusal(capsys, ["--env=HalfCheetah"])


@pytest.mark.parametrize(
    ("recorded_in", "hint"),
    [
        ("Hopper-v5", "the rule of Hopper-v5, where the data were recorded, is mbpo_jax.terminations:hopper"),
        ("Unknown-v0", "(env 'none')"),
        (None, "(env 'none')"),
    ],
)
def test_a_run_from_data_alone_is_told_the_rule_of_where_they_were_recorded(recorded_in, hint):
    run, config = flags.parse(["--algorithm=mopo", "--dataset=rows.npz", "--env=none", "--run_dir=run"])
    with pytest.raises(ValueError, match="termination_fn is not known") as error:
        task.build(run, config, Spec(11, 3), recorded_in)
    assert str(error.value).endswith(f"{hint})" if recorded_in == "Hopper-v5" else hint)


# -- what goes wrong later ---------------------------------------------------------------------------------------


def test_divergence_ends_with_4(capsys, tmp_path):
    argv = [*arguments(tmp_path, initial_temperature=3e38, exploration_steps=10, num_steps=60), "--quiet"]
    assert main(argv) == 4
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(
        r"mbpo_jax: error: .* has exploded .* at update 1 of environment step 10 .* --learning_rate .*\n", err
    )


def test_a_failing_environment_ends_with_5(capsys, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent / "driver")
    argv = arguments(
        tmp_path, env="odd_worlds:odd/NanReward-v0", max_episode_steps=0, seeds=1, env_nonfinite_episodes=0
    )
    assert main([*argv, "--quiet"]) == 5
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"mbpo_jax: error: environment odd_worlds:odd/NanReward-v0 returned .* reward nan, .*\n", err)


def test_a_directory_that_cannot_be_used_ends_with_6(capsys, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert str(tmp_path / "file") in refusal(capsys, arguments(tmp_path / "file"), status=6)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    assert "cannot read " in refusal(capsys, arguments(tmp_path / "run"), status=6)


@pytest.mark.parametrize("trace", ["Traceback (most recent call last):\n  its own\nOSError: it broke\n", None])
def test_the_traceback_of_an_environment_comes_before_the_line(capsys, monkeypatch, trace):
    def fail(argv):
        error = Broken("environment X raised OSError: it broke")
        error.environment_traceback = trace
        raise error

    monkeypatch.setattr(flags, "parse_with_notes", fail)
    assert main(["--quiet"]) == 5
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"{trace or ''}mbpo_jax: error: environment X raised OSError: it broke\n"


# -- the package -------------------------------------------------------------------------------------------------

LIGHT_IMPORT = """
import sys
import mbpo_jax
heavy = [name for name in ("jax", "jaxlib", "flax", "optax", "gymnasium", "mujoco", "numpy") if name in sys.modules]
assert not heavy, heavy
assert mbpo_jax.__version__
for name in mbpo_jax.__all__:
    assert getattr(mbpo_jax, name).__name__ == name, name
assert "jax" in sys.modules
"""


def test_importing_the_package_is_light_and_its_names_resolve():
    process = python("-c", LIGHT_IMPORT)
    assert process.communicate(timeout=120) == ("", "")
    assert process.returncode == 0


def test_a_name_that_is_not_public_is_no_attribute():
    with pytest.raises(AttributeError, match="'mbpo_jax' has no attribute 'Trainer'"):
        mbpo_jax.Trainer  # noqa: B018
