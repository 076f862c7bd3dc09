"""Times the double-horizon member's update and fit, each in turn with a large product: one JSON line per phase.

    python benchmarks/double_horizon.py [--experiment=halfcheetah] [--phases=update,fit] [--rows=100000] [--seconds=20]

An update is one of critics and actor along imagined steps, with its share of the rollout that it draws states from.
`limit_fraction` is as in phases.py. Each phase has a process of its own.
"""

import argparse
import functools
import json
import subprocess
import sys

import jax

from mbpo_jax import backends, replay, terminations
from mbpo_jax.algorithms import double_horizon
from mbpo_jax.algorithms.double_horizon import DoubleHorizonConfig
from mbpo_jax.driver.interaction.environment import Environment
from mbpo_jax.driver.phase_runner import PhaseRunner
from mbpo_jax.driver.seeds import SeedAxis, use_cores
from mbpo_jax.launch import flags
from mbpo_jax.types import Phase, Programs, Spec
from phases import EXPERIMENTS, agent_layers, full_buffer
from timing import Work, machine, measure, products

FIT_STEPS = 200  # gradient steps of the fit that is timed, moments and held-out passes included


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--experiment", default="halfcheetah", help="What follows double_horizon_ in a flagfile's name."
    )
    parser.add_argument("--phases", default="update,fit", help="Which, separated by commas.")
    parser.add_argument("--rows", type=int, default=100_000, help="Real rows.")
    parser.add_argument("--seconds", type=float, default=20.0, help="Least measured time of each.")
    given = parser.parse_args()
    if "," in given.phases:
        for phase in given.phases.split(","):
            same = [f"--{name}={value}" for name, value in vars(given).items() if name != "phases"]
            subprocess.run([sys.executable, __file__, f"--phases={phase}", *same], check=True)
        return
    use_cores(1)
    work = prepare(given.phases, given.experiment, given.rows)
    jax.block_until_ready(work.call())
    (result,) = measure([work], given.seconds)
    print(json.dumps({"phase": given.phases, "experiment": given.experiment} | result | machine()))


def prepare(name: str, experiment: str, num_rows: int) -> Work:
    """A phase at the sizes of an experiment, with full buffers."""
    (flagfile,) = EXPERIMENTS.rglob(f"double_horizon_{experiment}.flags")
    argv = [f"--flagfile={flagfile}", f"--replay_capacity={num_rows}"]
    run, config = flags.parse([*argv, f"--fit_max_gradient_steps={FIT_STEPS}"])
    assert isinstance(config, DoubleHorizonConfig)
    env = Environment(run.env, 0, 0, run.max_episode_steps)
    spec = Spec(env.obs_dim, env.action_dim, terminations.never)  # no row ends: the most work that there can be
    env.close()
    algorithm, axis = double_horizon.build(config, spec), SeedAxis(1)
    phases = {phase.name: phase for phase in algorithm.phases}
    if name == "fit":
        phase, units, flops, unit = phases["fit_model"], FIT_STEPS, fit_flops(config, spec), "gradient_steps/s"
    else:
        once = Programs(phases["update_agent"].programs.functions[2:])  # a rollout, and updates of both
        phase = Phase("update_agent", 1, 1, once)
        units, flops, unit = config.updates_per_rollout, update_flops(config, spec), "updates/s"
    roots = axis.keys((0,))
    (state,) = axis.split(axis.lift(algorithm.init)(roots))
    room = replay.capacity(state.imagined)
    # More rounds than are ever taken are due, so that every call stores the rows of its rollout.
    state = state.replace(imagined=full_buffer(state.imagined, room), rounds=state.rounds + 10**6)
    held = {"state": axis.join([state if name == "update" else state.replace(rounds=state.rounds * 0)])}
    real = axis.place(axis.join([full_buffer(replay.init(spec, num_rows), num_rows)]))
    options = backends.compiler_options("auto", list(phases))
    index = list(phases).index(phase.name)
    runner = PhaseRunner(axis, index, phase, options[phase.name])

    def call() -> object:
        held["state"], metrics = runner.run(roots, 1, held["state"], real, [False], lambda: False)
        return metrics

    return Work(call, units, unit, flops)


def model_layers(config: DoubleHorizonConfig, spec: Spec) -> list[tuple[int, int]]:
    units, hidden = config.model.model_hidden_units, len(config.model.model_weight_decays) - 1
    return [(spec.obs_dim + spec.action_dim, units), *[(units, units)] * (hidden - 1), (units, 1 + spec.obs_dim)]


def fit_flops(config: DoubleHorizonConfig, spec: Spec) -> float:
    """Operations in products of one gradient step of all members."""
    layers = model_layers(config, spec)
    rows = config.model.num_members * config.model.model_batch_size
    return rows * (products(layers) + products(layers) + products(layers[1:]))  # forward, weights, inputs


def update_flops(config: DoubleHorizonConfig, spec: Spec) -> float:
    """Operations in products of one update of critics and actor, its share of a rollout included."""
    layers = functools.partial(agent_layers, config)
    model, actor = products(model_layers(config, spec)), products(layers(spec.obs_dim, 2 * spec.action_dim))
    critic_layers = layers(spec.obs_dim + spec.action_dim, 1)
    critic, critic_inner = products(critic_layers), products(critic_layers[1:])
    steps, num_critics = config.horizon, config.agent.num_critics
    per_state = sum(
        (
            steps * (model + actor) + actor,  # imagined steps, and the last action
            config.agent.num_target_critics * critic,
            num_critics * (critic + critic + critic_inner),  # critics learn
            num_critics * 2 * critic,  # the actor's last value, and back to its state and action
            steps * (model + 2 * actor) + 2 * actor,  # back through model and actor
        )
    )
    rollout = config.rollout_batch * config.rollout_length * (model + actor) / config.updates_per_rollout
    return config.batch_size * per_state + rollout


if __name__ == "__main__":
    main()
