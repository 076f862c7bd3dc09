"""What README.md shows is run, and what it points to is there."""

import collections
import pathlib
import re
import shlex
import sys

import gymnasium
import numpy as np
import pytest

import mbpo_jax
from mbpo_jax import check_env
from mbpo_jax.driver.interaction.task import resolve_termination_fn
from mbpo_jax.launch import flags

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SHARED = {"paper.flags", "mopo.flags", "pets_small.flags"}  # flagfiles that others read, or that are read after others


def block_after(marker):
    """The fenced block behind an HTML comment."""
    return re.search(rf"<!-- {marker} -->\n```\w+\n(.*?)```", README, re.DOTALL).group(1)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("readme")


@pytest.fixture(scope="module", autouse=True)
def _unregistered():
    """The environments that README.md writes leave with this file."""
    yield
    for module, name in (("my_env", "MyHopper-v0"), ("point", "Point-v0")):
        sys.modules.pop(module, None)
        gymnasium.registry.pop(name, None)


def test_the_python_api_trains(directory, monkeypatch, capsys):
    monkeypatch.chdir(directory)
    code = block_after("python api")
    assert "num_steps=2500" in code
    code = code.replace("num_steps=2500", "num_steps=501").replace(
        "updates_per_step=10",
        "updates_per_step=10, rollout_batch=64, model=mbpo_jax.GaussianConfig(fit_max_gradient_steps=20)",
    )
    exec(compile(code, "README.md", "exec"), {})
    assert "return_mean" in capsys.readouterr().out
    assert (directory / "runs/api/policies/seed_0.npz").exists()


def test_a_loaded_policy_plays_an_episode(directory, monkeypatch, capsys):
    monkeypatch.chdir(directory)
    exec(compile(block_after("load and act"), "README.md", "exec"), {})
    assert float(capsys.readouterr().out) == episode_return(mbpo_jax.load_policy("runs/api")) >= 1.0


def episode_return(policy):
    env = gymnasium.make("InvertedPendulum-v5")
    obs, _ = env.reset(seed=0)
    rewards = []
    for _ in range(env.spec.max_episode_steps):
        obs, reward, terminated, _, _ = env.step(policy(obs))
        rewards.append(reward)
        if terminated:
            break
    return sum(rewards)


def test_the_environment_of_ones_own_can_be_made_and_its_rule_is_hoppers(tmp_path, monkeypatch):
    (tmp_path / "my_env.py").write_text(block_after("own environment"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    env = gymnasium.make("my_env:MyHopper-v0")
    rule = resolve_termination_fn("my_env:terminated", "MyHopper-v0")
    env.action_space.seed(0)
    obs, ends = env.reset(seed=0)[0], []
    for _ in range(200):
        action = env.action_space.sample()
        next_obs, _, terminated, _, _ = env.step(action)
        assert rule(*(np.float32(value[None]) for value in (obs, action, next_obs))).tolist() == [terminated]
        ends.append(terminated)
        obs = env.reset()[0] if terminated else next_obs
    assert 0 < sum(ends) < 200


def test_the_environment_without_a_rule_has_no_problems(tmp_path, monkeypatch, capsys):
    (tmp_path / "point.py").write_text(block_after("own environment without a rule"))
    monkeypatch.syspath_prepend(tmp_path)
    assert check_env.main(["point:Point-v0", "--termination_fn=never"]) == 0, capsys.readouterr().out
    (words,) = re.findall(r"mbpo_jax train (--env=point:\S+ .*?) *#", README)
    run, config = flags.parse(shlex.split(words))
    assert (run.num_steps, config.termination_fn) == (1000, "never")


def test_the_table_has_the_algorithms_with_a_flagfile_for_each_environment():
    offered = collections.defaultdict(set)
    for path in (ROOT / "experiments").glob("*.flags"):
        run, _ = flags.parse([f"--flagfile={path}"] + ["--dataset=x.npz"] * path.stem.startswith(("mopo", "bc", "td3")))
        if path.name not in SHARED:
            offered[run.env].add(run.algorithm)
    listed = {}
    for envs, algorithms in re.findall(r"^\| ([\w/]+-v\d[^|]*) \| ([^|]*) \|[^|]*\|$", README, re.MULTILINE):
        listed |= {env: set(algorithms.split(", ")) for env in envs.split(", ")}
    without = {env for env, algorithms in listed.items() if algorithms == {"none"}}
    assert without == {"mbpo_jax/LineWorld-v0", "mbpo_jax/HalfCheetahJump-v5"}
    assert {env: algorithms for env, algorithms in listed.items() if env not in without} == offered


def test_every_flagfile_is_in_the_table_of_experiments():
    text = (ROOT / "experiments/README.md").read_text()
    first_cells = re.findall(r"^\| ([\w, `]+) \|", text, re.MULTILINE)
    listed = {name for cell in first_cells for name in re.findall(r"\w+", cell)} | set(
        re.findall(r"`(\w+)(?:\.flags)?`", text)
    )
    assert {path.stem for path in (ROOT / "experiments").glob("*.flags")} - {"paper", "mopo"} <= listed


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
    assert command == shlex.split((ROOT / "docs/reproduction/paper.md").read_text().splitlines()[2])
