"""What README.md shows is run, and what it points to is there."""

import pathlib
import re
import shlex

import pytest

from mbpo_jax.driver import flags

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def block_after(marker):
    """The fenced block behind an HTML comment."""
    return re.search(rf"<!-- {marker} -->\n```\w+\n(.*?)```", README, re.DOTALL).group(1)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("readme")


def test_the_python_api_trains(directory, monkeypatch, capsys):
    monkeypatch.chdir(directory)
    code = block_after("python api")
    assert "num_steps=2500" in code
    exec(compile(code.replace("num_steps=2500", "num_steps=501"), "README.md", "exec"), {})
    assert "return_mean" in capsys.readouterr().out
    assert (directory / "runs/api/policies/seed_0.npz").exists()


def test_a_policy_loads_and_acts_in_five_lines(directory, monkeypatch, capsys):
    monkeypatch.chdir(directory)
    code = block_after("load and act")
    assert len([line for line in code.splitlines() if line.strip()]) == 5
    exec(compile(code, "README.md", "exec"), {})
    assert "array(" in capsys.readouterr().out  # the step's observation


def test_every_link_leads_somewhere():
    links = re.findall(r"\]\(([^)#]+?)\)", README)
    assert len(links) > 15
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_flagfile_is_in_the_table():
    listed = set(re.findall(r"experiments/(\w+\.flags)", README))
    assert listed == {path.name for path in (ROOT / "experiments").glob("*.flags")}


def test_every_command_parses(monkeypatch):
    monkeypatch.chdir(ROOT)
    commands = re.findall(r"python -m mbpo_jax\.main ([^#\n`]*)", README)
    assert len(commands) >= 5
    for command in commands:
        arguments = shlex.split(command)
        if "--help" not in arguments:
            flags.parse(arguments)


def test_the_command_of_the_report_is_the_one_in_it():
    """Another would overwrite the report in the repository with a smaller one."""
    commands = re.findall(r"^python -m mbpo_jax\.reproduce .*$", README.replace("\\\n", " "), re.MULTILINE)
    (command,) = [words for words in map(shlex.split, commands) if "--report_only" in words]
    assert command == shlex.split((ROOT / "docs/reproduction/report.md").read_text().splitlines()[2])
