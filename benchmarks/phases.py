"""Times each phase with full buffers, at the sizes of an experiment: one JSON line per phase.

    python benchmarks/phases.py [--experiments=halfcheetah,hopper,humanoid] [--phases=model_fit,...] [--seeds=2] ...

A phase runs as the driver runs it (seed lifting, devices, compiler options). `limit_fraction` is its rate of
floating-point operations in matrix products over that of a large float32 product, measured in turn with the phase in
the same process, so that it holds on a machine whose speed drifts. Times are of finished work, compilation apart. Each
phase has a process of its own, so that its memory is its own.
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mbpo_jax import backends, replay, terminations
from mbpo_jax.algorithms import epochs, mbpo, particle_propagation, pets
from mbpo_jax.driver.compile_counter import CompileCounter
from mbpo_jax.driver.config import AUTO, RunConfig
from mbpo_jax.driver.interaction import task
from mbpo_jax.driver.interaction.environment import Environment
from mbpo_jax.driver.phase_runner import PhaseRunner
from mbpo_jax.driver.seeds import SeedAxis, use_cores
from mbpo_jax.driver.storage import packing
from mbpo_jax.driver.storage.checkpoint import Checkpoints
from mbpo_jax.launch import flags
from mbpo_jax.launch.processes import train
from mbpo_jax.replay import Replay
from mbpo_jax.types import Algorithm, PyTree, Spec, Transition
from timing import Work, adam_bytes, machine, measure, parameters, products

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
PHASES = ("model_fit", "model_rollout", "sac_update", "env_step", "checkpoint")
PLAN = "plan"  # of experiments with --algorithm=pets, which have no other phase here
FIT_STEPS = 400  # gradient steps of the fit that is timed, moments and held-out passes included


class Case(NamedTuple):
    """What is timed: an experiment's flags, and what differs from them. Zero: as there; its longest rollouts."""

    experiment: str = "halfcheetah"
    seeds: int = 1
    real_rows: int = 1_000_000
    model_rows: int = 400_000
    rollout_length: int = 0
    num_members: int = 0
    compiler_options: str = AUTO


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="Least measured time per phase.")
    parser.add_argument(
        "--phases", default=",".join(PHASES), help=f"Which, separated by commas; {PLAN} for PETS's flagfiles alone."
    )
    parser.add_argument("--experiments", default="halfcheetah", help="Names of flagfiles, separated by commas.")
    for name, default in Case._field_defaults.items():
        if name != "experiment":
            parser.add_argument(f"--{name}", type=type(default), default=default)
    given = parser.parse_args()
    phases, experiments = given.phases.split(","), given.experiments.split(",")
    if len(phases) * len(experiments) > 1:
        same = [f"--{k}={v}" for k, v in vars(given).items() if k not in ("phases", "experiments")]
        for experiment in experiments:
            for phase in phases:
                command = [sys.executable, __file__, f"--phases={phase}", f"--experiments={experiment}", *same]
                subprocess.run(command, check=True)
        return
    case = Case(experiments[0], *(getattr(given, name) for name in Case._fields[1:]))
    use_cores(case.seeds)
    counter, began = CompileCounter(), time.perf_counter()
    work = prepare(phases[0], case)
    jax.block_until_ready(work.call())
    started = {
        "compile_seconds": round(counter.seconds, 2),
        "first_call_seconds": round(time.perf_counter() - began, 2),
    }
    (result,) = measure([work], given.seconds)
    shown = {name: value for name, value in case._asdict().items() if value != Case._field_defaults[name]}
    print(json.dumps({"phase": phases[0], "experiment": case.experiment} | shown | result | started | machine()))


def prepare(phase: str, case: Case) -> Work:
    """A phase at the sizes of a case."""
    works = {"model_fit": fit, "model_rollout": roll_out, "sac_update": update}
    return (works | {"env_step": env_step, "checkpoint": checkpoint, PLAN: plan})[phase](case)


def full_buffer(empty: Replay, num_rows: int) -> Replay:
    """A buffer with `num_rows` in force: ten thousand random rows again and again."""
    rng, num_slots = np.random.default_rng(0), replay.capacity(empty)

    def fill(leaf: jax.Array) -> jax.Array:
        some = np.tanh(rng.standard_normal((min(10_000, num_slots), *leaf.shape[1:]), np.float32))
        return jnp.asarray(np.resize(some, leaf.shape))

    rows: Transition = jax.tree.map(fill, empty.rows).replace(terminal=jnp.zeros(num_slots))
    size = jnp.asarray(min(num_rows, num_slots), jnp.int32)
    return empty.replace(rows=rows, size=size, head=size % num_slots, num_added=jnp.asarray(num_rows, jnp.int32))


