"""Fitting Gaussian processes: draw inducing rows, maximise their evidence by L-BFGS, condition on all rows.

Inducing rows are drawn uniformly, without replacement; if there are few rows, all are taken. The evidence of the
inducing rows is exact, and so is the posterior as long as all rows are inducing rows.

References: Rasmussen and Williams 2006, "Gaussian Processes for Machine Learning", sections 5.4.1 and 8.3.4.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from mbpo_jax import batching, ensemble, health, normalizer, permutation
from mbpo_jax.models import fit_passes, fit_rows
from mbpo_jax.models import gp_regression as regression
from mbpo_jax.models.fit_rows import Split
from mbpo_jax.models.fitting import UNIT
from mbpo_jax.models.gp_regression import Hyperparameters, Posterior, Rows, Sums
from mbpo_jax.models.gp_state import GpBelief, GpState, Parts
from mbpo_jax.replay import Replay
from mbpo_jax.types import FINISHED, Array, Key, Programs, PyTree, Report, Watched

MAXIMISE, FINISH = 1, 2  # programs of a fit; 0 starts it
LEAST_RISE = 1e-3  # nats per row; the fit ends after a call in which no target's evidence rises by more
BLOCK_ROWS = 256  # rows added to the posterior at once
NOT_A_ROW = -1  # the age of an unused inducing row


class InducingRows(NamedTuple):
    """The inducing rows of a fit."""

    x: Array  # [M, I], scaled
    y: Array  # [D, M], scaled
    used: Array  # [M], bool
    age: Array  # [M], int32, in the buffer


def build(parts: Parts) -> Programs:
    """Returns the programs of a fit."""
    functions = tuple(functools.partial(program, parts) for program in (start, maximise, finish))
    return Programs(functions, functools.partial(due, parts))


def first_hyperparameters(parts: Parts) -> Hyperparameters:
    """Returns the hyperparameters [D, ...] that a first fit starts from."""
    first, num_targets = regression.initial(parts.encoding.num_inputs), parts.encoding.num_targets
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num_targets, *leaf.shape)), first)


def new_optimizer(parts: Parts, hyper: Hyperparameters) -> PyTree:
    """Returns the state of L-BFGS with an empty history, for hyperparameters [D, ...]."""
    return _strong(ensemble.lift(parts.optimizer.init)(hyper))


def _strong(tree: PyTree) -> PyTree:
    """Returns a tree without weak types, which L-BFGS has in some places and not in others."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, leaf.dtype), tree)


# -- the programs of a fit, and which one is next --------------------------------------------------------------------


def start(parts: Parts, key: Key, model: GpState, buffer: Replay) -> tuple[GpState, Report]:
    """Starts a fit over the rows in the buffer: sets their scales and the initial hyperparameters."""
    everything = Split(order=permutation.round_keys(key), num_rows=buffer.size, num_holdout=jnp.zeros((), jnp.int32))
    belief = model.belief.replace(
        inputs=fit_passes.training_moments(parts.encoding, everything, buffer),
        targets=fit_passes.training_moments(parts.encoding, everything, buffer, use_targets=True),
    )
    model = model.replace(belief=belief, fit=model.fit.replace(num_rows=buffer.size))
    data = inducing_rows(parts, key, model, buffer)
    first = first_hyperparameters(parts)
    warm, cold = _mean_evidence(belief.hyper, data), _mean_evidence(first, data)
    choose = ensemble.lift(lambda better, new, old: jax.tree.map(lambda n, o: jnp.where(better, n, o), new, old))
    hyper = choose(warm > cold, belief.hyper, first)
    fit = model.fit.replace(
        running=jnp.ones((), bool),
        iteration=jnp.zeros((), jnp.int32),
        rising=jnp.ones((), bool),
        evidence=jnp.where(warm > cold, warm, cold),
        optimizer=new_optimizer(parts, hyper),
    )
    # Rows do not change during a fit, so checking them once is enough.
    quantities = {
        "a real row": fit_passes.stored_magnitude(buffer),
        "the input normaliser": belief.inputs,
        **health.each("the evidence of {}", parts.names, fit.evidence),
    }
    return model.replace(belief=belief.replace(hyper=hyper), fit=fit), Report({}, (_watch(quantities),))


def maximise(parts: Parts, key: Key, model: GpState, buffer: Replay) -> tuple[GpState, Report]:
    """Takes a few iterations of L-BFGS on the evidence of each target."""
    data = inducing_rows(parts, key, model, buffer)
    iterate = ensemble.lift(functools.partial(_iterate, parts, data))

    def step(carry: PyTree, _: None) -> tuple[PyTree, tuple[Array, Array]]:
        hyper, optimizer, loss, gradient = iterate(*carry, data.y)
        return (hyper, optimizer), (loss, gradient)

    carry, num_iterations = (model.belief.hyper, model.fit.optimizer), parts.config.fit_slice_iterations
    (hyper, optimizer), (losses, gradients) = jax.lax.scan(step, carry, None, num_iterations)
    evidence = _mean_evidence(hyper, data)
    fit = model.fit.replace(
        iteration=model.fit.iteration + num_iterations,
        rising=jnp.any(evidence - model.fit.evidence > LEAST_RISE),
        evidence=evidence,
        optimizer=optimizer,
    )
    quantities = {
        **health.each("the evidence of {}", parts.names, losses.T),
        **health.each("the gradient of the evidence of {}", parts.names, gradients.T),
    }
    watched = health.watch(quantities, keep=1, unit=UNIT).replace(first=model.fit.iteration)
    return model.replace(belief=model.belief.replace(hyper=hyper), fit=fit), Report({}, (watched,))


