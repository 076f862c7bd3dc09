"""The seed axis: how functions of one seed run for all seeds. The choice is made here, in one place.

There are two ways to lift. `each` gives every seed an execution of its own, on the device where its arrays live, so
that seeds on different devices run at the same time; seed i of n equals seed i alone bit for bit. `vmap` batches them,
in equal shares over a mesh of the local devices; it suits devices that are launch-bound, and agrees up to rounding. A
value "of all seeds" is a tuple of S values under `each` and one stacked [S, ...] value under `vmap`: `split` and `join`
convert from one to S values and back.
"""

import functools
import operator
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mbpo_jax import backends
from mbpo_jax.driver.config import AUTO
from mbpo_jax.types import PyTree

SEED = "seed"  # the mesh axis
ASYNC_DISPATCH = "jax_cpu_enable_async_dispatch"  # jax's option; a user may set the variable of that name


def num_cores() -> int:
    """Returns the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_cores(num_seeds: int) -> None:
    """Makes the CPU count as several devices, one per seed up to the number of cores, unless the user has set a number.

    Two programs, each on a device of its own, use two cores better than one program uses both. One seed waits for each
    of its programs anyway, so they run in the calling thread: handing the small ones of an environment step to another
    thread takes as long as they do. Must be called before the first computation of the process; later it does nothing.
    """
    if num_seeds == 1 and ASYNC_DISPATCH.upper() not in os.environ:
        jax.config.update(ASYNC_DISPATCH, False)
    chosen = jax.config.values["jax_num_cpu_devices"] != -1
    if chosen or "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    try:
        jax.config.update("jax_num_cpu_devices", min(num_seeds, num_cores()))
    except RuntimeError:  # computations have begun
        pass


class SeedAxis:
    """Lifts functions of one seed over `num_seeds` of them."""

    def __init__(self, num_seeds: int, lifting: str = AUTO, compiler_options: Mapping[str, str] | None = None) -> None:
        """Distributes the seeds over the local devices.

        Args:
          lifting: each, vmap, or auto for the device's default.
          compiler_options: XLA options for everything that is compiled here.
        """
        self.num_seeds = num_seeds
        self._compiler_options = dict(compiler_options or {})
        # One seed has nothing to be batched with, and a batch of one would still select instead of branching.
        self.batched = num_seeds > 1 and (backends.choices().seed_lifting if lifting == AUTO else lifting) == "vmap"
        devices = jax.local_devices()
        if self.batched:
            shards = max(n for n in range(1, len(devices) + 1) if num_seeds % n == 0)
            mesh = Mesh(np.array(devices[:shards]), (SEED,))
            self._mesh = mesh if shards > 1 else None
        else:
            self._devices = [devices[i % len(devices)] for i in range(num_seeds)] if len(devices) > 1 else None

    def lift(
        self,
        fn: Callable[..., Any],
        shared: Sequence[int] = (),
        donate: Sequence[int] = (),
        outputs: int = 1,
        compiler_options: Mapping[str, str] | None = None,
    ) -> Callable[..., Any]:
        """Compiles `fn` and lifts it.

        Args:
          shared: positions of arguments that are the same for all seeds.
          donate: positions of arguments that the result replaces.
          outputs: how many values `fn` returns; more than one come as a tuple of values of all seeds.
          compiler_options: for XLA.
        """
        if self.batched:
            return self.jit(self._batch(fn, shared), donate, compiler_options)
        one = self.jit(fn, donate, compiler_options)

        def each(*args: Any) -> Any:
            results = []
            for seed in range(self.num_seeds):
                results.append(one(*(arg if i in shared else arg[seed] for i, arg in enumerate(args))))
            return tuple(results) if outputs == 1 else tuple(zip(*results))

        return each

    def keys(self, seeds: Sequence[int]) -> PyTree:
        """Returns the root keys of all seeds, on the devices where their arrays are to live."""
        return self.place(self.join([jax.random.key(seed) for seed in seeds]))

    def place(self, value: PyTree) -> PyTree:
        """Moves a value of all seeds to the devices where they live; leaves it uncommitted if there is only one."""
        if self.batched:
            return (
                value if self._mesh is None else jax.device_put(value, NamedSharding(self._mesh, PartitionSpec(SEED)))
            )
        if self._devices is None:
            return value
        return tuple(jax.device_put(mine, device) for mine, device in zip(value, self._devices, strict=True))

    def share(self, value: PyTree) -> PyTree:
        """Makes one value the value of all seeds, with one copy for each device where seeds live.

        Batched seeds use it unstacked, so it must be among the `shared` arguments of `lift`.
        """
        if self.batched:
            return value if self._mesh is None else jax.device_put(value, NamedSharding(self._mesh, PartitionSpec()))
        if self._devices is None:
            return (value,) * self.num_seeds
        copies = {device: jax.device_put(value, device) for device in self._devices}
        return tuple(copies[device] for device in self._devices)

    def join(self, values: Sequence[PyTree]) -> PyTree:
        """Makes one value of all seeds from S values of one seed."""
        if not self.batched:
            return tuple(values)
        on_host = all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(values))
        stack = np.stack if on_host else jnp.stack
        return jax.tree.map(lambda *leaves: stack(leaves), *values)

    def split(self, value: PyTree) -> list[PyTree]:
        """Returns S values of one seed from one value of all seeds."""
        if not self.batched:
            return list(value)
        return [jax.tree.map(operator.itemgetter(i), value) for i in range(self.num_seeds)]

    def to_host(self, value: PyTree) -> list[PyTree]:
        """Returns S values of one seed as NumPy arrays: what `split` gives, without a computation on any device."""
        on_host = jax.device_get(value)
        if not self.batched:
            return list(on_host)
        return [jax.tree.map(operator.itemgetter(i), on_host) for i in range(self.num_seeds)]

    def _batch(self, fn: Callable[..., Any], shared: Sequence[int]) -> Callable[..., Any]:
        """Maps `fn` over stacked seeds: each device maps over its share of them without waiting for the others."""

        def batched(*args: Any) -> Any:
            mapped = jax.vmap(fn, in_axes=tuple(None if i in shared else 0 for i in range(len(args))))
            if self._mesh is None:
                return mapped(*args)
            specs = tuple(PartitionSpec() if i in shared else PartitionSpec(SEED) for i in range(len(args)))
            on_mesh = jax.shard_map(
                mapped, mesh=self._mesh, in_specs=specs, out_specs=PartitionSpec(SEED), check_vma=False
            )
            return on_mesh(*args)

        return batched

    def jit(
        self,
        fn: Callable[..., Any],
        donate: Sequence[int] = (),
        compiler_options: Mapping[str, str] | None = None,
    ) -> Callable[..., Any]:
        """Compiles a function of one seed, or of a batch of them."""
        options = (self._compiler_options | dict(compiler_options or {})) or None
        return jax.jit(_with_strong_types(fn), donate_argnums=tuple(donate), compiler_options=options)


def _with_strong_types(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Strips weak types, those of Python numbers included, from the results of `fn`.

    Otherwise whatever reads them would be compiled again once an update or a checkpoint has made them strongly typed.
    """

    @functools.wraps(fn)
    def strong(*args: Any) -> Any:
        return jax.tree.map(_strong, fn(*args))

    return strong


def _strong(x: Any) -> Any:
    if isinstance(x, bool | int | float) or getattr(x, "weak_type", False):
        return jax.lax.convert_element_type(x, jnp.result_type(x))
    return x
