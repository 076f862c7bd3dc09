"""Knobs of a run that no algorithm reads, and the errors that end a run."""

import dataclasses
import os
import re
from typing import Any

from mbpo_jax import options
from mbpo_jax.algorithms import REGISTRY
from mbpo_jax.driver.storage import files
from mbpo_jax.options import check, option

SMALLER_STEPS = "Try a smaller --learning_rate or, with a model, --model_learning_rate"
DIVERGENCE_ADVICE = f"{SMALLER_STEPS}, or fewer --updates_per_step"
NO_ENVIRONMENT = "none"
AUTO, NEVER = "auto", "never"
OWN, SHARED = "own", "shared"


class EnvironmentFailure(RuntimeError):
    """An environment failed: it raised, returned values that cannot be learnt from, or returned nothing at all."""

    exit_status = 5


class NotFinite(EnvironmentFailure):
    """An observation or reward is not finite in float32. The episode can be given up; the next one may be fine."""


class Broken(EnvironmentFailure):
    """The environment raised, exited, hung or changed its shapes. A new instance may work.

    The environment's own traceback, if there is one, is also attached to the error as a note.
    """

    environment_traceback: str | None = None


class Diverged(RuntimeError):
    """Learning produced a number that is not finite, or beyond `health.LIMIT`. The message ends with `advice`."""

    exit_status = 4

    def __init__(self, what: str, advice: str = "") -> None:
        super().__init__(what)
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.args[0]} {self.advice}".rstrip()


def diverged(what: str, seed: int) -> Diverged:
    """Returns the error that stops a run before a diverged seed is saved; its message begins with `what`."""
    return Diverged(f"{what} (seed {seed}); the newest checkpoint is from before.", DIVERGENCE_ADVICE)


