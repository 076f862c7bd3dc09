"""A run directory from a stranger: what is looked at runs none of its code, and nothing in it hangs the reader."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from mbpo_jax import plot
from mbpo_jax.driver.config import StorageFailure
from mbpo_jax.driver.storage import run_json
from mbpo_jax.main import main

TINY = {
    "algorithm": "mbpo",
    "env": "InvertedPendulum-v5",
    "max_episode_steps": 5,
    "num_steps": 3,
    "eval_every_steps": 3,
    "eval_episodes": 1,
    "replay_capacity": 10,
    "rollout_batch": 4,
    "hidden_units": 4,
    "num_hidden_layers": 1,
    "model_hidden_units": 4,
    "seeds": "1",
    "quiet": "true",
}
LIMIT_S = 20

EVIL = """
import pathlib
pathlib.Path(__file__).with_name("marker").touch()

def f(*args):
    pathlib.Path(__file__).with_name("marker").touch()
"""

LOOK = """
import sys
from pathlib import Path
import numpy as np
from mbpo_jax import load_policy, plot
from mbpo_jax.driver.storage.run_json import read_config
run_dir = sys.argv[1]
assert read_config(Path(run_dir)).run.env == "evil_module:Evil-v0"
for best in (False, True):
    assert load_policy(run_dir, 1, best=best)(np.zeros(4)).shape == (1,)
assert plot.main(["--run_dir", run_dir]) == 0
assert not [name for name in sys.modules if "evil" in name]
"""


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A run that went through. Read only."""
    path = tmp_path_factory.mktemp("stranger") / "run"
    assert main([f"--{name}={value}" for name, value in (TINY | {"run_dir": path}).items()]) == 0
    return path


@pytest.fixture
def copy(run_dir, tmp_path):
    """A run directory that may be changed."""
    return shutil.copytree(run_dir, tmp_path / "run")


@contextlib.contextmanager
def at_once():
    """Fails what takes longer than LIMIT_S, even if it waits for a pipe."""

    def give_up(number, frame):
        raise AssertionError(f"more than {LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(LIMIT_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def rewrite(path, **changes):
    """Changes values of the run or of the algorithm in a config.json."""
    config = json.loads((path / "config.json").read_text())
    for name, value in changes.items():
        config["run" if name in config["run"] else "algorithm"][name] = value
    (path / "config.json").write_text(json.dumps(config))


# -- code that the directory names ---------------------------------------------------------------------------------


@pytest.fixture
def evil(copy, tmp_path, monkeypatch):
    """A run directory whose config names a module that can be imported, and what that leaves behind."""
    (tmp_path / "evil_module.py").write_text(EVIL)
    monkeypatch.syspath_prepend(tmp_path)
    rewrite(copy, env="evil_module:Evil-v0", termination_fn="evil_module:f")
    return copy, tmp_path / "marker"


def test_looking_at_a_run_never_imports_what_it_names(evil, tmp_path):
    path, marker = evil
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", LOOK, path], env=environment, capture_output=True, text=True, timeout=240
    )
    assert process.returncode == 0, process.stderr
    assert not marker.exists()


def test_the_trap_works_where_a_user_asks_for_it(evil, capsys):
    path, marker = evil
    assert main([f"--run_dir={path}", "--env=evil_module:Evil-v0", "--algorithm=sac", "--quiet"]) != 0
    assert marker.exists()
    assert "evil_module" in capsys.readouterr().err


# -- configs that are none -----------------------------------------------------------------------------------------

DEEP = 100_000
DAMAGED = {
    "empty": "",
    "no JSON": "hello",
    "bytes": "\x00\xff" * 100,
    "a list": "[]",
    "null": "null",
    "a number": "1",
    "no run": "{}",
    "a run that is a list": '{"run": [], "algorithm": {}}',
    "deep lists": "[" * DEEP,
    "deep lists that end": "[" * DEEP + "]" * DEEP,
    "deep objects": '{"run":' * DEEP + "1" + "}" * DEEP,
    "large": '{"run": {"env": "' + "x" * 50_000_000 + '"}}',
    "large lists": '{"run": [' + "0," * 25_000_000 + "0]}",
    "a huge whole number": '{"run": {"num_steps": 1' + "0" * 100_000 + "}}",
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_config_that_is_none_is_refused_at_once(copy, damage):
    (copy / "config.json").write_text(DAMAGED[damage], encoding="latin-1")
    with at_once():
        with pytest.raises(StorageFailure, match=r"cannot read .*/config.json"):
            run_json.read_config(copy)


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_curve_is_drawn_without_a_config_that_can_be_read(copy, capsys, damage):
    (copy / "config.json").write_text(DAMAGED[damage], encoding="latin-1")
    with at_once():
        assert plot.main(["--run_dir", str(copy)]) == 0
    assert capsys.readouterr() == (f"{copy / 'curves.png'}\n", "")


@pytest.mark.parametrize(
    "text",
    [
        "NaN",
        "Infinity",
        "-Infinity",
        "1e999",
        "-1",
        "1" + "0" * 4000,
        "1" + "0" * 100_000,
        '"3"',
        "true",
        "[3]",
        "{}",
        "null",
    ],
)
@pytest.mark.parametrize("name", ["num_steps", "discount", "hidden_units"])
def test_a_value_out_of_its_range_is_refused(copy, name, text):
    config = json.loads((copy / "config.json").read_text())
    section = config["run"] if name in config["run"] else config["algorithm"]["agent"]
    section[name] = "HERE"
    (copy / "config.json").write_text(json.dumps(config).replace('"HERE"', text))
    with at_once(), pytest.raises(StorageFailure, match=r"cannot read .*/config.json"):
        run_json.read_config(copy)


def test_of_a_key_that_comes_twice_one_value_counts_or_none(copy):
    text = (copy / "config.json").read_text()
    assert text.count('"num_steps": 3') == 1
    (copy / "config.json").write_text(text.replace('"num_steps": 3', '"num_steps": 7, "num_steps": 3'))
    with contextlib.suppress(StorageFailure):
        assert run_json.read_config(copy).run.num_steps in (3, 7)


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl"])
@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to(path)])
def test_what_is_no_regular_file_is_not_waited_for(copy, capsys, name, make):
    (copy / name).unlink()
    make(copy / name)
    with at_once():
        if name == "config.json":
            with pytest.raises(StorageFailure):
                run_json.read_config(copy)
            assert plot.main(["--run_dir", str(copy)]) == 0
        else:
            assert plot.main(["--run_dir", str(copy)]) == 2
            assert f"{copy / name}" in capsys.readouterr().err


def test_sizes_that_no_machine_has_room_for_take_no_room(copy):
    from mbpo_jax import load_policy

    before = jax.live_arrays()
    config = json.loads((copy / "config.json").read_text())
    config["algorithm"]["agent"]["hidden_units"] = 2**16
    config["algorithm"]["replay_capacity"] = 2**31 - 1
    (copy / "config.json").write_text(json.dumps(config))
    with at_once(), pytest.raises(StorageFailure, match="cannot load a policy from"):
        load_policy(copy, 1)
    assert len(jax.live_arrays()) <= len(before) + 10
