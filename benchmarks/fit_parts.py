"""Times a gradient step of a fit with more and more of what belongs to it: one JSON line per part.

    python benchmarks/fit_parts.py [--experiment=halfcheetah] [--rows=25000] [--seconds=10]

The fit is that of a flagfile of MBPO, or of the double horizon: --experiment=double_horizon_halfcheetah.

Parts: the networks' matrix products alone; the loss, with its activations; Adam; the checks for faults; drawing and
gathering the rows; and the whole fit, with its passes over all rows. Each contains the ones before it, and all are
measured in turn with a large product. `limit_fraction` is as in phases.py; `step_ms` is the time of a gradient step,
and `added_ms` what it has more than the part before. The end of an epoch, which the fit contains, is timed alone too:
its `step_ms` is its share in a gradient step.
"""

import argparse
import functools
import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import double_horizon as double_horizon_benchmark
from mbpo_jax import backends, ensemble, normalizer, replay, terminations
from mbpo_jax.algorithms.double_horizon import DoubleHorizonConfig
from mbpo_jax.algorithms.mbpo import MbpoConfig
from mbpo_jax.driver.interaction.environment import Environment
from mbpo_jax.driver.seeds import use_cores
from mbpo_jax.launch import flags
from mbpo_jax.models import encoding as encodings
from mbpo_jax.models import fit_rows, fitting, gaussian, homoscedastic, world
from mbpo_jax.models.fitting import Fit, Minibatch
from mbpo_jax.models.state import EnsembleState
from mbpo_jax.replay import Replay
from mbpo_jax.types import Array, PyTree, Spec
from phases import EXPERIMENTS, Case, full_buffer, model_layers
from phases import fit as mbpo_fit
from timing import Work, machine, measure, products

END_OF_EPOCH = "end_of_epoch"
DOUBLE_HORIZON = "double_horizon_"
CALLS = 5  # of the program of a part in a measurement
TINY_STEP = 1e-9  # a step of plain descent: the gradients must be used, or they are not computed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiment", default="halfcheetah", help="Name of a flagfile.")
    parser.add_argument("--rows", type=int, default=25_000, help="Real rows.")
    parser.add_argument("--seconds", type=float, default=10.0, help="Least measured time of each part.")
    given = parser.parse_args()
    use_cores(1)
    works = parts(given.experiment, given.rows)
    for work in works.values():
        jax.block_until_ready(work.call())
    before = 0.0
    for name, result in zip(works, measure(list(works.values()), given.seconds), strict=True):
        step_ms = 1000.0 / result["rate"]
        shown = {"step_ms": round(step_ms, 2)}
        if name != END_OF_EPOCH:
            shown["added_ms"], before = round(step_ms - before, 2), step_ms
        print(
            json.dumps({"part": name, "experiment": given.experiment, "rows": given.rows} | shown | result | machine())
        )


def parts(experiment: str, num_rows: int) -> dict[str, Work]:
    """The parts by name, in the order in which each contains the one before."""
    run, config = flags.parse([f"--flagfile={EXPERIMENTS / experiment}.flags"])
    env = Environment(run.env, 0, 0, run.max_episode_steps)
    spec = Spec(env.obs_dim, env.action_dim, terminations.never)
    env.close()
    encoding = encodings.forward(spec)
    if isinstance(config, DoubleHorizonConfig):
        member = homoscedastic.member(config.model, encoding, config.dropout, config.log_std_pace)
        whole = double_horizon_benchmark.prepare("fit", experiment.removeprefix(DOUBLE_HORIZON), num_rows)
        layers, kernels = double_horizon_benchmark.model_layers(config, spec), smooth_kernels
    else:
        assert isinstance(config, MbpoConfig)
        member = gaussian.member(config.model, encoding)
        whole = mbpo_fit(Case(experiment, real_rows=num_rows))
        layers, kernels = model_layers(config, spec), gaussian_kernels
    if member.random_loss:
        raise SystemExit(f"experiment must have a fit without dropout, got {experiment!r}")
    fit = Fit(config.model, member, encoding, optax.adam(config.model.model_learning_rate))
    buffer = full_buffer(replay.init(spec, num_rows), num_rows)
    key = jax.random.key(0)
    model = world.init(config.model, fit.member, encoding, fit.optimizer, key)
    model, _ = jax.jit(functools.partial(fitting.start, fit))(key, model, buffer)
    minibatches = jax.jit(functools.partial(gather, fit))(key, model, buffer)

    num_steps = config.model.fit_slice_minibatches
    rows = config.model.num_members * config.model.model_batch_size
    flops = rows * (2 * products(layers) + products(layers[1:]))  # forward, weights, inputs
    step_kernels = functools.partial(step_products, kernels)
    steps: dict[str, Callable[..., Any]] = {"products": step_kernels, "loss": step_loss, "adam": step_adam}
    steps["checks"] = fitting.gradient_step
    works = {
        name: repeated(functools.partial(scanned, functools.partial(step, fit)), model, minibatches, num_steps, flops)
        for name, step in steps.items()
    }
    works["rows"] = repeated(functools.partial(taken, fit, num_steps), model, (key, buffer), num_steps, flops)
    num_train = buffer.size - fit_rows.num_holdout_rows(buffer.size, config.model)
    epoch_steps = int(fit_rows.num_epoch_minibatches(num_train, config.model))
    ended = functools.partial(epoch_ended, fit)
    works[END_OF_EPOCH] = repeated(ended, model, (key, buffer), epoch_steps, None)
    works["fit"] = whole._replace(unit="steps/s")
    assert whole.flops == flops
    return works


