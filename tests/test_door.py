import importlib
import os
import pathlib
import subprocess
import sys
import tomllib

import jax
import pytest
import tiny_runs
import yaml

import mbpo_jax
from mbpo_jax import __main__ as door

ROOT = pathlib.Path(__file__).parents[1]
SRC = pathlib.Path(mbpo_jax.__file__).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_command_module_has_a_row_and_every_row_a_module():
    commands = {path.stem for path in SRC.glob("*.py") if "\ndef main(" in path.read_text()} - {"__main__"}
    assert {command.module for command in door.COMMANDS.values()} == commands


@pytest.mark.parametrize("name", door.COMMANDS)
def test_help_of_every_command_by_both_ways(name, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/mbpo_jax", "not", "read"])
    for words in ([name, "--help"], ["help", name]):
        try:
            status = door.main(words)
        except SystemExit as ended:  # argparse's way
            status = ended.code
        assert status == 0
        text = capsys.readouterr().out
        assert "usage:" in text
        if name != "train":
            assert f"usage: mbpo_jax {name}" in text
            assert f"python -m mbpo_jax.{name}" not in text


def test_a_command_gets_its_arguments_and_its_status_comes_back(capsys):
    assert door.main(["plot", "--run_dir=/nowhere"]) == importlib.import_module("mbpo_jax.plot").main(
        ["--run_dir=/nowhere"]
    )
    first, second = capsys.readouterr().err.splitlines()
    assert first == second


UNREADABLE = """
import sys
from mbpo_jax import __main__ as door
sys.exit(any([door.main([name, "--no_such_flag"]) - 2 for name in door.COMMANDS]))
"""


def test_what_jax_cannot_read_is_a_line_in_every_command(tmp_path):
    """It was a traceback in all that import jax, but `train`."""
    done = tiny_runs.command("-c", UNREADABLE, JAX_ENABLE_X64="maybe")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line != "mbpo_jax: starting"]
    assert len(lines) == len(door.COMMANDS)
    assert all(line.startswith("mbpo_jax: error: ") for line in lines), lines
    assert sum(line.endswith("invalid truth value 'maybe' for environment 'JAX_ENABLE_X64'") for line in lines) >= 5


def test_what_jax_cannot_read_is_a_line_under_python_m():
    done = tiny_runs.command("-m", "mbpo_jax.study", "best_length", JAX_ENABLE_X64="maybe")
    wanted = "mbpo_jax: error: invalid truth value 'maybe' for environment 'JAX_ENABLE_X64'\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", wanted)


@pytest.mark.parametrize("words", [["evaluate", "/nowhere"], ["check_env", "Pendulum-v1"]])
def test_a_command_that_only_plays_refuses_what_a_run_refuses(words, capsys, monkeypatch):
    """XLA ended the process; a platform that is not there was a traceback, or blamed the policy's file."""
    monkeypatch.setenv("XLA_FLAGS", f"{os.environ.get('XLA_FLAGS', '')} --xla_nonsense=1")
    assert door.main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("XLA_FLAGS must be flags of the installed XLA, got --xla_nonsense")


def test_a_command_that_only_plays_serves_what_a_run_serves(capsys):
    """Transfers are needed; that they are forbidden was a traceback, and in `evaluate` a policy that cannot be read."""
    with jax.transfer_guard("disallow"):
        assert door.main(["check_env", "InvertedPendulum-v5", "--num_steps=60"]) == 0, capsys.readouterr()


def test_ctrl_c_in_a_command_is_no_traceback(capsys, monkeypatch):
    def interrupt(argv):
        raise KeyboardInterrupt

    monkeypatch.setattr("mbpo_jax.plot.main", interrupt)
    monkeypatch.setattr(sys, "argv", ["mbpo_jax", "plot"])
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(door.process_exit, "in_time", lambda status: status)  # it would end this process
    assert door.console() == 3
    assert capsys.readouterr().err == "mbpo_jax: stopped\n"


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["help"], []])
def test_help_of_the_door_lists_every_command(words, capsys):
    assert door.main(words) == (0 if words else 2)
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in door.COMMANDS)


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("trian", "did you mean 'train'?"),
        ("main", "did you mean 'train'?"),
        ("check-env", "did you mean 'check_env'?"),
        ("Evaluate", "did you mean 'evaluate'?"),
        ("xyzzy", "got 'xyzzy'"),
        ("--flagfile=hopper", "a command must come first (train, "),
        ("", "got ''"),
    ],
)
def test_an_unknown_command_is_one_line(word, hint, capsys):
    assert door.main([word]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("mbpo_jax: error: ") and hint in line
    assert door.main(["help", word]) == 2


def test_the_version_is_everywhere_the_same(capsys):
    assert door.main(["--version"]) == 0
    assert capsys.readouterr().out == f"mbpo_jax {PROJECT['project']['version']}\n"
    assert citation()["version"] == PROJECT["project"]["version"]


def citation():
    return yaml.safe_load((ROOT / "CITATION.cff").read_text())


def test_the_licence_and_the_citation():
    assert PROJECT["project"]["license"] == citation()["license"] == "MIT"
    assert (ROOT / "LICENSE").read_text().startswith("MIT License\n\nCopyright (c) 2026 the mbpo_jax authors\n")
    assert citation()["cff-version"] == "1.2.0"
    assert citation()["message"] and citation()["title"] and citation()["authors"]
    (paper,) = citation()["references"]
    assert [author["family-names"] for author in paper["authors"]] == ["Janner", "Fu", "Zhang", "Levine"]


def test_flagfiles_go_into_the_wheel():
    included = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included == {"experiments": "mbpo_jax/experiments"}
    assert (ROOT / "experiments/inverted_pendulum.flags").is_file()


def test_the_console_script_starts_quickly_and_finds_modules_of_the_working_folder(tmp_path):
    """Without jax and all that needs it, which takes seconds."""
    module, function = PROJECT["project"]["scripts"]["mbpo_jax"].split(":")
    (tmp_path / "my_env.py").write_text("")
    code = f"""
import sys
sys.path.remove("")  # a console script has its own folder there
sys.argv = ["mbpo_jax", "--help"]
from {module} import {function}
assert {function}() == 0
assert not {{"jax", "numpy", "gymnasium", "absl"}} & sys.modules.keys(), sys.modules.keys()
import my_env
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
