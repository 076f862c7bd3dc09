"""Fitting an ensemble: bootstrap, held-out early stopping, best snapshots, elites.

A fit is a series of compiled calls of bounded length: one starts it, others take a slice of minibatches or a single
one, and one ends each epoch. This lets the driver show progress and stop, and gives loops over minibatches a static
length. `fit_rows.py` chooses the rows, `fit_passes.py` computes over all of them; `Member` is the network that is
fitted, `Encoding` its inputs and targets.

References: Janner et al. 2019 (MBPO), official code `models/bnn.py`.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from mbpo_jax import batching, ensemble, health, learner, normalizer
from mbpo_jax.learner import Learner
from mbpo_jax.models import fit_passes, fit_rows
from mbpo_jax.models.encoding import Encoding
from mbpo_jax.models.fit_rows import Split
from mbpo_jax.models.member import Member
from mbpo_jax.models.state import EnsembleState, FitState, GaussianConfig, belief
from mbpo_jax.normalizer import Normalizer
from mbpo_jax.replay import Replay
from mbpo_jax.types import FINISHED, Array, Key, Programs, PyTree, Report, Watched

SLICE, SINGLE, END_EPOCH = 1, 2, 3  # programs of a fit; 0 starts it
UNIT = "fit step"  # a gradient step, as `health` counts them

Minibatch = tuple[Array, Array, Array]  # inputs [M, B, I], targets [M, B, D], weights [B]


class Fit(NamedTuple):
    """The static parts of an ensemble's fit, passed to the functions below."""

    config: GaussianConfig
    member: Member
    encoding: Encoding
    optimizer: optax.GradientTransformation
    few_rows: tuple[int, int] = (0, 1)  # (rows, factor of the most gradient steps of a fit over at most so many)

    @property
    def names(self) -> tuple[str, ...]:
        """Returns the names of the members for messages."""
        return tuple(f"member {i}" for i in range(self.config.num_members))


def build(fit: Fit) -> Programs:
    """Returns the programs of a fit."""
    functions = (
        functools.partial(start, fit),
        functools.partial(take_minibatches, fit, fit.config.fit_slice_minibatches),
        functools.partial(take_minibatches, fit, 1),
        functools.partial(end_epoch, fit),
    )
    return Programs(functions, functools.partial(due, fit))


def no_fit(params: PyTree, num_members: int) -> FitState:
    """Returns the state before any fit has run."""
    zero = jnp.zeros((), jnp.int32)
    return FitState(
        running=jnp.zeros((), bool),
        num_rows=zero,
        epoch=zero,
        minibatch=zero,
        num_steps=zero,
        epochs_since_improvement=zero,
        best_params=jax.tree.map(jnp.zeros_like, params),
        best_mse=jnp.full(num_members, jnp.inf, jnp.float32),
    )


# -- the programs, and which one is next -----------------------------------------------------------------------------


def start(fit: Fit, key: Key, model: EnsembleState, buffer: Replay) -> tuple[EnsembleState, Report]:
    """Starts a fit over the rows in the buffer: sets the held-out split, and the scales of inputs and targets."""
    key_split, _ = jax.random.split(key)
    split = fit_rows.split_rows(key_split, buffer.size, buffer.num_added, fit.config)
    model = model.replace(
        inputs=fit_passes.training_moments(fit.encoding, split, buffer),
        targets=_target_moments(fit, split, buffer),
        fit=no_fit(model.members.params, fit.config.num_members).replace(
            running=jnp.ones((), bool), num_rows=buffer.size, best_params=model.members.params
        ),
    )
    # Rows do not change during a fit, so checking them once is enough.
    watched = health.watch(
        {"a real row": fit_passes.stored_magnitude(buffer), "the input normaliser": model.inputs}, unit=UNIT
    )
    return model, Report({}, (watched,))


def _target_moments(fit: Fit, split: Split, buffer: Replay) -> Normalizer | None:
    """Returns the scale of the targets; None if they are learnt unscaled."""
    if not fit.config.scale_targets:
        return None
    return fit_passes.training_moments(fit.encoding, split, buffer, use_targets=True)


