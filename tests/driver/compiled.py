"""What tests prepare and look with, compiled. Op by op each new shape costs a program of its own for each operation."""

import functools

import jax

from mbpo_jax import health, replay

LONG_RUN = {"xla_backend_optimization_level": 1}
"""Compiler options of a program that runs for seconds: compiling takes half as long again, running a third."""

first_fault = jax.jit(health.first_fault)
add = jax.jit(replay.add)
take = jax.jit(replay.take)
sample = jax.jit(replay.sample, static_argnums=2)


@functools.partial(jax.jit, static_argnums=(0, 1))
def filled(spec, capacity, rows, first=None):
    """Returns a buffer of so many rows to which `rows` were added; `first` [B]: which of them began an episode."""
    return replay.add(replay.init(spec, capacity, episodes=first is not None), rows, first=first)