def gather(fit: Fit, key: Array, model: EnsembleState, buffer: Replay) -> Minibatch:
    """Minibatches for as many steps as one compiled call of a fit takes."""
    minibatch = jnp.arange(fit.config.fit_slice_minibatches)
    split = fit_rows.split_rows(key, buffer.size, buffer.num_added, fit.config)
    age = fit_rows.bootstrap_rows(key, split, jnp.zeros((), jnp.int32), minibatch, fit.config)
    x, y = fit_rows.examples(fit.encoding, buffer, age)
    y = normalizer.normalize(model.targets, y)
    return normalizer.normalize(model.inputs, x), y, fit_rows.minibatch_weights(split, minibatch, fit.config)


def repeated(
    call: Callable[..., EnsembleState], model: EnsembleState, given: PyTree, num_steps: int, flops: float | None
) -> Work:
    """Calls of a program of `num_steps` gradient steps; each continues, in place, from the model of the last one."""
    options = backends.compiler_options("auto", ["fit_model"])["fit_model"]
    run = jax.jit(call, donate_argnums=0, compiler_options=options)
    held = [jax.tree.map(jnp.copy, model)]

    def many() -> Any:
        for _ in range(CALLS):
            held[0] = run(held[0], given)
        return held[0]

    return Work(many, CALLS * num_steps, "steps/s", flops)


def scanned(step: Callable[..., Any], model: EnsembleState, minibatches: Minibatch) -> EnsembleState:
    """The model after a step on each minibatch, as at the beginning of a fit: later, step sizes may fall."""
    model = model.replace(fit=model.fit.replace(num_steps=jnp.zeros((), jnp.int32)))
    return jax.lax.scan(step, model, minibatches)[0]


def taken(fit: Fit, num_steps: int, model: EnsembleState, given: tuple[Array, Replay]) -> EnsembleState:
    """The model after the program of a fit that draws its own rows, from the beginning of an epoch."""
    zero = jnp.zeros((), jnp.int32)
    model = model.replace(fit=model.fit.replace(minibatch=zero, num_steps=zero))
    return fitting.take_minibatches(fit, num_steps, given[0], model, given[1])[0]


def epoch_ended(fit: Fit, model: EnsembleState, given: tuple[Array, Replay]) -> EnsembleState:
    """The model after the end of an epoch that goes on: held-out errors, and snapshots of members that improved."""
    again = model.fit.replace(epochs_since_improvement=jnp.zeros((), jnp.int32))
    return fitting.end_epoch(fit, given[0], model.replace(fit=again), given[1])[0]


def gaussian_kernels(fit: Fit, params: PyTree) -> list[list[Array]]:
    """The kernels of a member of MBPO's ensemble, layer by layer; the last has one for each head."""
    hidden = [[params[f"layer_{i}"]["kernel"]] for i in range(len(fit.config.model_weight_decays) - 1)]
    return [*hidden, [params[name]["kernel"] for name in ("mean", "log_var")]]


def smooth_kernels(fit: Fit, params: PyTree) -> list[list[Array]]:
    """The kernels of a member of the double horizon's ensemble, layer by layer."""
    return [[params["network"][f"Dense_{i}"]["kernel"]] for i in range(len(fit.config.model_weight_decays))]


def step_products(
    kernels: Callable[[Fit, PyTree], list[list[Array]]], fit: Fit, model: EnsembleState, minibatch: Minibatch
) -> tuple[EnsembleState, tuple[()]]:
    """A step with the products of the networks, forward and back, and nothing between them."""

    def total(params: PyTree, x: Array) -> Array:
        *hidden, heads = kernels(fit, params)
        for (kernel,) in hidden:
            x = jnp.matmul(x, kernel, precision=jax.lax.Precision.HIGHEST)
        outputs = [jnp.matmul(x, kernel, precision=jax.lax.Precision.HIGHEST) for kernel in heads]
        return 0.5 * sum(jnp.vdot(output, output) for output in outputs)  # its gradient is not constant

    return descend(model, ensemble.lift(jax.grad(total))(model.members.params, minibatch[0])), ()


def step_loss(fit: Fit, model: EnsembleState, minibatch: Minibatch) -> tuple[EnsembleState, tuple[()]]:
    """A step down the gradient of the loss."""
    gradient = ensemble.lift(jax.grad(fit.member.loss), (0, None, 0, 0, None))
    return descend(model, gradient(model.members.params, model.shared.params, *minibatch)), ()


def step_adam(fit: Fit, model: EnsembleState, minibatch: Minibatch) -> tuple[EnsembleState, tuple[()]]:
    """A step of the fit without the measures that its checks need."""
    return fitting.gradient_step(fit, model, minibatch)[0], ()


def descend(model: EnsembleState, grads: PyTree) -> EnsembleState:
    """A tiny step of plain descent."""
    params = jax.tree.map(lambda leaf, grad: leaf - TINY_STEP * grad, model.members.params, grads)
    return model.replace(members=model.members.replace(params=params))


if __name__ == "__main__":
    main()
