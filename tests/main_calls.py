"""Command lines of tiny runs, and processes in which they run."""

import os
import subprocess
import sys

import jax

TINY = {
    "algorithm": "sac",
    "env": "Hopper-v5",
    "max_episode_steps": 5,
    "num_steps": 100,
    "exploration_steps": 60,
    "replay_capacity": 1000,
    "updates_per_step": 1,
    "batch_size": 16,
    "hidden_units": 8,
    "num_hidden_layers": 1,
    "log_every_steps": 20,
    "eval_every_steps": 40,
    "eval_episodes": 2,
    "checkpoint_every_steps": 40,
    "seeds": "1,2",
}


def arguments(run_dir, **changes):
    return [f"--{name}={value}" for name, value in (TINY | changes | {"run_dir": run_dir}).items()]


def python(*words):
    """A process of its own, in which a warning is an error."""
    environment = dict(os.environ)
    if jax.config.jax_compilation_cache_dir:  # other tests have compiled the same programs
        environment["JAX_COMPILATION_CACHE_DIR"] = jax.config.jax_compilation_cache_dir
        environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    return subprocess.Popen(
        [sys.executable, "-W", "error", *map(str, words)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
