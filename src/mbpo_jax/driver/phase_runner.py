"""Runs a phase of all seeds, program by program, each seed as far as it has to go."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mbpo_jax.driver.seeds import SeedAxis
from mbpo_jax.health import Health
from mbpo_jax.types import FINISHED, Array, Key, Metrics, Phase, ProgramFn, PyTree

HEALTH = "health"  # the entry of a phase's metrics that is for the driver, not for a reader
FIRST_STREAM = 1000  # of keys: that of phase number 0


def ignore(i: int, health: Health) -> None:
    """`heed` of `PhaseRunner.run` that is content with anything."""


class PhaseRunner:
    """A phase of all seeds, run program by program until every seed is done."""

    def __init__(
        self, axis: SeedAxis, index: int, phase: Phase, compiler_options: Mapping[str, str] | None = None
    ) -> None:
        self.phase = phase
        self._axis = axis
        self._due = axis.lift(phase.programs.due)

        def lift(fn: Callable[..., Any]) -> Callable[..., Any]:
            return axis.lift(fn, shared=(1,), donate=(2,), outputs=3, compiler_options=compiler_options)

        programs = [_program(FIRST_STREAM + index, run, phase.programs.due) for run in phase.programs.functions]
        if axis.batched:
            self._all, self._active = list(map(lift, programs)), [lift(_of_active(program)) for program in programs]
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
        heed: Callable[[int, Health], None] = ignore,
    ) -> tuple[PyTree, list[PyTree | None]]:
        """Runs programs until all of `done` hold or `should_stop()`, asked before each round; `done` is updated.

        Args:
          heed: is told, after each program, the number of the seed and its health.
        Returns:
          The state, and the metrics of every seed that came to its end in this call, on the host; None for the others.
        """
        before, due, metrics = list(done), self._first_programs(state), None
        advance = self._advance_batched if self._axis.batched else self._advance_each
        while not all(done) and not should_stop():
            state, metrics = advance(roots, step, state, replay, metrics, done, due)
            for i, health in enumerate(self._healths(metrics)):
                if health is not None:
                    heed(i, health)
            done[:] = [was or program == FINISHED for was, program in zip(done, due)]
        told = [None] * len(done) if metrics is None else self._axis.to_host(metrics)
        ended = [now and not was for was, now in zip(before, done, strict=True)]
        return state, [_logged(values) if mine else None for values, mine in zip(told, ended, strict=True)]

    def _healths(self, metrics: PyTree) -> list[Health | None]:
        """The health of each seed in its last program, on the host; None where there was none or it tells none."""
        if self._axis.batched:
            return self._axis.to_host(metrics.get(HEALTH))
        return self._axis.to_host(tuple(values and values.get(HEALTH) for values in metrics))

    def _first_programs(self, state: PyTree) -> list[int]:
        """Each seed's program: the one where a stop left it, else the first."""
        if len(self.phase.programs.functions) == 1:
            return [0] * self._axis.num_seeds
        return [max(int(program), 0) for program in self._axis.to_host(self._due(state))]

    def _advance_each(
        self, roots: PyTree, step: int, state: PyTree, replay: PyTree, metrics: PyTree, done: list[bool], due: list[int]
    ) -> tuple[PyTree, PyTree]:
        """One program of every seed that is not done; all are under way before the first is waited for."""
        states, told = list(state), [None] * len(done) if metrics is None else list(metrics)
        programs: dict[int, Array] = {}
        for i in (i for i, over in enumerate(done) if not over):
            states[i], told[i], programs[i] = self._one[due[i]](roots[i], step, states[i], replay[i])
        for i, program in programs.items():
            due[i] = int(program)
        return tuple(states), tuple(told)

    def _advance_batched(
        self, roots: PyTree, step: int, state: PyTree, replay: PyTree, metrics: PyTree, done: list[bool], due: list[int]
    ) -> tuple[PyTree, PyTree]:
        """The earliest program that a seed not yet done waits for, of all seeds that wait for it.

        What runs depends on `done` and `due` alone, so that a run that was stopped repeats it bit for bit.
        """
        program = min(index for index, over in zip(due, done) if not over)
        active = np.asarray([index == program and not over for index, over in zip(due, done)])
        arguments = (roots, step, state, replay)
        if active.all():
            state, metrics, programs = self._all[program](*arguments)
        else:  # the others must stand still
            metrics = self._zero_metrics(program, arguments) if metrics is None else metrics
            state, metrics, programs = self._active[program](*arguments, active, metrics)
        due[:] = [int(new) if mine else old for new, old, mine in zip(np.asarray(programs), due, active)]
        return state, metrics

    def _zero_metrics(self, program: int, arguments: tuple[Any, ...]) -> PyTree:
        _, shapes, _ = jax.eval_shape(self._all[program], *arguments)
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def _logged(metrics: Metrics) -> Metrics:
    """Metrics that lines are made of."""
    return {name: value for name, value in metrics.items() if name != HEALTH}


def _program(stream: int, run: ProgramFn, due: Callable[[PyTree], Array | int]) -> Callable[..., Any]:
    """(root, step, state, replay) -> (state, metrics, the program that is due after it), of one seed."""

    def program(root: Key, step: Array, state: PyTree, replay: PyTree) -> tuple[PyTree, PyTree, Array]:
        state, metrics = run(jax.random.fold_in(jax.random.fold_in(root, stream), step), state, replay)
        return state, metrics, jnp.asarray(due(state), jnp.int32)

    return program


def _of_active(program: Callable[..., Any]) -> Callable[..., Any]:
    """`program` with two more arguments: whether this seed takes part, and its metrics if it does not."""

    def run(root: Key, step: Array, state: PyTree, replay: PyTree, active: Array, metrics: PyTree) -> Any:
        new_state, new_metrics, due = program(root, step, state, replay)
        return *_select(active, (new_state, new_metrics), (state, metrics)), due

    return run


def _select(active: Array, new: PyTree, old: PyTree) -> PyTree:
    return jax.tree.map(lambda n, o: jnp.where(active, n, o), new, old)
