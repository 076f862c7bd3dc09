"""A model that another run has fitted, in place of a fit: every number is as with a fit."""

import json
import os
import shutil
import signal

import pytest
import tiny_runs

from mbpo_jax.driver.phase_runner import PhaseRunner


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny_runs.write_data_set(tmp_path_factory.mktemp("data") / "rows.npz")


@pytest.fixture(scope="module")
def fitted(data, tmp_path_factory):
    """Directory of a run of two seeds that fitted its models."""
    run_dir = tmp_path_factory.mktemp("fitted")
    assert tiny_runs.train(run_dir, tiny_runs.MOPO, dataset=data, seeds="0,1").finished
    return run_dir


def test_a_run_that_takes_a_model_is_the_run_that_fits_it(fitted, data, tmp_path):
    tiny_runs.train(tmp_path, tiny_runs.MOPO, dataset=data, seeds="0,1", fitted_model=fitted)
    tiny_runs.assert_same_run(tmp_path, fitted)


def test_batched_seeds_take_a_model_each(fitted, data, tmp_path):
    knobs = tiny_runs.MOPO | {"dataset": data, "seeds": "1,0", "seed_lifting": "vmap", "num_steps": 5}
    tiny_runs.train(tmp_path, knobs, fitted_model=fitted)
    for seed in ("0", "1"):
        ours, theirs = (tiny_runs.saved(path).arrays[seed]["state"]["model"] for path in (tmp_path, fitted))
        tiny_runs.assert_same_bits(ours, theirs)


def test_a_run_with_another_agent_and_penalty_takes_the_model_of_its_seed_and_resumes(fitted, data, tmp_path):
    knobs = tiny_runs.MOPO | {"dataset": data, "seeds": 1, "penalty": "none", "rollout_length": 3, "agent": "td3"}
    knobs = {name: value for name, value in knobs.items() if name != "target_entropy"}
    tiny_runs.train(tmp_path / "own", knobs)
    shutil.copytree(fitted, tmp_path / "fitted")
    tiny_runs.train(tmp_path / "run", knobs, fitted_model=tmp_path / "fitted", num_steps=25)
    shutil.rmtree(tmp_path / "fitted")
    tiny_runs.train(tmp_path / "run", knobs, fitted_model=tmp_path / "fitted")  # goes on without it
    ours, theirs = (tiny_runs.saved(tmp_path / name).arrays["1"] for name in ("run", "own"))
    tiny_runs.assert_same_bits(ours, theirs)
    other = tiny_runs.saved(fitted).arrays["0"]["state"]["model"]
    with pytest.raises(AssertionError):
        tiny_runs.assert_same_bits(ours["state"]["model"], other)


def test_an_unfinished_fit_is_refused_and_goes_on_with_a_model(fitted, data, tmp_path):
    knobs = tiny_runs.MOPO | {"dataset": data, "seeds": "0,1"}
    stopped = tmp_path / "stopped"
    done = tiny_runs.command(tiny_runs.__file__, "fit:1", "SIGTERM", *tiny_runs.argv(stopped, knobs))
    assert done.returncode == 3 and tiny_runs.saved(stopped).record["step"] == 1
    with pytest.raises(ValueError, match="its fit has not ended$"):
        tiny_runs.train(tmp_path / "run", knobs, fitted_model=stopped)
    assert tiny_runs.train(stopped, knobs, fitted_model=fitted).finished
    tiny_runs.assert_same_bits(tiny_runs.saved(stopped).arrays, tiny_runs.saved(fitted).arrays)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model_hidden_units": 9}, "model_hidden_units was 8, is 9$"),
        ({"termination_fn": "never"}, "termination_fn was 'learned', is 'never'$"),
        ({"obs_scaling": "none"}, "obs_scaling was 'standard', is 'none'$"),  # its fit would have other keys
        ({"seeds": "1,2"}, "it has no seed 2$"),
        ({"dataset": "other.npz"}, "the SHA-256 of its data was [0-9a-f]{64}, is [0-9a-f]{64}$"),
    ],
)
def test_a_model_that_this_run_would_not_fit_is_refused(fitted, data, tmp_path, change, reason, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_runs.write_data_set(tmp_path / "other.npz", seed=1)
    message = f"^fitted_model must be a run with the model that this one would fit, got .*: {reason}"
    with pytest.raises(ValueError, match=message):
        tiny_runs.train(tmp_path / "run", tiny_runs.MOPO, **({"dataset": data, "fitted_model": fitted} | change))


def test_a_fit_is_told_although_no_line_of_its_run_tells_it_yet(fitted, data, tmp_path, monkeypatch, capsys):
    """A run that is stopped after its fit, before its first line: only its checkpoint knows the metrics."""
    run = PhaseRunner.run

    def run_and_stop(self, roots, step, *rest):
        if self.phase.name == "roll_out":
            os.kill(os.getpid(), signal.SIGTERM)
        return run(self, roots, step, *rest)

    knobs = tiny_runs.MOPO | {"dataset": data, "seeds": "0,1"}
    with monkeypatch.context() as patched:
        patched.setattr(PhaseRunner, "run", run_and_stop)
        assert not tiny_runs.train(tmp_path / "stopped", knobs).finished
    assert not tiny_runs.lines(tmp_path / "stopped")
    tiny_runs.train(tmp_path / "run", knobs, fitted_model=tmp_path / "stopped", quiet="false")
    tiny_runs.assert_same_run(tmp_path / "run", fitted)
    assert f"model: fitted by {tmp_path / 'stopped'}" in capsys.readouterr().err


def test_a_model_of_other_scales_of_actions_is_refused(fitted, data, tmp_path):
    shutil.copytree(fitted, tmp_path / "fitted")
    config = json.loads((fitted / "config.json").read_text())
    config["task"]["action_low"] = [-2.0]
    (tmp_path / "fitted/config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"action_low was \[-2.0\], is \[-3.0\]$"):
        tiny_runs.train(tmp_path / "run", tiny_runs.MOPO, dataset=data, fitted_model=tmp_path / "fitted")


def test_runs_that_fit_no_model_to_data_are_refused(fitted, data, tmp_path):
    with pytest.raises(ValueError, match="fitted_model must be '' for sac, which does not fit a model to a data set"):
        tiny_runs.train(tmp_path, tiny_runs.SAC, fitted_model=fitted)
    cloning = tiny_runs.OFFLINE_ROWS["bc"] | {"dataset": data}
    with pytest.raises(ValueError, match="fitted_model must be '' for bc, which"):
        tiny_runs.train(tmp_path, cloning, fitted_model=fitted)
    tiny_runs.train(tmp_path / "bc", cloning)
    for source, reason in (
        (tmp_path / "bc", "fitted_model must be a run that fitted a model, got"),
        (tmp_path / "nothing", r"fitted_model must be the directory of a run, got .*nothing' \(no checkpoint in"),
        ("~no_such_user/run", "fitted_model must be a path on this machine, got '~no_such_user/run', whose home"),
    ):
        with pytest.raises(ValueError, match=reason):
            tiny_runs.train(tmp_path / "run", tiny_runs.MOPO, dataset=data, fitted_model=source)
