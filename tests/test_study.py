import inspect
import json
import re
from pathlib import Path

import pytest
import tiny_runs

from mbpo_jax import study
from mbpo_jax.driver.config import Diverged

ROOT = Path(__file__).parents[1]


def refused(capsys, *argv):
    """Status and message of a command line that is refused."""
    return study.main(list(argv)), capsys.readouterr().err


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A finished run that learns no model."""
    run_dir = tmp_path_factory.mktemp("study") / "sac"
    assert tiny_runs.train(run_dir, tiny_runs.SAC).finished
    return run_dir


def test_a_study_prints_its_finding_and_leaves_numbers_and_a_picture(tmp_path, capsys):
    output_dir = tmp_path / "made" / "here"
    assert study.main(["best_length", f"--output_dir={output_dir}", "--discount=0.9"]) == 0
    sentence, *paths = capsys.readouterr().out.splitlines()
    assert paths == [str(output_dir / "best_length.json"), str(output_dir / "best_length.png")]
    numbers = json.loads(Path(paths[0]).read_text())
    assert numbers["finding"] == sentence
    assert numbers["discount"] == 0.9
    assert Path(paths[1]).read_bytes()[:4] == b"\x89PNG"


def test_every_parameter_of_every_study_is_a_flag_with_help(capsys):
    for name, entry in study.STUDIES.items():
        with pytest.raises(SystemExit) as caught:
            study.main([name, "--help"])
        assert caught.value.code == 0
        text = capsys.readouterr().out
        for parameter in inspect.signature(entry.run).parameters:
            assert f"--{parameter} " in text
        assert "--output_dir " in text
    assert set(study.HELP) == {p for entry in study.STUDIES.values() for p in inspect.signature(entry.run).parameters}


@pytest.mark.parametrize("name", ["compounding", "exploitation", "policy_shift"])
def test_a_run_without_a_model_is_refused_with_what_is_allowed(name, run_dir, tmp_path, capsys):
    assert study.main([name, f"--run_dir={run_dir}", f"--output_dir={tmp_path / 'out'}"]) == 2
    message = capsys.readouterr().err
    assert re.search(r"error: .*the run must have a model \(--algorithm one of mbpo.*\), got sac", message)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("flag", ["seed", "step"])
def test_an_agent_or_checkpoint_that_is_not_there_is_a_wrong_flag(flag, run_dir, tmp_path, capsys):
    assert study.main(["compounding", f"--run_dir={run_dir}", f"--output_dir={tmp_path}", f"--{flag}=7"]) == 2
    assert re.search(rf"error: --{flag} must be .* got 7\n$", capsys.readouterr().err)


def test_an_offline_run_whose_data_are_elsewhere_now_is_not_called_damaged(tmp_path, capsys, monkeypatch):
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)
    data = tiny_runs.write_data_set(Path("rows.npz"))
    assert tiny_runs.train(tmp_path / "run", tiny_runs.OFFLINE_ROWS["bc"], dataset=data).finished
    words = [f"--run_dir={tmp_path / 'run'}", "--output_dir=out"]
    assert study.main(["episode_lengths", words[0].replace("run_dir", "run_dirs"), words[1]]) == 2
    assert "--run_dirs must be directories of runs that step an environment" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path / "there")
    assert study.main(["versions", *words]) == 2
    message = capsys.readouterr().err
    assert "dataset 'rows.npz': it must be a file" in message and "checkpoint" not in message


def test_no_run_there(tmp_path, capsys):
    assert study.main(["compounding", f"--run_dir={tmp_path / 'none'}", f"--output_dir={tmp_path}"]) == 6
    message = capsys.readouterr().err
    assert str(tmp_path / "none" / "config.json") in message
    assert "Traceback" not in message


def test_an_output_directory_that_cannot_be_made(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert study.main(["best_length", f"--output_dir={tmp_path / 'file' / 'out'}"]) == 2
    assert "--output_dir must be a directory that can be created" in capsys.readouterr().err


def test_learning_that_diverges_has_its_status(tmp_path, capsys, monkeypatch):
    def diverge():
        raise Diverged("critic 0's loss is not finite")

    monkeypatch.setitem(study.STUDIES, "best_length", study.Study(diverge, "diverges"))
    assert study.main(["best_length", f"--output_dir={tmp_path}"]) == 4
    assert capsys.readouterr().err == "mbpo_jax: error: critic 0's loss is not finite\n"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["nothing"], "best_length"),
        (["compounding", "--run_dir=x"], "--output_dir"),
        (["compounding", "--output_dir=x"], "--run_dir"),
        (["compounding", "--run_dir=x", "--output_dir=y", "--num_steps=0"], "--num_steps: must be a whole number, 1"),
        (["compounding", "--run_dir=x", "--output_dir=y", "--seed=-1"], "--seed: must be a whole number, 0 or more"),
        (["policy_shift", "--run_dir=x", "--output_dir=y", "--num_rows=10,a"], "must be a whole number.*'a'"),
        (["best_length", "--output_dir=y", "--discount=high"], "--discount"),
    ],
)
def test_wrong_flags_are_named(argv, said, capsys):
    status, message = refused(capsys, *argv)
    assert status == 2
    assert re.search(said, message)


def test_a_wrong_discount_is_named(tmp_path, capsys):
    assert study.main(["best_length", f"--output_dir={tmp_path}", "--discount=1"]) == 2
    assert "discount must lie in (0, 1), got 1.0" in capsys.readouterr().err


def test_commands_in_the_documents_name_studies_and_flags_that_exist():
    texts = [path.read_text() for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]]
    commands = [found for text in texts for found in re.findall(r"python -m mbpo_jax\.study (\w+)([^\n`]*)", text)]
    assert commands
    for name, flags in commands:
        if name != "NAME":
            allowed = {"output_dir", *inspect.signature(study.STUDIES[name].run).parameters}
            assert set(re.findall(r"--(\w+)", flags)) <= allowed