def take_minibatches(
    fit: Fit, num_minibatches: int, key: Key, model: EnsembleState, buffer: Replay
) -> tuple[EnsembleState, Report]:
    """Takes a gradient step on each of `num_minibatches` minibatches, whose rows are all gathered before the first."""
    key_split, key_rows = jax.random.split(key)
    now = model.fit
    split = fit_rows.split_rows(key_split, now.num_rows, buffer.num_added, fit.config)
    minibatch = now.minibatch + jnp.arange(num_minibatches)
    age = fit_rows.bootstrap_rows(key_rows, split, now.epoch, minibatch, fit.config)
    x, y = fit_rows.examples(fit.encoding, buffer, age)
    weights = fit_rows.minibatch_weights(split, minibatch, fit.config)
    minibatches = normalizer.normalize(model.inputs, x), normalizer.normalize(model.targets, y), weights
    step = functools.partial(gradient_step, fit, key=jax.random.fold_in(key, 2) if fit.member.random_loss else None)
    model, (loss, watched) = jax.lax.scan(step, model, minibatches)
    metrics = {"train_loss_mean": jnp.mean(loss[-1])}
    return model, Report(metrics, (watched.replace(first=now.num_steps),))


def end_epoch(fit: Fit, key: Key, model: EnsembleState, buffer: Replay) -> tuple[EnsembleState, Report]:
    """Snapshots the members that improved on held-out rows; ends the fit if none has for too long, or steps run out."""
    config, member = fit.config, fit.member
    key_split, _ = jax.random.split(key)
    split = fit_rows.split_rows(key_split, model.fit.num_rows, buffer.num_added, config)
    mse = fit_passes.holdout_mse(member, fit.encoding, split, buffer, belief(model))
    watched = _watch_epoch(fit, mse, model.members)
    before = model.fit
    # 1 - mse / best exceeds the threshold; written so that the first epoch, with best = inf, improves too
    improved = mse < (1.0 - config.fit_improvement) * before.best_mse
    keep = ensemble.lift(lambda better, new, old: jax.tree.map(lambda n, o: jnp.where(better, n, o), new, old))
    waited = jnp.where(jnp.any(improved), 0, before.epochs_since_improvement + 1)
    after = before.replace(
        epoch=before.epoch + 1,
        minibatch=jnp.zeros((), jnp.int32),
        epochs_since_improvement=waited,
        best_params=keep(improved, model.members.params, before.best_params),
        best_mse=jnp.where(improved, mse, before.best_mse),
        running=(waited <= config.fit_patience_epochs) & (_steps_left(fit, before) > 0),
    )
    model = jax.lax.cond(after.running, lambda m: m, lambda m: _finish(config, m), model.replace(fit=after))
    metrics = {
        "explained_share_per_target": _explained_shares(fit, split, buffer, model),
        "holdout_mse_per_member": after.best_mse,
        "holdout_mse_elite_mean": jnp.mean(after.best_mse[model.elites]),
        "elites": model.elites,
        "epochs": after.epoch,
        "gradient_steps": after.num_steps,
    }
    reported = metrics | member.metrics(model.shared.params)
    return model, Report(reported, (watched.replace(first=before.num_steps - 1),))


def due(fit: Fit, model: EnsembleState) -> Array:
    """Returns the index [] of the next program."""
    config, now = fit.config, model.fit
    num_train = now.num_rows - fit_rows.num_holdout_rows(now.num_rows, config)
    num_minibatches = fit_rows.num_epoch_minibatches(num_train, config)
    left = jnp.minimum(num_minibatches - now.minibatch, _steps_left(fit, now))
    in_epoch = jnp.where(left >= config.fit_slice_minibatches, SLICE, jnp.where(left > 0, SINGLE, END_EPOCH))
    return jnp.where(now.running, in_epoch, FINISHED)


def _finish(config: GaussianConfig, model: EnsembleState) -> EnsembleState:
    """Restores every member's best snapshot, and makes the best members the elites."""
    elites = jnp.argsort(model.fit.best_mse)[: config.num_elites].astype(jnp.int32)
    return model.replace(members=model.members.replace(params=model.fit.best_params), elites=elites)


