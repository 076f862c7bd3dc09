import os
import re
import signal
import subprocess
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
    assert "mbpo_jax: ending what the environment left running: process " in line
    assert "thread endless" in line
    assert sys.platform != "linux" or not _running(int(line.partition("process ")[2].split(",")[0]))


def test_a_command_does_not_wait_for_a_program_that_an_environment_started(tmp_path):
    """The program has our output, so who reads that through a pipe waits for it, and is told."""
    knobs = {"env": "odd_worlds:odd/StartsProgram-v0", "num_steps": 3, "seeds": 0, "eval_env": "shared"}
    command = [sys.executable, "-m", "mbpo_jax.main", *tiny_runs.argv(tmp_path / "run", tiny_runs.SAC, **knobs)]
    with (tmp_path / "err").open("w+") as err:
        environment = tiny_runs.process_environment()
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=err)
        try:
            assert process.wait(200) == 0
            (line,) = (tmp_path / "err").read_text().splitlines()
        finally:
            process.kill()
    if sys.platform == "linux":
        assert line.startswith("mbpo_jax: exiting; these processes were started meanwhile and keep running")
        assert line.endswith(" (sleep 1000)")
        number = int(re.search(r"process (\d+)", line)[1])
        assert _running(number)
        os.kill(number, signal.SIGKILL)
    process.stdout.close()


def _running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
