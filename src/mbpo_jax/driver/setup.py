"""What a run works with from its first step to its last, built in the order that reveals mistakes soonest."""

import functools
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple

from mbpo_jax import backends
from mbpo_jax import replay as replay_lib
from mbpo_jax.algorithms import REGISTRY
from mbpo_jax.data_sets.data_set import DataSet
from mbpo_jax.data_sets.describe import describe
from mbpo_jax.driver import fitted_model, jax_settings, memory, offline
from mbpo_jax.driver.config import RunConfig
from mbpo_jax.driver.interaction import task as tasks
from mbpo_jax.driver.interaction.acting import Acting, ActingFunctions, compile_acting
from mbpo_jax.driver.interaction.seed_environments import SeedEnvironments
from mbpo_jax.driver.interaction.spaces import spaces_to_json
from mbpo_jax.driver.interaction.task import Task
from mbpo_jax.driver.phase_runner import PhaseRunner
from mbpo_jax.driver.seeds import SeedAxis
from mbpo_jax.types import Algorithm, Array, Key, PyTree, Spec, Transition

PROGRAMS_KEPT = 4  # for the most recently used kinds of run in this process


class Programs(NamedTuple):
    """An algorithm and its functions, compiled for all seeds. Holds no arrays and no environment."""

    algorithm: Algorithm
    axis: SeedAxis
    phases: tuple[PhaseRunner, ...]
    acting: ActingFunctions
    init: Callable[..., PyTree]  # roots -> state of all seeds
    # For algorithms that step an environment:
    new_buffer: Callable[..., PyTree]  # roots -> replay of all seeds
    add: Callable[..., PyTree]  # (replay, row, first), each of all seeds -> replay
    # For offline ones with critics: (state of all seeds, obs [B, O]) -> mean value [] of each seed's policy there
    value: Callable[..., PyTree] | None


class Setup(NamedTuple):
    """Environments, and the programs of the algorithm that is trained in them."""

    run: RunConfig
    task: Task
    programs: Programs
    envs: SeedEnvironments
    acting: Acting
    roots: PyTree  # root keys of all seeds
    data_set: DataSet | None  # rows that the algorithm may learn from; None: it learns from the environments
    data_set_json: dict[str, Any]  # what `config.json` keeps of the data set as it was read
    data_set_lines: list[str]  # what is said of it, and of a fitted model, before the first step
    rule: str | None  # what --termination_fn was; None for an algorithm that imagines nothing


class Arrays(NamedTuple):
    """All arrays that a run computes with, of all seeds. Replaced, never modified."""

    state: PyTree  # of the algorithm
    replay: PyTree  # real rows; those of a data set are shared, see `SeedAxis.share`
    carry: PyTree  # what policies carry from step to step of their running episodes


def build(run: RunConfig, config: Any, stack: ExitStack) -> Setup:
    """Opens the environments, which `stack` closes, and builds the algorithm for them.

    Raises:
      ValueError: a knob does not fit the environment, or the memory of this machine; a data set cannot be used; or a
        setting of jax cannot be supported.
      EnvironmentFailure: an environment failed while it was made.
    """
    jax_settings.check()
    envs = SeedEnvironments(run, stack)
    if envs.spaces is not None:
        tasks.check_supported(run, envs.spaces)
    data_set = offline.read(run, envs.spaces) if run.dataset else None
    spaces = envs.spaces if data_set is None else envs.spaces or offline.spaces(data_set)
    assert spaces is not None  # ensured by `check_source`
    task = tasks.resolve(run.env, spaces, config)
    algorithm = tasks.build(run, config, task.spec, None if data_set is None else data_set.env_id)
    jax_settings.check(f", set by what --env={run.env} imports; --env_timeout_s gives it a process of its own")
    memory.check_room(lambda key: _new_arrays(algorithm, task.spec, data_set, key), len(run.seeds), config)
    rule = tasks.rule_name(config)
    recorded: dict[str, Any] = {}
    lines: list[str] = []
    if data_set is not None:
        as_read, data_set = data_set, offline.usable(data_set, algorithm, rule)
        recorded, lines = offline.to_json(as_read), describe(as_read._replace(notes=data_set.notes))
    programs = compile_programs(
        REGISTRY[run.algorithm].build,
        config,
        task.spec,
        len(run.seeds),
        run.seed_lifting,
        run.deterministic,
        run.compiler_options,
        data_set is not None,
    )
    if run.fitted_model:
        made = run, config, algorithm, data_set, task.spaces, programs.axis, programs.phases
        phases, notes = fitted_model.in_place_of_the_fit(*made)
        programs, lines = programs._replace(phases=phases), [*lines, *notes]
    acting = Acting(programs.algorithm, programs.acting, programs.axis, envs, task.spaces, run.seeds)
    roots = programs.axis.keys(run.seeds)
    return Setup(run, task, programs, envs, acting, roots, data_set, recorded, lines, rule)