def _explained_shares(fit: Fit, split: Split, buffer: Replay, model: EnsembleState) -> Array:
    """Returns the share [D] of each target's variance that the elites explain once a fit has ended; zeros before."""

    def compute() -> Array:
        return fit_passes.explained_shares(fit.member, fit.encoding, split, buffer, belief(model))

    ended = batching.anywhere(~model.fit.running)
    return jax.lax.cond(ended, compute, lambda: jnp.zeros(fit.encoding.num_targets))


def _most_steps(fit: Fit, now: FitState) -> Array | int:
    """Returns how many gradient steps [] a fit may take."""
    rows, factor = fit.few_rows
    most = fit.config.fit_max_gradient_steps
    if not most:
        return jnp.iinfo(jnp.int32).max
    return most if factor == 1 else most * jnp.where(now.num_rows <= rows, factor, 1)


def _steps_left(fit: Fit, now: FitState) -> Array:
    return _most_steps(fit, now) - now.num_steps


# -- one gradient step -----------------------------------------------------------------------------------------------


def gradient_step(
    fit: Fit, model: EnsembleState, minibatch: Minibatch, key: Key | None = None
) -> tuple[EnsembleState, tuple[Array, Watched]]:
    """Takes one step of every member and of what they share; also returns each member's loss [M].

    Args:
      key: the fit's, if the loss is random; every step and every member draws its own from it.
    """
    keys = (
        None if key is None else jax.random.split(jax.random.fold_in(key, model.fit.num_steps), fit.config.num_members)
    )
    share = _step_share(fit, model.fit)
    update = ensemble.lift(functools.partial(_update_member, fit, share), (0, None, 0, 0, None, 0))
    members, shared_grads, loss, gradient = update(model.members, model.shared.params, *minibatch, keys)
    own_grads = jax.grad(fit.member.shared_loss)(model.shared.params)
    shared_grads = jax.tree.map(lambda grads, own: jnp.sum(grads, 0) + own, shared_grads, own_grads)
    model = model.replace(
        members=members,
        shared=learner.step(fit.optimizer, model.shared, shared_grads, share),
        fit=model.fit.replace(minibatch=model.fit.minibatch + 1, num_steps=model.fit.num_steps + 1),
    )
    quantities = {
        **health.each("{}'s loss", fit.names, loss),
        **health.each("{}'s gradient", fit.names, gradient),
        "the gradient of what the members share": shared_grads,
    }
    return model, (loss, health.watch(quantities, unit=UNIT))


def _step_share(fit: Fit, now: FitState) -> Array | None:
    """Returns the factor [] of the step size at this point of a fit; None: always 1."""
    if not fit.config.fit_decay_fraction:
        return None
    most = _most_steps(fit, now)
    return jnp.minimum(1.0, (most - now.num_steps) / (fit.config.fit_decay_fraction * most))


def _update_member(
    fit: Fit,
    share: Array | None,
    member: Learner,
    shared: PyTree,
    x: Array,
    y: Array,
    weights: Array,
    key: Key | None,
) -> tuple[Learner, PyTree, Array, Array]:
    """Steps a member, scaled by `share`; returns it, shared gradients, its loss [] and its bias gradient []."""
    loss, (grads, shared_grads) = jax.value_and_grad(fit.member.loss, argnums=(0, 1))(
        member.params, shared, x, y, weights, key
    )
    return learner.step(fit.optimizer, member, grads, share), shared_grads, loss, health.bias_magnitude(grads)


def _watch_epoch(fit: Fit, mse: Array, members: Learner) -> Watched:
    """Watches held-out errors [M], and all weights and moments, which are too many to watch at every step."""
    lifted = ensemble.lift(health.magnitude)
    quantities = {
        **health.each("{}'s held-out error", fit.names, mse),
        **health.each("a weight of {}", fit.names, lifted(members.params)),
        # The square root, because Adam's second moment is of squared gradients.
        **health.each("a moment of Adam of {}", fit.names, jnp.sqrt(lifted(members.opt_state))),
    }
    return health.watch(quantities, unit=UNIT)