def finish(parts: Parts, key: Key, model: GpState, buffer: Replay) -> tuple[GpState, Report]:
    """Ends a fit: computes the posterior from all rows."""
    data = inducing_rows(parts, key, model, buffer)
    posterior = _posterior(parts, model, data, buffer)
    belief = model.belief.replace(posterior=posterior, x=data.x)
    fit = model.fit.replace(running=jnp.zeros((), bool))
    noise = ensemble.lift(lambda hyper: jnp.sqrt(regression.total_noise(hyper)))(belief.hyper)
    metrics = {
        "explained_share_per_target": _explained_shares(belief.hyper, data),
        "evidence_per_target": fit.evidence,
        "noise_std_per_target": noise * belief.targets.std,
        "inducing_rows": jnp.sum(data.used),
        "iterations": fit.iteration,
    }
    quantities = {
        **health.each("the posterior weights of {}", parts.names, ensemble.lift(health.magnitude)(posterior.weights)),
        **health.each("the posterior variance of {}", parts.names, ensemble.lift(health.magnitude)(posterior.known)),
    }
    watched = _watch(quantities).replace(first=fit.iteration)
    return model.replace(belief=belief, fit=fit), Report(metrics, (watched,))


def due(parts: Parts, model: GpState) -> Array:
    """Returns the index [] of the next program."""
    more = model.fit.rising & (model.fit.iteration < parts.config.fit_max_iterations)
    return jnp.where(model.fit.running, jnp.where(more, MAXIMISE, FINISH), FINISHED)


def _watch(quantities: dict[str, PyTree]) -> Watched:
    return health.watch(quantities, unit=UNIT)


# -- what the programs compute ---------------------------------------------------------------------------------------


def inducing_rows(parts: Parts, key: Key, model: GpState, buffer: Replay) -> InducingRows:
    """Draws the inducing rows of a fit, without replacement; all its programs draw the same, as they share a key."""
    index, num_rows = jnp.arange(parts.config.inducing_rows), model.fit.num_rows
    age = permutation.shuffled(permutation.round_keys(key), jnp.minimum(index, num_rows - 1), num_rows)
    x, y = scaled_rows(parts, model.belief, buffer, age)
    return InducingRows(x, y, index < num_rows, jnp.where(index < num_rows, age, NOT_A_ROW))


def scaled_rows(parts: Parts, belief: GpBelief, buffer: Replay, age: Array) -> tuple[Array, Array]:
    """Returns scaled inputs [B, I] and targets [D, B] of the rows with these ages [B]."""
    x, y = fit_rows.examples(parts.encoding, buffer, age)
    return normalizer.normalize(belief.inputs, x), normalizer.normalize(belief.targets, y).T


def _mean_evidence(hyper: Hyperparameters, data: InducingRows) -> Array:
    """Returns the evidence [D] in nats per inducing row."""
    return -ensemble.lift(functools.partial(_loss, data))(data.y, hyper)


def _loss(data: InducingRows, y: Array, hyper: Hyperparameters) -> Array:
    return -regression.evidence(hyper, Rows(data.x, y, data.used)) / jnp.sum(data.used)


def _iterate(
    parts: Parts, data: InducingRows, hyper: Hyperparameters, optimizer: PyTree, y: Array
) -> tuple[Hyperparameters, PyTree, Array, Array]:
    """Takes one iteration for one target; also returns its loss [] and its gradient's largest magnitude []."""
    loss = functools.partial(_loss, data, y)
    value, gradient = optax.value_and_grad_from_state(loss)(hyper, state=optimizer)
    updates, optimizer = parts.optimizer.update(gradient, optimizer, hyper, value=value, grad=gradient, value_fn=loss)
    return optax.apply_updates(hyper, updates), _strong(optimizer), value, health.magnitude(gradient)


def _posterior(parts: Parts, model: GpState, data: InducingRows, buffer: Replay) -> Posterior:
    """Returns the posterior of each target given all rows, which are added block by block."""
    hyper, num_rows = model.belief.hyper, model.fit.num_rows

    def add_block(number: Array, sums: Sums) -> Sums:
        index = number * BLOCK_ROWS + jnp.arange(BLOCK_ROWS)
        x, y = scaled_rows(parts, model.belief, buffer, jnp.minimum(index, num_rows - 1))
        inside = index < num_rows
        same = inside[None, :] & (data.age[:, None] == index[None, :])

        def add(hyper: Hyperparameters, sums: Sums, y: Array) -> Sums:
            return regression.add_rows(hyper, data.x, data.used, sums, Rows(x, y, inside), same)

        return ensemble.lift(add)(hyper, sums, y)

    sums = ensemble.lift(lambda hyper: regression.no_rows(hyper, data.x, data.used))(hyper)
    sums = jax.lax.fori_loop(0, batching.largest(-(-num_rows // BLOCK_ROWS)), add_block, sums)
    return ensemble.lift(lambda sums: regression.posterior(sums, data.used))(sums)


def _explained_shares(hyper: Hyperparameters, data: InducingRows) -> Array:
    """Returns the share [D] of each target's variance at inducing rows that the other inducing rows explain."""

    def share(hyper: Hyperparameters, y: Array) -> Array:
        rows = Rows(data.x, y, data.used)
        count = jnp.sum(rows.used)
        variance = jnp.sum(jnp.square(y - jnp.sum(y * rows.used) / count) * rows.used)
        error = jnp.sum(jnp.square(regression.left_out_errors(hyper, rows)))
        return jnp.where(variance > 0.0, 1.0 - error / jnp.where(variance > 0.0, variance, 1.0), 1.0)

    return ensemble.lift(share)(hyper, data.y)