class Filled(NamedTuple):
    """A run of a case in memory, all its buffers full."""

    config: mbpo.MbpoConfig
    spec: Spec
    algorithm: Algorithm
    axis: SeedAxis
    roots: PyTree
    state: PyTree
    real: PyTree


def filled(case: Case, **changes: Any) -> Filled:
    """The run of a case, as the driver makes it, with full buffers."""
    argv = [f"--flagfile={EXPERIMENTS / case.experiment}.flags", *(f"--{k}={v}" for k, v in changes.items())]
    if case.num_members:
        argv += [f"--num_members={case.num_members}", f"--num_elites={min(case.num_members, 5)}"]
    argv.append(f"--replay_capacity={max(case.real_rows, 1000)}")
    run, config = flags.parse(argv)
    length = case.rollout_length or config.rollout_length_schedule[-1]
    argv.append(f"--rollout_length_schedule=0,1,{length},{length}")
    _, config = flags.parse(argv)
    room = int(epochs.imagined_rows_limit(config, config.rollout_length_schedule[-1])) // config.retain_epochs
    if config.retain_epochs * room < case.model_rows:
        _, config = flags.parse([*argv, f"--retain_epochs={-(-case.model_rows // room)}"])
    env = Environment(run.env, 0, 0, run.max_episode_steps)
    spec = Spec(env.obs_dim, env.action_dim, terminations.never)  # no row ends: the most work that there can be
    env.close()
    algorithm = mbpo.build(config, spec)
    axis = SeedAxis(case.seeds)
    roots = axis.keys(range(case.seeds))
    states = axis.split(axis.lift(algorithm.init)(roots))
    state = axis.place(axis.join([s.replace(imagined=full_buffer(s.imagined, case.model_rows)) for s in states]))
    empty = [replay.init(spec, algorithm.replay_capacity) for _ in range(case.seeds)]
    real = axis.place(axis.join([full_buffer(buffer, case.real_rows) for buffer in empty]))
    return Filled(config, spec, algorithm, axis, roots, state, real)


def phase_of(name: str, case: Case, **changes: Any) -> tuple[mbpo.MbpoConfig, Spec, Callable[[], Any]]:
    """The config, the sizes, and a call that runs the phase once for all seeds, as the driver does."""
    run = filled(case, **changes)
    names = [phase.name for phase in run.algorithm.phases]
    index = names.index(name)
    options = backends.compiler_options(case.compiler_options, names)
    runner = PhaseRunner(run.axis, index, run.algorithm.phases[index], options[name])
    held = {"state": run.state}
    run = run._replace(state=None)  # its arrays are donated

    def call() -> Any:
        done = [False] * case.seeds
        held["state"], metrics = runner.run(run.roots, 1, held["state"], run.real, done, lambda: False)
        return metrics

    return run.config, run.spec, call


def checkpoint(case: Case) -> Work:
    """A checkpoint: packed, written, read back, compared, summed, renamed. On the disk of the temporary directory."""
    run = filled(case)
    directory = tempfile.TemporaryDirectory(prefix="mbpo_jax_benchmark_")
    checkpoints, steps = Checkpoints(Path(directory.name), 2), itertools.count()

    def packed() -> dict[str, Any]:
        parts = zip(run.axis.to_host(run.state), run.axis.to_host(run.real), strict=True)
        return {
            str(i): {"state": packing.pack(state), "replay": packing.pack(real)}
            for i, (state, real) in enumerate(parts)
        }

    def call() -> None:
        assert directory.name  # it is deleted with this function
        checkpoints.save(next(steps), packed(), {})

    megabytes = sum(leaf.nbytes for leaf in jax.tree.leaves(packed())) / 1e6
    return Work(call, megabytes, "MB/s")


def model_layers(config: mbpo.MbpoConfig, spec: Spec) -> list[tuple[int, int]]:
    units, hidden = config.model.model_hidden_units, len(config.model.model_weight_decays) - 1
    return [(spec.obs_dim + spec.action_dim, units), *[(units, units)] * (hidden - 1), *[(units, 1 + spec.obs_dim)] * 2]


def agent_layers(config: mbpo.MbpoConfig, inputs: int, outputs: int) -> list[tuple[int, int]]:
    units = config.agent.hidden_units
    return [(inputs, units), *[(units, units)] * (config.agent.num_hidden_layers - 1), (units, outputs)]


