"""The seed axis: how functions of one seed run for all seeds. The choice is made here, in one place.

Two liftings. `each` runs the seeds one after another with one executable, their arrays spread over the local
devices; seed i of n equals seed i alone bit for bit. `vmap` batches them; it suits devices that are bound by
launches, and agrees to rounding. A value "of all seeds" is a tuple of S values under `each` and one stacked
[S, ...] value under `vmap`; only `split` and `join` look inside.
"""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mbpo_jax.driver.config import AUTO
from mbpo_jax.types import Array, Key, Phase, PyTree, always_finished


class SeedAxis:
    """Lifts functions of one seed over `num_seeds` of them."""

    def __init__(self, num_seeds: int, lifting: str = AUTO) -> None:
        self.num_seeds = num_seeds
        self.batched = lifting == "vmap" or (lifting == AUTO and jax.default_backend() != "cpu")

    def lift(
        self, fn: Callable[..., Any], shared: Sequence[int] = (), donate: Sequence[int] = (), outputs: int = 1
    ) -> Callable[..., Any]:
        """Compiles `fn` and lifts it.

        Args:
          shared: positions of arguments that are the same for all seeds.
          donate: positions of arguments that the result replaces.
          outputs: how many values `fn` returns; more than one come as a tuple of values of all seeds.
        """
        fn = _with_strong_types(fn)
        if self.batched:

            def batched(*args: Any) -> Any:
                return jax.vmap(fn, in_axes=tuple(None if i in shared else 0 for i in range(len(args))))(*args)

            return jax.jit(batched, donate_argnums=tuple(donate))
        one = jax.jit(fn, donate_argnums=tuple(donate))

        def each(*args: Any) -> Any:
            results = []
            for seed in range(self.num_seeds):
                results.append(one(*(arg if i in shared else arg[seed] for i, arg in enumerate(args))))
            return tuple(results) if outputs == 1 else tuple(zip(*results))

        return each

    def lift_phase(self, index: int, phase: Phase) -> "PhaseRunner":
        """Compiles and lifts a phase; `index` tells its stream of keys from those of other phases."""
        return PhaseRunner(self, index, phase)

    def keys(self, seeds: Sequence[int]) -> PyTree:
        """Root keys of all seeds, on the devices where their arrays are to live."""
        devices = jax.local_devices()
        keys = [jax.random.key(seed) for seed in seeds]
        if not self.batched and len(devices) > 1:
            keys = [jax.device_put(key, devices[i % len(devices)]) for i, key in enumerate(keys)]
        return self.join(keys)

    def beside(self, roots: PyTree, value: PyTree) -> PyTree:
        """`value` of all seeds, moved to the devices of their root keys; for what is made from no key."""
        if self.batched:
            return value
        return tuple(
            jax.device_put(mine, root.sharding) if root.committed else mine
            for mine, root in zip(value, roots, strict=True)
        )

    def join(self, values: Sequence[PyTree]) -> PyTree:
        """One value of all seeds from S values of one seed."""
        if not self.batched:
            return tuple(values)
        on_host = all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(values))
        stack = np.stack if on_host else jnp.stack
        return jax.tree.map(lambda *leaves: stack(leaves), *values)

    def split(self, value: PyTree) -> list[PyTree]:
        """S values of one seed from one value of all seeds."""
        if not self.batched:
            return list(value)
        return [jax.tree.map(operator.itemgetter(i), value) for i in range(self.num_seeds)]


class PhaseRunner:
    """A phase of all seeds, run in slices until every seed is done."""

    def __init__(self, axis: SeedAxis, index: int, phase: Phase) -> None:
        def run(root: Key, step: Array, state: PyTree, replay: PyTree) -> tuple[PyTree, PyTree]:
            return phase.run(jax.random.fold_in(jax.random.fold_in(root, 1000 + index), step), state, replay)

        def run_active(root: Key, step: Array, state: PyTree, replay: PyTree, active: Array, metrics: PyTree) -> Any:
            return _select(active, run(root, step, state, replay), (state, metrics))

        self.phase = phase
        self._axis = axis
        self._one = jax.jit(_with_strong_types(run), donate_argnums=2)
        self._all = axis.lift(run, shared=(1,), donate=(2,), outputs=2)
        self._active = axis.lift(run_active, shared=(1,), donate=(2,), outputs=2)

    def run(
        self,
        roots: PyTree,
        step: int,
        state: PyTree,
        replay: PyTree,
        done: list[bool],
        should_stop: Callable[[], bool],
    ) -> tuple[PyTree, list[PyTree | None]]:
        """Runs slices until all of `done` hold or `should_stop()`, asked before each; `done` is updated.

        Returns:
          The state, and the metrics of every seed that came to its end in this call; None for the others.
        """
        before = list(done)
        if self._axis.batched:
            state, metrics = self._run_batched(roots, step, state, replay, done, should_stop)
        else:
            state, metrics = self._run_each(roots, step, state, replay, done, should_stop)
        ended = [now and not was for was, now in zip(before, done, strict=True)]
        return state, [values if mine else None for values, mine in zip(metrics, ended, strict=True)]

    def _run_each(
        self,
        roots: PyTree,
        step: int,
        state: PyTree,
        replay: PyTree,
        done: list[bool],
        should_stop: Callable[[], bool],
    ) -> tuple[PyTree, list[PyTree]]:
        states, metrics = list(state), [None] * self._axis.num_seeds
        for i in range(self._axis.num_seeds):
            while not done[i]:
                if should_stop():
                    return tuple(states), metrics
                states[i], metrics[i] = self._one(roots[i], step, states[i], replay[i])
                done[i] = not self.phase.unfinished(states[i])
        return tuple(states), metrics

    def _run_batched(
        self,
        roots: PyTree,
        step: int,
        state: PyTree,
        replay: PyTree,
        done: list[bool],
        should_stop: Callable[[], bool],
    ) -> tuple[PyTree, list[PyTree]]:
        metrics = None
        while not all(done) and not should_stop():
            # Which program runs depends on `done` alone, so that a run that was stopped repeats it bit for bit.
            if not any(done):
                state, metrics = self._all(roots, step, state, replay)
            else:
                # A seed that is done must not begin again while others go on.
                previous = metrics if metrics is not None else self._zero_metrics(roots, step, state, replay)
                state, metrics = self._active(roots, step, state, replay, ~np.asarray(done), previous)
            if self.phase.unfinished is always_finished:
                done[:] = [True] * len(done)
            else:
                unfinished = np.asarray(jax.vmap(self.phase.unfinished)(state))
                done[:] = [was or not now for was, now in zip(done, unfinished.tolist())]
        return state, [None] * len(done) if metrics is None else self._axis.split(metrics)

    def _zero_metrics(self, *args: Any) -> PyTree:
        _, shapes = jax.eval_shape(self._all, *args)
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def _with_strong_types(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn` without weakly typed results, Python numbers among them.

    What reads them would be compiled again once they have become strongly typed: by an update, or by a checkpoint.
    """

    @functools.wraps(fn)
    def strong(*args: Any) -> Any:
        return jax.tree.map(_strong, fn(*args))

    return strong


def _strong(x: Any) -> Any:
    if isinstance(x, bool | int | float) or getattr(x, "weak_type", False):
        return jax.lax.convert_element_type(x, jnp.result_type(x))
    return x


def _select(active: Array, new: PyTree, old: PyTree) -> PyTree:
    return jax.tree.map(lambda n, o: jnp.where(active, n, o), new, old)