@functools.lru_cache(maxsize=PROGRAMS_KEPT)
def compile_programs(
    build_algorithm: Callable[[Any, Spec], Algorithm],
    config: Any,
    spec: Spec,
    num_seeds: int,
    seed_lifting: str,
    deterministic: bool,
    compiler_options: str,
    shared_rows: bool,
) -> Programs:
    """Builds an algorithm and lifts its functions, once for all runs of this process that need the same ones.

    Continuing or extending a run in a notebook recompiles nothing.
    """
    algorithm = build_algorithm(config, spec)
    axis = SeedAxis(num_seeds, seed_lifting, backends.deterministic_options() if deterministic else {})
    options = backends.compiler_options(compiler_options, [phase.name for phase in algorithm.phases])

    def new_buffer(root: Key) -> replay_lib.Replay:
        return _new_buffer(algorithm, spec)

    return Programs(
        algorithm=algorithm,
        axis=axis,
        phases=tuple(
            PhaseRunner(axis, i, phase, options[phase.name], shared_rows) for i, phase in enumerate(algorithm.phases)
        ),
        acting=compile_acting(algorithm, axis, spec.action_dim, spec.one_hot_actions),
        init=axis.lift(algorithm.init),
        new_buffer=axis.lift(new_buffer),
        add=axis.lift(_add, donate=(0,)),
        value=offline.compile_value(algorithm, axis) if shared_rows else None,
    )


def first_arrays(setup: Setup) -> Arrays:
    """Returns the arrays that a run begins with."""
    programs = setup.programs
    state = programs.init(setup.roots)
    if setup.data_set is None:
        replay = programs.axis.place(programs.new_buffer(setup.roots))  # reads no key, so its device is not fixed
    else:
        replay = programs.axis.share(offline.as_replay(setup.data_set))
    return Arrays(state, replay, setup.acting.first_carry(setup.roots, state))


def distinct_rows(setup: Setup, replay: PyTree) -> list[replay_lib.Replay]:
    """Returns the buffers of real rows of all seeds, or just the one that they share."""
    if setup.data_set is None:
        return setup.programs.axis.split(replay)
    return [replay if setup.programs.axis.batched else replay[0]]


def num_real_rows(setup: Setup, step: int) -> int:
    """Returns the real rows that a seed has after a step."""
    if setup.data_set is not None:
        return int(setup.data_set.reward.size)
    return min(step, setup.programs.algorithm.replay_capacity)


def values_of_data(setup: Setup, state: PyTree) -> list[dict[str, Any]]:
    """Returns metrics of each seed's policy that need no environment: its critics' value of the data's first states.

    Empty for a run in an environment, and for an agent without critics.
    """
    if setup.data_set is None or setup.programs.value is None:
        return [{} for _ in setup.run.seeds]
    values = setup.programs.value(state, offline.first_states(setup.data_set))
    return [{"eval/start_value_mean": value} for value in setup.programs.axis.to_host(values)]


def task_to_json(setup: Setup) -> dict[str, Any]:
    """Returns what `config.json` keeps of the task: its spaces, and which data set it uses, wherever that lies."""
    return spaces_to_json(setup.task.spaces) | setup.data_set_json


def _new_arrays(algorithm: Algorithm, spec: Spec, data_set: DataSet | None, key: Key) -> PyTree:
    """Returns what is allocated for one seed."""
    return algorithm.init(key), () if data_set is not None else _new_buffer(algorithm, spec)


def _new_buffer(algorithm: Algorithm, spec: Spec) -> replay_lib.Replay:
    return replay_lib.init(spec, algorithm.replay_capacity, episodes=True)


def _add(replay: replay_lib.Replay, row: Transition, first: Array) -> replay_lib.Replay:
    return replay_lib.add(replay, row, first=first)
