"""Times the SAC update against sbx and stable-baselines3, in turn in one process: one JSON line per contender.

    python benchmarks/peers.py [--seconds=20] [--updates=40]

A call makes `updates` updates of actor, twin critics, targets and temperature, each on 256 rows that it draws from one
buffer of 10,000 real HalfCheetah-v5 steps under random actions. Peers fill theirs with their own `learn` and update
through their own `train`. `ratio_to_ours` is the median over rounds of a contender's rate over ours in the same round,
so that it holds on a machine whose speed drifts. Times are of finished work, compilation apart. On cores that other
programs use at the same time stable-baselines3 slows far more than the two in JAX (from 0.45 to 0.06 of ours was seen):
believe its ratio only where `load_before`, the machine's load average at the start, is far below `cores`.

Peers are no dependency; one that is not installed is named and left out. To have both, in another environment:

    pip install -e . sbx-rl stable-baselines3

Sizes and rules are the same but for this:
- the peers draw in NumPy from observations in float64, as HalfCheetah gives them, and cast those at each call;
- their actor learns from the critics after the critics' update, ours from those before it;
- stable-baselines3 also takes the gradient of the actor's loss in the critics' weights, and drops it;
- the peers give the actor's mean and log_std a layer each, ours one layer of both;
- the peers report each call's losses to a logger without outputs, and ours returns their means.
"""

import argparse
import importlib
import importlib.metadata
import importlib.util
import json
import os
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mbpo_jax import replay
from mbpo_jax.agents import sac
from mbpo_jax.driver.interaction.environment import Environment
from mbpo_jax.types import Spec, Transition

ENV = "HalfCheetah-v5"
ROWS, CAPACITY, BATCH = 10_000, 1_000_000, 256
PAUSE_SECONDS = 0.05  # before each call: without it, ours ran some 4 % slower right after torch's
PEERS = {"sbx": "sbx-rl", "stable_baselines3": "stable-baselines3"}  # module: distribution


class Contender(NamedTuple):
    """A SAC made ready."""

    what: str
    version: str
    call: Callable[[], Any]  # makes the updates; what it returns is ready when they are made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="Least measured time per contender.")
    parser.add_argument("--updates", type=int, default=40, help="Updates per call.")
    arguments = parser.parse_args()
    if jax.default_backend() != "cpu":
        parser.error("the peers are compared on the CPU only; set JAX_PLATFORMS=cpu")
    load_before = round(os.getloadavg()[0], 2)
    missing = [distribution for module, distribution in PEERS.items() if importlib.util.find_spec(module) is None]
    if missing:
        advice = "in another environment: pip install -e . " + " ".join(PEERS.values())
        print(json.dumps({"missing": missing, "advice": advice}), flush=True)
    contenders = [ours(arguments.updates)]
    contenders += [peer(m, arguments.updates) for m, distribution in PEERS.items() if distribution not in missing]
    times = measure(contenders, arguments.seconds)
    for contender, spent in zip(contenders, times):
        report = summary(spent, times[0], arguments.updates)
        who = {"what": contender.what, "version": contender.version}
        print(json.dumps(who | report | machine() | {"load_before": load_before}), flush=True)


def ours(updates: int) -> Contender:
    """`agents.sac`, one dispatch a call: batches drawn from one buffer of real rows, then a scan over them."""
    rows = random_steps()
    spec = Spec(rows.obs.shape[-1], rows.action.shape[-1])
    agent = sac.build(sac.SacConfig(), spec)
    real = replay.add(replay.init(spec, CAPACITY), rows)
    held = {"state": jax.jit(agent.init)(jax.random.key(0)), "calls": 0}

    def update(key: jax.Array, state: sac.SacState, real: replay.Replay) -> tuple[sac.SacState, Any]:
        key_batches, key_update = jax.random.split(key)
        return agent.update(key_update, state, replay.sample(key_batches, real, (updates, BATCH)))

    run = jax.jit(update, donate_argnums=1)

    def call() -> Any:
        held["calls"] += 1
        held["state"], metrics = run(jax.random.key(held["calls"]), held["state"], real)
        return held["state"], metrics

    return Contender("mbpo_jax", importlib.metadata.version("mbpo-jax"), call)


def random_steps() -> Transition:
    """Steps [ROWS, ...] of uniformly random actions."""
    env, rng = Environment(ENV, seed=0), np.random.default_rng(0)
    rows, obs = [], env.reset()
    for _ in range(ROWS):
        action = rng.uniform(-1.0, 1.0, env.action_dim).astype(np.float32)
        step = env.step(action)
        rows.append(
            Transition(
                obs=obs,
                action=action,
                reward=np.float32(step.reward),
                next_obs=step.next_obs,
                terminal=np.float32(step.terminal),
            )
        )
        obs = env.reset() if step.terminal or step.truncated else step.next_obs
    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *rows)


def peer(module: str, updates: int) -> Contender:
    """The SAC of sbx or stable-baselines3 at the sizes of ours, its buffer filled by its own `learn`."""
    config = sac.SacConfig()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = importlib.import_module(module).SAC(
            "MlpPolicy",
            ENV,
            learning_rate=config.learning_rate,
            buffer_size=CAPACITY,
            learning_starts=ROWS,  # learn() takes random actions up to here, and trains after it
            batch_size=BATCH,
            tau=config.target_update_rate,
            gamma=config.discount,
            ent_coef="auto",  # learnt, 1 at first
            policy_kwargs={"net_arch": [config.hidden_units] * config.num_hidden_layers},
            seed=0,
            device="cpu",
        )
        model.learn(ROWS)

    def call() -> Any:
        model.train(gradient_steps=updates, batch_size=BATCH)
        if module == "sbx":
            return model.policy.actor_state, model.policy.qf_state, model.ent_coef_state
        return None  # torch has finished: on a CPU it is synchronous

    return Contender(module, importlib.metadata.version(PEERS[module]), call)


def measure(contenders: list[Contender], seconds: float) -> list[list[float]]:
    """Seconds of each call of each contender, called in turn."""
    for contender in contenders:
        for _ in range(2):
            elapsed(contender.call)
    times: list[list[float]] = [[] for _ in contenders]
    while len(times[0]) < 5 or min(map(sum, times)) < seconds:
        for contender, spent in zip(contenders, times):
            time.sleep(PAUSE_SECONDS)
            spent.append(elapsed(contender.call))
    return times


def elapsed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - began


def summary(times: list[float], times_of_ours: list[float], updates: int) -> dict[str, Any]:
    rates = [updates / t for t in times]
    ratios = [t_ours / t for t, t_ours in zip(times, times_of_ours)]
    quartiles = statistics.quantiles(ratios, n=4)
    return {
        "updates_per_second": round(statistics.median(rates), 1),
        "updates_per_second_min": round(min(rates), 1),
        "updates_per_second_max": round(max(rates), 1),
        "ratio_to_ours": round(quartiles[1], 3),
        "ratio_to_ours_quartiles": [round(quartiles[0], 3), round(quartiles[2], 3)],
        "rounds": len(times),
    }


def machine() -> dict[str, Any]:
    """What the rates depend on besides the contenders."""
    installed = importlib.util.find_spec("torch") is not None
    torch = importlib.import_module("torch") if installed else None
    return {
        "jax": jax.__version__,
        "torch": torch.__version__ if torch else None,
        "torch_threads": torch.get_num_threads() if torch else None,
        "cores": len(os.sched_getaffinity(0)),
    }


if __name__ == "__main__":
    main()