class StorageFailure(RuntimeError):
    """A file of the run directory could not be written or read."""

    exit_status = 6


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """What to run, for how long, and where its files go."""

    algorithm: str = option("mbpo", "Algorithm to train.", choices=REGISTRY)
    env: str = option(
        "InvertedPendulum-v5",
        "Gymnasium id with Box observations and actions, or Discrete ones for tabular algorithms; module:Id imports "
        "the module first. With --dataset, the environment of evaluations, or none.",
    )
    dataset: str = option(
        "",
        "What is learnt from offline: Minari id or folder, HDF5 file of D4RL, .npz file, run directory.",
    )
    fitted_model: str = option(
        "",
        "Directory of an offline run of the same data, model and seeds, to take its model from.",
    )
    seeds: tuple[int, ...] = option(
        (0,),
        "Seeds, separated by commas: an independent agent for each, in one process unless --distributed.",
        minimum=0,
        maximum=2**31 - 1,
    )
    num_steps: int = option(
        5000, "Environment steps per seed, exploration included; offline: agent updates.", minimum=1, maximum=2**31 - 1
    )
    run_dir: str = option(
        AUTO, "Directory of the run's files; an existing run is resumed. auto: runs/<env>-<algorithm>."
    )
    max_episode_steps: int = option(
        0, "Time limit of an episode in environment steps; 0: the environment's own.", minimum=0
    )
    eval_every_steps: int = option(1000, "Environment steps between evaluations; offline: updates.", minimum=1)
    eval_episodes: int = option(5, "Deterministic episodes per evaluation; 0: never evaluated.", minimum=0)
    eval_env: str = option(
        OWN,
        "Where a seed is evaluated: in a separate instance (own), or in the one that it trains in (shared), for "
        "environments that hold something that exists only once, such as a port. With shared, the running episode is "
        "replayed afterwards.",
        choices=(OWN, SHARED),
    )
    log_every_steps: int = option(250, "Environment steps between lines of metrics; offline: updates.", minimum=1)
    checkpoint_every_steps: int = option(1000, "Environment steps between checkpoints; offline: updates.", minimum=1)
    checkpoints_kept: int = option(
        2, "Newest checkpoints to keep; the one of the best evaluation is kept as well.", minimum=1
    )
    env_nonfinite_episodes: int = option(
        10,
        "Episodes per seed that may be given up because the environment returned a value that is not finite, "
        "counted separately in training and in evaluation. The step is not stored.",
        minimum=0,
    )
    env_timeout_s: int = option(
        0,
        "Seconds after which a reset or step of the environment counts as hung; with a limit, every environment runs "
        "in a process of its own. 0: no limit.",
        minimum=0,
    )
    env_restarts: int = option(
        0,
        "Times per seed that an environment is made again after it has raised, exited, hung or changed shape, "
        "counted separately in training and in evaluation.",
        minimum=0,
    )
    deterministic: bool = option(
        False, "Ask for the same numbers in every run on a GPU, with slower kernels; a CPU gives them anyway."
    )
    seed_lifting: str = option(
        AUTO,
        "How several seeds are computed: each (one execution per seed, spread over local devices), vmap "
        "(batched), or auto (each on CPU, vmap elsewhere).",
        choices=(AUTO, "each", "vmap"),
    )
    compiler_options: str = option(
        AUTO,
        "XLA options of phases, as phase:name=value,...; none; or auto: measured choices on CPU, elsewhere none.",
    )
    compile_cache: str = option(
        AUTO, "Folder that keeps compiled programs for later runs; off; or auto: the user's cache folder."
    )
    profile: int = option(
        0, "Environment steps to trace into <run_dir>/profile, once every phase has run; 0: none.", minimum=0
    )
    tensorboard: bool = option(False, "Also write TensorBoard files; needs the extra 'tensorboard'.")
    quiet: bool = option(False, "Print nothing but errors.")
    distributed: bool = option(
        False,
        "Share the seeds with the other processes of this launch through jax.distributed; SLURM, Open MPI and TPU "
        "pods are detected.",
    )
    coordinator: str = option(
        "", "host:port of process 0; with --num_processes and --process_id, if no launch is detected."
    )
    num_processes: int = option(0, "Processes that share the seeds; 0: detected.", minimum=0)
    process_id: int = option(-1, "Index of this process among --num_processes, from 0; -1: detected.", minimum=-1)

    def __post_init__(self) -> None:
        check(self)
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must differ from one another, got {self.seeds!r}")
        if not self.env:
            raise ValueError("env must be a Gymnasium id, got ''")
        for name in ("compiler_options", "compile_cache"):
            if not getattr(self, name):
                raise ValueError(f"{name} must not be empty, got ''")
        if not self.run_dir:
            raise ValueError("run_dir must be a directory or 'auto', got ''")
        for name in ("run_dir", "compile_cache", "fitted_model"):
            try:
                files.local_path(getattr(self, name))
            except ValueError as error:
                raise ValueError(f"{name} {error}") from error
        _check_processes(self)

    @property
    def directory(self) -> str:
        """Returns `run_dir`, with auto and a home directory resolved."""
        if self.run_dir != AUTO:
            return os.path.expanduser(self.run_dir)
        return f"runs/{re.sub(r'[^A-Za-z0-9._-]+', '_', self.env)}-{self.algorithm}"


# What may change when a run is resumed: its length, and what it prints and keeps.
RESUMABLE_CHANGES = frozenset(
    {
        "num_steps",
        "run_dir",
        "dataset",  # its location; its contents may not change
        "fitted_model",  # saves time and changes no number
        "checkpoint_every_steps",
        "checkpoints_kept",
        "seed_lifting",
        "compiler_options",
        "compile_cache",
        "eval_env",
        "env_nonfinite_episodes",
        "env_timeout_s",
        "env_restarts",
        "deterministic",
        "profile",
        "tensorboard",
        "quiet",
        "distributed",  # num_processes may not change: each process has its own part of the directory
        "coordinator",
        "process_id",
    }
)


