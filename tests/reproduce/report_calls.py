"""Calls of the command that makes reports, on tiny flagfiles and curves that are put there."""

import subprocess
import sys
from pathlib import Path

from mbpo_jax import reproduce
from mbpo_jax.launch.requested_run import read_request
from mbpo_jax.reports import learning_curves
from mbpo_jax.reports.learning_curves import LearningCurve

TINY = """\
--algorithm=sac
--env=InvertedPendulum-v5
--max_episode_steps=5
--num_steps=1000000
--exploration_steps=60
--replay_capacity=1000
--updates_per_step=1
--batch_size=16
--hidden_units=8
--num_hidden_layers=1
--log_every_steps=20
--eval_every_steps=50
--eval_episodes=2
--checkpoint_every_steps=100
"""
NESTED = "--flagfile=tiny.flags\n--replay_capacity=500\n"


def keep(last_step, experiment="tiny", seed=0, algorithm="sac", env="InvertedPendulum-v5", flags=None, dataset=None):
    """Puts a curve into the report's directory; returns its path."""
    steps = tuple(range(50, last_step + 1, 50))
    returns = tuple(step / 100 for step in steps)
    nothing = dict.fromkeys(("num_steps", "commit", "versions", "devices", "seconds"))
    path = learning_curves.path_of(Path("report"), experiment, seed)
    nothing |= {"flags": flags, "dataset": dataset}
    learning_curves.save(path, LearningCurve(experiment, algorithm, env, seed, **nothing, steps=steps, returns=returns))
    return path


def flags_of(flagfile, *added):
    """The flags that a curve of a flagfile has."""
    return read_request(Path(flagfile), list(added)).flags


def call(*words, flagfiles="tiny.flags"):
    return reproduce.main([f"--flagfiles={flagfiles}", "--report_dir=report", *words])


def run_process(*words, flagfiles):
    """`call` in a process of its own, where submitit may do as it likes; returns status, output and errors."""
    command = [sys.executable, "-m", "mbpo_jax.reproduce", f"--flagfiles={flagfiles}", "--report_dir=report", *words]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=240)
    return ended.returncode, ended.stdout, ended.stderr


def report():
    """Name -> bytes of what the command wrote."""
    return {path.name: path.read_bytes() for path in Path("report").glob("report.*")}
