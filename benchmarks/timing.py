"""Times calls in turn with a large float32 product, and says what the rates depend on."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mbpo_jax.driver import memory
from mbpo_jax.driver.seeds import num_cores

PRODUCT_SIZE = 3000  # of the square float32 product that stands for what the machine can do


class Work(NamedTuple):
    """A phase made ready: what one call does, and how much of it."""

    call: Callable[[], Any]  # runs once, to the end
    units: float  # units of `unit` that a call does, of all seeds
    unit: str
    flops: float | None = None  # floating-point operations in matrix products per unit
    parameter_bytes: float | None = None  # per unit: parameters and Adam's moments, read and written once
    own_clock: bool = False  # the call returns the seconds that count


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    return {
        "peak_memory_mb": round(memory.peak() / 1e6),
        "backend": jax.default_backend(),
        "devices": len(jax.local_devices()),
        "cores": num_cores(),
        "jax": jax.__version__,
    }


def measure(works: list[Work], seconds: float, calls: int = 5) -> list[dict[str, Any]]:
    """Rates of each work and of the large product, all measured in turn, so many times at least."""
    product = large_product()
    times: list[list[float]] = [[] for _ in works]
    product_times = []
    while min(map(sum, times)) < seconds or len(times[0]) < calls:
        for work, mine in zip(works, times, strict=True):
            mine.append(work.call() if work.own_clock else elapsed(work.call))
        product_times.append(elapsed(product))
    limit = statistics.median(2 * PRODUCT_SIZE**3 / t for t in product_times)
    return [summary(work, mine, limit) for work, mine in zip(works, times, strict=True)]


def summary(work: Work, times: list[float], limit: float) -> dict[str, Any]:
    rates = [work.units / t for t in times]
    rate = statistics.median(rates)
    return {
        "rate": round(rate, 1),
        "unit": work.unit,
        "limit_fraction": None if work.flops is None else round(rate * work.flops / limit, 3),
        "rate_min": round(min(rates), 1),
        "rate_max": round(max(rates), 1),
        "calls": len(times),
        "units_per_call": round(work.units, 1),
        "flops_per_unit": work.flops,
        "parameter_bytes_per_unit": work.parameter_bytes,
        "large_product_gflops": round(limit / 1e9, 1),
    }


def elapsed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - began


def large_product() -> Callable[[], Any]:
    product = jax.jit(lambda x: jnp.matmul(x, x, precision=jax.lax.Precision.HIGHEST))
    x = jnp.ones((PRODUCT_SIZE, PRODUCT_SIZE), jnp.float32)
    jax.block_until_ready(product(x))
    return lambda: product(x)


def products(layers: list[tuple[int, int]]) -> float:
    """Operations per row of one product with each of these (inputs, outputs) layers."""
    return sum(2.0 * inputs * outputs for inputs, outputs in layers)


def parameters(layers: list[tuple[int, int]]) -> float:
    return sum((inputs + 1.0) * outputs for inputs, outputs in layers)


def adam_bytes(layers: list[tuple[int, int]]) -> float:
    """Traffic of one step of Adam: parameters, gradient and two moments read, all but the gradient written."""
    return 7 * 4 * parameters(layers)