def resolve_algorithm_config(run: RunConfig, config: Any = None) -> Any:
    """Returns the knobs of the algorithm that `run` names: `config`, checked, or the defaults if it is None.

    Raises:
      ValueError: the config belongs to another algorithm, or its agent is not that of the algorithm's registry entry.
    """
    entry = REGISTRY[run.algorithm]
    if config is None:
        return entry.default_config()
    if not isinstance(config, entry.config_class):
        wanted = entry.config_class.__name__
        raise ValueError(f"algorithm_config must be a {wanted} for {run.algorithm}, got {config!r}")
    if entry.agent not in (None, options.choices(config).get("agent")):
        wanted, got = (options.sections(one)["agent"] for one in (entry.default_config(), config))
        raise ValueError(f"agent must be {entry.agent} (a {type(wanted).__name__}) for {run.algorithm}, got {got!r}")
    return config


def evaluates(run: RunConfig) -> bool:
    """Returns whether a run plays evaluation episodes."""
    return run.env != NO_ENVIRONMENT and run.eval_episodes > 0


def check_source(run: RunConfig, config: Any) -> None:
    """Checks that a run names what its algorithm learns from, an environment or a data set, and its number of steps.

    Args:
      config: the algorithm's knobs.
    Raises:
      ValueError: names the flag, its value and what is allowed.
    """
    offline = REGISTRY[run.algorithm].offline
    if offline and not run.dataset:
        raise ValueError(
            f"dataset must name what {run.algorithm} learns from: a Minari id or folder, an HDF5 file, an .npz file or "
            "a run directory, got ''"
        )
    if run.dataset and not offline:
        names = ", ".join(name for name, entry in REGISTRY.items() if entry.offline)
        raise ValueError(
            f"dataset is read by {names} only; {run.algorithm} learns from its environment, got {run.dataset!r}"
        )
    if run.env == NO_ENVIRONMENT and not offline:
        raise ValueError(
            f"env must be a Gymnasium id, because {run.algorithm} learns from its environment, got {run.env!r}"
        )
    if offline:
        _check_offline(run, config.updates_per_call)


def _check_offline(run: RunConfig, updates_per_call: int) -> None:
    """Raises ValueError where a knob has nothing to act on offline, or counts updates that come in calls of several."""
    for name in ("num_steps", "eval_every_steps"):
        if getattr(run, name) % updates_per_call:
            raise ValueError(
                f"{name} must be a multiple of updates_per_call, which is {updates_per_call}, got {getattr(run, name)}"
            )
    if run.eval_env == SHARED:
        raise ValueError(
            f"eval_env must be {OWN!r} with a dataset, because no environment is trained in, got {SHARED!r}"
        )
    if run.env == NO_ENVIRONMENT and run.max_episode_steps:
        raise ValueError(f"max_episode_steps must be 0 with env={NO_ENVIRONMENT}, got {run.max_episode_steps}")


def _check_processes(run: RunConfig) -> None:
    """Raises ValueError unless the knobs that identify this process are given together, and with `distributed`."""
    given = {
        "coordinator": run.coordinator != "",
        "num_processes": run.num_processes > 0,
        "process_id": run.process_id >= 0,
    }
    present = [name for name in given if given[name]]
    missing = [name for name in given if not given[name]] + ([] if run.distributed else ["distributed"])
    if present and missing:
        raise ValueError(
            f"{present[0]} must come with distributed and all of {', '.join(given)}, got "
            f"{present[0]}={getattr(run, present[0])!r} without {', '.join(missing)}"
        )
    if not present:
        return
    host, _, port = run.coordinator.rpartition(":")
    if not host or not (port.isdecimal() and 0 < int(port) < 2**16):
        raise ValueError(f"coordinator must be host:port, got {run.coordinator!r}")
    if run.process_id >= run.num_processes:
        raise ValueError(
            f"process_id must be less than num_processes, which is {run.num_processes}, got {run.process_id}"
        )
