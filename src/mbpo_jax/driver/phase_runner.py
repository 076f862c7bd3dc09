"""Runs a phase for all seeds, program by program, each seed as far as it has to go."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mbpo_jax import health
from mbpo_jax.driver.seeds import SeedAxis
from mbpo_jax.health import Fault
from mbpo_jax.replay import Replay
from mbpo_jax.types import FINISHED, Array, Key, Metrics, Phase, ProgramFn, PyTree

FIRST_STREAM = 1000  # stream of keys of phase number 0


def ignore(*given: Any) -> None:
    """Accepts anything: the default hooks of `PhaseRunner.run`."""


class PhaseRunner:
    """A phase for all seeds, run program by program until every seed is done."""

    def __init__(
        self,
        axis: SeedAxis,
        index: int,
        phase: Phase,
        compiler_options: Mapping[str, str] | None = None,
        shared_rows: bool = False,
    ) -> None:
        """Compiles the programs of a phase.

        Args:
          index: index of the phase among those of its algorithm.
          shared_rows: whether all seeds have the same real rows, see `SeedAxis.share`.
        """
        self.phase = phase
        self._axis = axis
        self._due = axis.lift(phase.programs.due)

        def lift(fn: Callable[..., Any]) -> Callable[..., Any]:
            shared = (1, 3) if shared_rows else (1,)
            return axis.lift(fn, shared=shared, donate=(2,), outputs=4, compiler_options=compiler_options)

        programs = [_program(FIRST_STREAM + index, run, phase.programs.due) for run in phase.programs.functions]
        if axis.batched:
            self._all = list(map(lift, programs))
            self._active = [lift(_masked(program)) for program in programs]
        else:
            self._one = [axis.jit(program, donate=(2,), compiler_options=compiler_options) for program in programs]

    def run(
        self,
        roots: PyTree,
        step: int,
        state: PyTree,
        replay: PyTree,
        done: list[bool],
        should_stop: Callable[[], bool],
        check: Callable[[int, Fault], None] = ignore,
        show: Callable[[int, Metrics], None] = ignore,
    ) -> tuple[PyTree, list[Metrics]]:
        """Runs programs until all of `done` are true or `should_stop()`, called before each round; updates `done`.

        Args:
          check: receives, after each program that watches anything, the number of the seed and its first fault.
          show: receives the number of a seed and what a program has reported for it.
        Returns:
          The state, and for each seed the newest metrics, on the host, of what ran in this call.
        """
        programs = self._first_programs(state)
        metrics: list[Metrics] = [{} for _ in done]
        run_round = self._run_batched if self._axis.batched else self._run_each
        while not all(done) and not should_stop():
            state, outcomes = run_round(roots, step, state, replay, done, programs)
            for i, (reported, fault, due) in outcomes.items():
                if fault is not None:
                    check(i, fault)
                metrics[i] |= reported
                show(i, reported)
                programs[i] = int(due)
                done[i] = programs[i] == FINISHED
        return state, metrics

    def is_due(self, step: int) -> bool:
        """Returns whether the phase runs after a step."""
        return step >= self.phase.first and (step - self.phase.first) % self.phase.every == 0

    def _first_programs(self, state: PyTree) -> list[int]:
        """Returns each seed's program: the one at which it was stopped, else the first."""
        if len(self.phase.programs.functions) == 1:
            return [0] * self._axis.num_seeds
        return [max(int(program), 0) for program in self._axis.to_host(self._due(state))]

    def _run_each(
        self, roots: PyTree, step: int, state: PyTree, replay: PyTree, done: list[bool], programs: list[int]
    ) -> tuple[PyTree, dict[int, Any]]:
        """Runs one program of every seed that is not done; starts all of them before waiting for the first."""
        states, outcomes = list(state), {}
        for i in (i for i, over in enumerate(done) if not over):
            states[i], *outcomes[i] = self._one[programs[i]](roots[i], step, states[i], replay[i])
        return tuple(states), jax.device_get(outcomes)

    def _run_batched(
        self, roots: PyTree, step: int, state: PyTree, replay: PyTree, done: list[bool], programs: list[int]
    ) -> tuple[PyTree, dict[int, Any]]:
        """Runs the earliest program that an unfinished seed waits for, for all seeds that wait for it.

        What runs depends on `done` and `programs` alone, so that a run that was stopped repeats it bit for bit.
        """
        program = min(index for index, over in zip(programs, done) if not over)
        active = np.asarray([index == program and not over for index, over in zip(programs, done)])
        if active.all():
            state, *outcome = self._all[program](roots, step, state, replay)
        else:
            state, *outcome = self._active[program](roots, step, state, replay, active)
        outcomes = enumerate(self._axis.to_host(outcome))
        return state, {i: mine for i, mine in outcomes if active[i]}


def _program(stream: int, run: ProgramFn, due: Callable[[PyTree], Array | int]) -> Callable[..., Any]:
    """Makes (root, step, state, replay) -> (state, metrics, first fault, program due next), for one seed."""

    def program(root: Key, step: Array, state: PyTree, replay: PyTree) -> tuple[PyTree, Metrics, Fault | None, Array]:
        state, report = run(jax.random.fold_in(jax.random.fold_in(root, stream), step), state, replay)
        return state, report.metrics, health.first_fault(report.watched), jnp.asarray(due(state), jnp.int32)

    return program


def _masked(program: Callable[..., Any]) -> Callable[..., Any]:
    """Adds an argument to `program`: whether this seed takes part. If it does not, its state stays as it is."""

    def run(root: Key, step: Array, state: PyTree, replay: PyTree, active: Array) -> Any:
        new_state, *outcome = program(root, step, state, replay)
        return _select(active, new_state, state), *outcome

    return run


def _select(active: Array, new: PyTree, old: PyTree) -> PyTree:
    """Takes `new` if `active` [], else `old`; always takes the buffers of `new`, see `types.Programs`."""

    def choose(new: Any, old: Any) -> Any:
        return new if isinstance(new, Replay) else jnp.where(active, new, old)

    return jax.tree.map(choose, new, old, is_leaf=lambda leaf: isinstance(leaf, Replay))
