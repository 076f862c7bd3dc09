"""Runs that take a second, and what they leave behind."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from unittest import mock

import jax
import numpy as np

from mbpo_jax import replay, terminations
from mbpo_jax.algorithms import REGISTRY
from mbpo_jax.driver import loop
from mbpo_jax.driver.storage import metrics
from mbpo_jax.driver.storage.checkpoint import Checkpoints
from mbpo_jax.launch import flags
from mbpo_jax.reports import curves
from mbpo_jax.types import Spec

RUN = {
    "env": "InvertedPendulum-v5",
    "max_episode_steps": 5,  # a random policy falls after 3 to 8 steps, so both kinds of end occur
    "num_steps": 160,
    "log_every_steps": 20,
    "eval_every_steps": 40,
    "eval_episodes": 2,
    "checkpoint_every_steps": 40,
    "quiet": "true",
}
LEARNING = {
    "exploration_steps": 60,
    "updates_per_step": 1,
    "batch_size": 16,
    "hidden_units": 8,
    "num_hidden_layers": 1,  # as all of this, for the sake of compilation
}
MBPO = (
    RUN
    | LEARNING
    | {
        "algorithm": "mbpo",
        "min_replay_rows": 60,
        "replay_capacity": 100,  # fewer than steps: the buffer wraps
        "fit_every_steps": 50,  # at 60, 110 and 160
        "epoch_steps": 50,
        "rollout_batch": 64,
        "rollout_length_schedule": "0,2,1,3",  # 1, 2 and 3 at these fits
        "real_fraction": 0.25,
        "num_members": 3,
        "num_elites": 2,
        "model_hidden_units": 8,
        "model_weight_decays": "5e-5,1e-4",  # one hidden layer
        "model_batch_size": 16,
        "fit_slice_minibatches": 2,  # several slices an epoch
        "fit_epoch_minibatches": 1,
        "fit_max_gradient_steps": 0,
        "retain_epochs": 1,
        # Two epochs whatever the numbers are: the first improves on infinity, a tenth of it is out of reach.
        "fit_patience_epochs": 0,
        "fit_improvement": 0.9,
    }
)
# The rows that are these with another agent.
AGENTS = {f"mbpo_{agent}": MBPO | {"algorithm": f"mbpo_{agent}"} for agent in ("ddpg", "td3")} | {
    agent: RUN | LEARNING | {"algorithm": agent, "replay_capacity": 1000} for agent in ("ddpg", "td3")
}
# The rows that look through a model, and what of the above they have no knobs for.
ONLY_MBPO = {"min_replay_rows", "epoch_steps", "rollout_length_schedule", "retain_epochs"}
ONLY_ROLLOUTS = ONLY_MBPO | {"rollout_batch", "real_fraction"}
THROUGH_MODEL = {
    "mve": {name: value for name, value in MBPO.items() if name not in ONLY_ROLLOUTS}
    | {"algorithm": "mve", "expansion_steps": 2},
    "steve": {name: value for name, value in MBPO.items() if name not in ONLY_ROLLOUTS}
    | {"algorithm": "steve", "expansion_steps": 2},
    "maac": {name: value for name, value in MBPO.items() if name not in ONLY_MBPO}
    | {"algorithm": "maac", "horizon": 2},
    "bmpo": MBPO
    | {
        "algorithm": "bmpo",
        "backward_length_schedule": "0,2,0,1",
        "beta_schedule": "0,2,1,0",
        "planning_steps": 2,
        "planning_candidates": 5,
        "backward_epochs": 1,
    },
    "double_horizon": {
        name: value for name, value in MBPO.items() if name not in {*ONLY_MBPO, "real_fraction", "model_weight_decays"}
    }
    | {
        "algorithm": "double_horizon",
        "model_weight_decays": "0,0",
        "dropout": 0.2,
        "fit_max_gradient_steps": 12,  # more than two epochs take; steps fall from 6 on
        "early_fit_factor": 2,
        "early_fit_rows": 70,  # after the first fit or two
        "fit_every_steps": 10,
        "rollout_batch": 16,
        "rollout_length": 2,
        "retain_rounds": 3,  # fewer than there are: the buffer wraps
        "horizon": 2,
        "critic_updates": 4,
        "updates_per_rollout": 5,
        "num_critics": 3,
    },
    "svg": {name: value for name, value in MBPO.items() if name not in ONLY_ROLLOUTS}
    | {"algorithm": "svg", "num_members": 1, "num_elites": 1, "target_copy_updates": 7},
    "sac_svg": RUN
    | LEARNING
    | {
        "algorithm": "sac_svg",
        "replay_capacity": 100,
        "warmup_steps": 75,
        "scale_every_steps": 20,
        "dynamics": "gru",
        "model_hidden_units": 8,
        "model_hidden_layers": 1,
        "model_batch_size": 16,
        "fit_minibatches": 2,
        "first_target_entropy": 0,
        "entropy_decay_steps": 80,
    },
}
# The rows of tables, in the lake where both kinds of end occur and chance moves.
TABLE = RUN | {"env": "FrozenLake-v1", "num_steps": 120, "planning_updates": 3, "replay_capacity": 50}
TABLES = {
    "q_planning": TABLE | {"algorithm": "q_planning", "replay_capacity": 200},  # which keeps all rows
    "dyna_q": TABLE | {"algorithm": "dyna_q", "prioritised_sweeping": "true", "table_model": "counting"},
}
# The rows that plan, and have no agent that learns.
NO_AGENT = {"updates_per_step", "batch_size", "hidden_units", "num_hidden_layers"}
PLANNING = {
    "pets": {name: value for name, value in MBPO.items() if name not in ONLY_ROLLOUTS | NO_AGENT}
    | {
        "algorithm": "pets",
        "horizon": 3,
        "num_particles": 3,
        "num_elites": 3,
        "num_candidates": 6,
        "elite_candidates": 2,
        "iterations": 2,
        "reward_fn": "mbpo_jax.rewards:one_each_step",
    }
}
# The rows that learn from a data set, which `write_data_set` makes.
OFFLINE = RUN | {
    "num_steps": 40,
    "log_every_steps": 10,
    "eval_every_steps": 20,
    "checkpoint_every_steps": 20,
    "updates_per_call": 5,
    "batch_size": 16,
    "hidden_units": 8,
    "num_hidden_layers": 1,
}
MOPO = OFFLINE | {
    "algorithm": "mopo",
    "rollout_every_updates": 15,  # at 1, 16 and 31
    "rollout_length": 2,
    "rollout_batch": 64,
    "retain_rounds": 2,
    "real_fraction": 0.25,
    "obs_scaling": "standard",
    "termination_fn": "learned",
    "num_members": 3,
    "num_elites": 2,
    "model_hidden_units": 8,
    "model_weight_decays": "5e-5,1e-4",
    "model_batch_size": 16,
    "fit_slice_minibatches": 2,
    "fit_patience_epochs": 0,
    "fit_improvement": 0.9,
}
OFFLINE_ROWS = {"bc": OFFLINE | {"algorithm": "bc"}, "td3_bc": OFFLINE | {"algorithm": "td3_bc"}, "mopo": MOPO}
SAC = RUN | LEARNING | {"algorithm": "sac", "env": "Hopper-v5", "replay_capacity": 1000, "num_steps": 100}


def argv(run_dir, knobs=MBPO, **changes):
    return [f"--{name}={value}" for name, value in (knobs | changes | {"run_dir": run_dir}).items()]


def train(run_dir, knobs=MBPO, **changes):
    """Runs in this process; returns loop.Result. Draws no curves in the end: it takes a third of a tiny run."""
    with mock.patch.object(curves, "draw_curves"):
        return loop.train(*flags.parse(argv(run_dir, knobs, **changes)))


def write_data_set(path, num_rows=120, seed=0, obs_dim=4, largest_action=3.0):
    """Writes rows of InvertedPendulum's sizes, in episodes of 8 whose ends alternate, as an .npz; returns its path."""
    rng = np.random.default_rng(seed)
    obs = rng.normal(size=(num_rows, obs_dim)).astype(np.float32)
    ends = np.arange(num_rows) % 8 == 7
    arrays = {
        "observations": obs,
        "actions": rng.uniform(-largest_action, largest_action, (num_rows, 1)).astype(np.float32),
        "rewards": rng.normal(size=num_rows).astype(np.float32),
        "next_observations": (obs + rng.normal(size=obs.shape)).astype(np.float32),
        "terminals": ends & (np.arange(num_rows) % 16 == 7),
        "timeouts": ends & (np.arange(num_rows) % 16 == 15),
    }
    np.savez(path, **arrays)
    return path


