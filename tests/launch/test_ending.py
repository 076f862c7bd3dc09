import os
import sys
import time
from pathlib import Path

import tiny_runs


def test_a_command_ends_whatever_an_environment_leaves(tmp_path):
    """A daemon that its `close` ends, and a process and a thread that never end."""
    sys_path = {"PYTHONPATH": os.pathsep.join([str(Path(tiny_runs.__file__).parent), os.environ.get("PYTHONPATH", "")])}
    knobs = {"env": "odd_worlds:odd/Forks-v0", "max_episode_steps": 0, "num_steps": 3, "seeds": 0, "quiet": "false"}
    argv = tiny_runs.argv(tmp_path, tiny_runs.SAC, **knobs)
    began = time.monotonic()
    process = tiny_runs.command("-m", "mbpo_jax.main", *argv, PYTHONWARNINGS="default", **sys_path)
    assert process.returncode == 0, process.stderr
    assert time.monotonic() - began < 200
    assert "sac on odd_worlds:odd/Forks-v0: 3 of 3 steps" in process.stdout
    (line,) = [line for line in process.stderr.splitlines() if "left running" in line]
    assert "mbpo_jax: ends what the environment left running: process " in line
    assert "thread endless" in line
    assert sys.platform != "linux" or not _running(int(line.partition("process ")[2].split(",")[0]))


def _running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