def fit(case: Case) -> Work:
    """A fit of so many gradient steps, with its passes over all rows for moments and over those held out."""
    config, spec, call = phase_of(
        "fit_model", case, fit_max_gradient_steps=FIT_STEPS, fit_patience_epochs=FIT_STEPS, fit_improvement=0.0
    )
    layers = model_layers(config, spec)
    rows = config.model.num_members * config.model.model_batch_size
    flops = rows * (products(layers) + products(layers) + products(layers[1:]))  # forward, weights, inputs
    traffic = config.model.num_members * adam_bytes(layers)
    return Work(call, case.seeds * FIT_STEPS, "gradient_steps/s", flops, traffic)


def roll_out(case: Case) -> Work:
    """Rollouts from all start states: policy, one elite a row, terminations, storage."""
    config, spec, call = phase_of("roll_out", case)
    policy = agent_layers(config, spec.obs_dim, 2 * spec.action_dim)
    rows = case.seeds * config.rollout_batch * config.rollout_length_schedule[-1]
    return Work(call, rows, "transitions/s", products(model_layers(config, spec) + policy))


def update(case: Case) -> Work:
    """The updates of one environment step, on batches of real and imagined rows that the call draws."""
    config, spec, call = phase_of("update_agent", case)
    actor = agent_layers(config, spec.obs_dim, 2 * spec.action_dim)
    critics = 2 * agent_layers(config, spec.obs_dim + spec.action_dim, 1)
    inner = [layer for layer in critics if layer[0] == config.agent.hidden_units]
    flops = sum(
        (
            products(actor) + products(critics),  # target
            products(critics) + products(critics) + products(inner),  # critics learn
            products(actor) + products(actor) + products(actor[1:]),  # actor learns
            products(critics) + products(critics),  # through the critics
        )
    )
    traffic = adam_bytes(actor) + adam_bytes(critics) + 12 * parameters(critics)  # and the targets
    return Work(call, case.seeds * config.updates_per_step, "updates/s", config.batch_size * flops, traffic)


def env_step(case: Case) -> Work:
    """The driver's own loop with no phase due: act with the policy, step the simulator, store the row."""
    short, long = 500, 5500  # what starting up and compiling cost is the same in both, and cancels
    experiment, _ = flags.parse([f"--flagfile={EXPERIMENTS / case.experiment}.flags"])

    def seconds(num_steps: int) -> float:
        with tempfile.TemporaryDirectory(prefix="mbpo_jax_benchmark_") as directory:
            run = RunConfig(
                env=experiment.env,
                run_dir=directory,
                seeds=tuple(range(case.seeds)),
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

    return Work(measured, case.seeds * (long - short), "steps/s", own_clock=True)


def plan(case: Case) -> Work:
    """One action: all iterations of the search, from an observation to the first action of the plan."""
    argv = [f"--flagfile={EXPERIMENTS / case.experiment}.flags"]
    if case.num_members:
        argv += [f"--num_members={case.num_members}", f"--num_elites={case.num_members}"]
    run, config = flags.parse([*argv, "--planner=cem", "--stop_variance=0"])  # all iterations
    env = Environment(run.env, 0, 0, run.max_episode_steps)
    spec = Spec(env.obs_dim, env.action_dim, terminations.never)
    env.close()
    spec = task.with_rules(spec, config, run.env)
    algorithm = pets.build(config, spec)
    axis = SeedAxis(case.seeds)
    roots = axis.keys(range(case.seeds))
    actor = axis.lift(lambda key: algorithm.actor(algorithm.init(key)))(roots)
    carry = axis.lift(algorithm.begin_episode)(roots, actor)
    act = axis.lift(lambda key, actor, carry, obs: algorithm.act(key, actor, carry, obs, True), outputs=2)
    obs = axis.place(axis.join([jnp.zeros(spec.obs_dim)] * case.seeds))
    planner = config.planner
    rows = planner.num_candidates * config.num_particles * config.horizon * planner.iterations
    inputs = pets.encoding_of(config, spec).num_inputs
    units, hidden = config.model.model_hidden_units, len(config.model.model_weight_decays) - 1
    heads = 1 if config.member == "deterministic" else 2
    layers = [(inputs, units), *[(units, units)] * (hidden - 1), *[(units, 1 + spec.obs_dim)] * heads]
    evaluated = (
        1 if config.propagation in particle_propagation.SAMPLED else config.model.num_members
    )  # of each particle
    flops = None if config.member == pets.GP else evaluated * products(layers)  # a process is not counted
    return Work(lambda: act(roots, actor, carry, obs)[0], case.seeds * rows, "model_rows/s", flops)


if __name__ == "__main__":
    main()
