"""Times each phase at HalfCheetah sizes with full buffers: one JSON line per phase.

    python benchmarks/phases.py [--seconds=5] [--phases=fit_model,roll_out,update_agent,env_step]

`limit_fraction` is the phase's rate of floating-point operations in matrix products over that of a large float32
product, measured in turn with the phase in the same process, so that it holds on a machine whose speed drifts. Times
are of finished work (`block_until_ready`), compilation apart.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mbpo_jax import replay, terminations
from mbpo_jax.algorithms import mbpo
from mbpo_jax.driver.config import RunConfig
from mbpo_jax.driver.loop import train
from mbpo_jax.types import Spec, Transition

OBS_DIM, ACTION_DIM = 17, 6  # HalfCheetah
UPDATES_PER_STEP = 40
PRODUCT_SIZE = 3000  # of the square float32 product that stands for what the machine can do


class Work(NamedTuple):
    """A phase made ready: what one call does, and how much of it."""

    call: Callable[[], Any]  # runs once, to the end
    units: float  # units of `unit` that a call does
    unit: str
    flops: float | None  # floating-point operations in matrix products per unit
    own_clock: bool = False  # the call returns the seconds that count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="Least measured time per phase.")
    parser.add_argument(
        "--phases", default="fit_model,roll_out,update_agent,env_step", help="Which, separated by commas."
    )
    arguments = parser.parse_args()
    makers = {"fit_model": fit_model, "roll_out": roll_out, "update_agent": update_agent, "env_step": env_step}
    names = {
        "fit_model": "model_fit",
        "roll_out": "model_rollout",
        "update_agent": "sac_update",
        "env_step": "env_step",
    }
    for phase in arguments.phases.split(","):
        began = time.perf_counter()
        work = makers[phase]()
        work.call()
        compile_seconds = time.perf_counter() - began
        print(json.dumps({"phase": names[phase]} | measure(work, arguments.seconds, compile_seconds)), flush=True)


def measure(work: Work, seconds: float, setup_seconds: float) -> dict[str, Any]:
    """Rates of the phase and of the large product, measured in turn."""
    product = large_product()
    times, product_times = [], []
    while sum(times) < seconds or len(times) < 5:
        times.append(work.call() if work.own_clock else elapsed(work.call))
        product_times.append(elapsed(product))
    rates = [work.units / t for t in times]
    product_flops = [2 * PRODUCT_SIZE**3 / t for t in product_times]
    rate, limit = statistics.median(rates), statistics.median(product_flops)
    return {
        "rate": round(rate, 1),
        "unit": work.unit,
        "limit_fraction": None if work.flops is None else round(rate * work.flops / limit, 3),
        "rate_min": round(min(rates), 1),
        "rate_max": round(max(rates), 1),
        "calls": len(times),
        "flops_per_unit": work.flops,
        "large_product_gflops": round(limit / 1e9, 1),
        "setup_and_first_call_seconds": round(setup_seconds, 2),
        "backend": jax.default_backend(),
        "jax": jax.__version__,
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


def full_buffer(capacity: int) -> replay.Replay:
    """A full buffer of random rows."""
    rng = np.random.default_rng(0)

    def rows(*shape: int) -> jax.Array:
        return jnp.asarray(rng.standard_normal((capacity, *shape), np.float32))

    transition = Transition(
        obs=rows(OBS_DIM),
        action=jnp.tanh(rows(ACTION_DIM)),
        reward=rows(),
        next_obs=rows(OBS_DIM),
        terminal=jnp.zeros(capacity),
    )
    empty = replay.init(Spec(OBS_DIM, ACTION_DIM), capacity)
    return empty.replace(
        rows=transition, size=jnp.asarray(capacity, jnp.int32), num_added=jnp.asarray(capacity, jnp.int32)
    )


def phase_of(name: str) -> tuple[mbpo.MbpoConfig, Callable[[], Any], Callable[[], Any]]:
    """MBPO with full buffers; (config, run one slice of the phase, read the state)."""
    config = mbpo.MbpoConfig(updates_per_step=UPDATES_PER_STEP)
    algorithm = mbpo.build(config, Spec(OBS_DIM, ACTION_DIM, terminations.never))
    state = jax.jit(algorithm.init)(jax.random.key(0))
    held = {"state": state.replace(imagined=full_buffer(400_000))}
    real, key = full_buffer(1_000_000), jax.random.key(1)
    run = jax.jit(next(p for p in algorithm.phases if p.name == name).run, donate_argnums=1)

    def call() -> Any:
        held["state"], metrics = run(key, held["state"], real)
        return metrics

    return config, call, lambda: held["state"]


def fit_model() -> Work:
    """Slices of a fit over a million rows; none of them ends an epoch, so held-out rows are not scored."""
    config, call, _ = phase_of("fit_model")
    units = config.model.model_hidden_units
    hidden = [(OBS_DIM + ACTION_DIM, units), *[(units, units)] * (len(config.model.model_weight_decays) - 2)]
    heads = [(units, 1 + OBS_DIM)] * 2
    rows = config.model.num_members * config.model.model_batch_size
    flops = rows * (forward(hidden + heads) + backward_weights(hidden + heads) + backward_inputs(hidden[1:] + heads))
    return Work(call, config.model.fit_slice_minibatches, "gradient_steps/s", flops)


def roll_out() -> Work:
    """Rollouts of one step from 100,000 states: policy, one elite a row, terminations, storage."""
    config, call, _ = phase_of("roll_out")
    units, hidden = config.model.model_hidden_units, config.agent.hidden_units
    model = [(OBS_DIM + ACTION_DIM, units), *[(units, units)] * 3, (units, 2 * (1 + OBS_DIM))]
    policy = [(OBS_DIM, hidden), (hidden, hidden), (hidden, 2 * ACTION_DIM)]
    return Work(call, config.rollout_batch, "transitions/s", forward(model + policy))


def update_agent() -> Work:
    """40 updates in one call, on batches of 12 real and 244 imagined rows that the call draws."""
    config, call, _ = phase_of("update_agent")
    hidden = config.agent.hidden_units
    actor = [(OBS_DIM, hidden), (hidden, hidden), (hidden, 2 * ACTION_DIM)]
    critics = 2 * [(OBS_DIM + ACTION_DIM, hidden), (hidden, hidden), (hidden, 1)]
    learn_critics = (
        forward(critics) + backward_weights(critics) + backward_inputs([p for p in critics if p[0] == hidden])
    )
    learn_actor = forward(actor) + backward_weights(actor) + backward_inputs(actor[1:])
    through_critics = forward(critics) + backward_inputs(critics)
    target = forward(actor) + forward(critics)
    return Work(
        call,
        UPDATES_PER_STEP,
        "updates/s",
        config.batch_size * (target + learn_critics + learn_actor + through_critics),
    )


def env_step() -> Work:
    """The driver's own loop on HalfCheetah-v5 with no phase due: act with the policy, step MuJoCo, store the row."""
    short, long = 500, 5500  # what starting up and compiling cost is the same in both, and cancels

    def seconds(num_steps: int) -> float:
        with tempfile.TemporaryDirectory(prefix="mbpo_jax_benchmark_") as directory:
            run = RunConfig(
                env="HalfCheetah-v5",
                run_dir=directory,
                num_steps=num_steps,
                eval_every_steps=num_steps,
                eval_episodes=1,
                checkpoint_every_steps=num_steps,
                quiet=True,
            )
            config = mbpo.MbpoConfig(real_fraction=1.0, exploration_steps=1, min_replay_rows=10**9)
            return train(run, config).summary["seconds_per_phase"]["env_step"]

    def measured() -> float:
        return seconds(long) - seconds(short)

    return Work(measured, long - short, "steps/s", None, own_clock=True)


def forward(layers: list[tuple[int, int]]) -> float:
    """Operations per row of the products of these (inputs, outputs) layers."""
    return sum(2.0 * inputs * outputs for inputs, outputs in layers)


backward_weights = backward_inputs = forward  # each gradient of a product costs as much as the product


if __name__ == "__main__":
    main()
