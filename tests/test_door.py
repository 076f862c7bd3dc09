import importlib
import pathlib
import subprocess
import sys
import tomllib

import pytest
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


def test_ctrl_c_in_a_command_is_no_traceback(capsys, monkeypatch):
    def interrupt(argv):
        raise KeyboardInterrupt

    monkeypatch.setattr("mbpo_jax.plot.main", interrupt)
    monkeypatch.setattr(sys, "argv", ["mbpo_jax", "plot"])
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(door.ending, "in_time", lambda status: status)  # it would end this process
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
