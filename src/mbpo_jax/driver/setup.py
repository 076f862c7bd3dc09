"""What a run works with from its first step to its last, built in the order in which mistakes show soonest."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple

from mbpo_jax import backends
from mbpo_jax import replay as replay_lib
from mbpo_jax.driver import memory
from mbpo_jax.driver.config import RunConfig
from mbpo_jax.driver.interaction import task as tasks
from mbpo_jax.driver.interaction.acting import Acting
from mbpo_jax.driver.interaction.seed_environments import SeedEnvironments
from mbpo_jax.driver.interaction.task import Task
from mbpo_jax.driver.phase_runner import PhaseRunner
from mbpo_jax.driver.seeds import SeedAxis
from mbpo_jax.types import Algorithm, Array, Key, PyTree, Spec, Transition


class Setup(NamedTuple):
    """Environments, the algorithm, and its functions compiled for all seeds."""

    run: RunConfig
    task: Task
    algorithm: Algorithm
    axis: SeedAxis
    envs: SeedEnvironments
    acting: Acting
    phases: tuple[PhaseRunner, ...]
    add: Callable[..., PyTree]  # (replay, row, first), each of all seeds -> replay
    roots: PyTree  # root keys of all seeds


class Arrays(NamedTuple):
    """Everything that a run computes with, of all seeds. Replaced, never changed."""

    state: PyTree  # of the algorithm
    replay: PyTree  # real rows
    carry: PyTree  # what policies carry from step to step of their running episodes


def build(run: RunConfig, config: Any, stack: ExitStack) -> Setup:
    """Opens the environments, which `stack` closes, and builds the algorithm for them.

    Raises:
      ValueError: a knob does not fit the environment, or the memory of this machine.
      EnvironmentFailure: an environment failed while it was made.
    """
    envs = SeedEnvironments(run, stack)
    task = tasks.resolve(run.env, envs.spaces, config)
    algorithm = tasks.build(run, config, task.spec)
    memory.check_room(lambda key: (algorithm.init(key), _new_buffer(algorithm, task.spec)), len(run.seeds))
    axis = SeedAxis(len(run.seeds), run.seed_lifting, backends.deterministic_options() if run.deterministic else {})
    options = backends.compiler_options(run.compiler_options, [phase.name for phase in algorithm.phases])
    phases = [PhaseRunner(axis, i, phase, options[phase.name]) for i, phase in enumerate(algorithm.phases)]
    acting = Acting(algorithm, axis, envs, run.seeds)
    add = axis.lift(_add, donate=(0,))
    return Setup(run, task, algorithm, axis, envs, acting, tuple(phases), add, axis.keys(run.seeds))


def first_arrays(setup: Setup) -> Arrays:
    """Returns the arrays that a run begins with."""

    def new_buffer(root: Key) -> replay_lib.Replay:
        return _new_buffer(setup.algorithm, setup.task.spec)

    axis = setup.axis
    state = axis.lift(setup.algorithm.init)(setup.roots)
    replay = axis.place(axis.lift(new_buffer)(setup.roots))  # made from no key, so it would lie anywhere
    return Arrays(state, replay, setup.acting.first_carry(setup.roots, state))


def _new_buffer(algorithm: Algorithm, spec: Spec) -> replay_lib.Replay:
    return replay_lib.init(spec, algorithm.replay_capacity, episodes=True)


def _add(replay: replay_lib.Replay, row: Transition, first: Array) -> replay_lib.Replay:
    return replay_lib.add(replay, row, first=first)