def build(row):
    """The algorithm of an offline row, in its tiny config."""
    entry = REGISTRY[row]
    return entry.build(entry.tiny_config(), entry.spec)


TAKE = jax.jit(replay.take)


def rows_of(buffer):
    """The rows in a buffer, the oldest first, in NumPy; one program for any number of them."""
    rows = TAKE(buffer, np.arange(replay.capacity(buffer)))
    return jax.tree.map(lambda leaf: np.asarray(leaf)[: int(buffer.size)], rows)


def build_mbpo():
    """The algorithm of the runs above, and its spec; compiled, it is the very program that they run."""
    _, config = flags.parse(argv("unused"))
    spec = Spec(4, 1, terminations.inverted_pendulum)
    return REGISTRY["mbpo"].build(config, spec), spec


def command(*arguments, **environment):
    """Runs Python in a process of its own, which shares our compilation cache; returns what it did."""
    return subprocess.run(
        [sys.executable, "-W", "error", *map(str, arguments)],
        env=process_environment(**environment),
        capture_output=True,
        text=True,
        timeout=600,
    )


def process_environment(**changes):
    shared = {
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
    }
    return {**os.environ, **shared, **changes}


@contextlib.contextmanager
def full_disk(num_bytes):
    """No file of this process can grow beyond so many bytes: writes fail, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def saved(run_dir):
    """The newest checkpoint of a run."""
    return Checkpoints(Path(run_dir), 10).restore_latest()


def lines(run_dir, seed=None):
    """The lines of metrics without what depends on the clock and on what was compiled before."""
    volatile = ("seconds/", "compilations")
    return [
        {name: value for name, value in line.items() if not name.startswith(volatile)}
        for line in metrics.read(Path(run_dir) / "metrics.jsonl")
        if seed is None or line["seed"] == seed
    ]


def assert_same_bits(actual, expected):
    """Two trees of arrays are equal, to the last bit."""
    named, named_expected = jax.tree.leaves_with_path(actual), jax.tree.leaves_with_path(expected)
    assert [path for path, _ in named] == [path for path, _ in named_expected]
    assert len(named) > 0
    for (path, leaf), (_, wanted) in zip(named, named_expected, strict=True):
        leaf, wanted = np.asarray(leaf), np.asarray(wanted)
        where = jax.tree_util.keystr(path)
        assert (leaf.dtype, leaf.shape) == (wanted.dtype, wanted.shape), where
        assert leaf.tobytes() == wanted.tobytes(), where


def timeless(record):
    """The JSON of a checkpoint without what depends on the clock."""
    clock = ("seconds", "seconds_total", "metrics_offset", "metrics_crc32")
    items = ((name, value) for name, value in record.items() if name not in clock)
    return {name: timeless(value) if isinstance(value, dict) else value for name, value in items}


def assert_same_run(run_dir, expected_dir):
    """Two runs ended in the same state, having told the same; the clock aside."""
    ours, theirs = saved(run_dir), saved(expected_dir)
    assert_same_bits(ours.arrays, theirs.arrays)
    assert timeless(ours.record) == timeless(theirs.record)
    assert lines(run_dir) == lines(expected_dir)


def main(arguments):
    """`python tiny_runs.py MOMENT SIGNAL flags...`: mbpo_jax.main, hit by a signal of its own at a moment.

    MOMENT is `fit:STEP` (the seeds' fits have begun and have had two slices) or `save:STEP` (the
    checkpoint of that step is being written).
    """
    import threading
    import time

    from mbpo_jax import main as command_line
    from mbpo_jax.driver.phase_runner import PhaseRunner

    (kind, at), number = arguments[0].split(":"), signal.Signals[arguments[1]]
    run, save = PhaseRunner.run, Checkpoints.save

    def run_and_hit(self, roots, step, state, replay, done, should_stop, *hooks):
        asked = [0]

        def hit():
            asked[0] += 1
            if asked[0] == 4 and self.phase.name == "fit_model" and step == int(at):
                os.kill(os.getpid(), number)
            return should_stop()

        return run(self, roots, step, state, replay, done, hit, *hooks)

    def save_and_hit(self, step, *rest):
        if step == int(at):
            threading.Thread(target=lambda: (time.sleep(0.03), os.kill(os.getpid(), number))).start()
        save(self, step, *rest)

    if kind == "fit":
        PhaseRunner.run = run_and_hit
    else:
        Checkpoints.save = save_and_hit
    return command_line.main(arguments[2:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
