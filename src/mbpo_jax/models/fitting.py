"""Fitting the Gaussian ensemble: bootstrap, held-out early stopping, best snapshots, elites.

A fit is a series of compiled calls of bounded length: one begins it, others take a slice of minibatches or a single
one, one ends each epoch. So the driver can show progress and stop, and loops over minibatches have a static length.
Which rows it sees is a matter of `fit_rows.py`.

References: Janner et al. 2019 (MBPO), official code `models/bnn.py`.
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
from flax.training.train_state import TrainState

from mbpo_jax import backends, distributions, ensemble, health, normalizer, replay
from mbpo_jax.health import Health
from mbpo_jax.models import fit_rows
from mbpo_jax.models.fit_rows import Split
from mbpo_jax.models.gaussian_state import FitState, GaussianConfig, GaussianState
from mbpo_jax.networks import GaussianMlp
from mbpo_jax.normalizer import Normalizer
from mbpo_jax.replay import Replay
from mbpo_jax.types import FINISHED, Array, Key, Metrics, ProgramFn, Programs, PyTree

LOG_VAR_BOUND_WEIGHT = 0.01  # of sum(max_log_var) - sum(min_log_var) in the loss
SLICE, SINGLE, END_EPOCH = 1, 2, 3  # programs of a fit; 0 begins it
UNIT = "fit step"  # of the gradient, as health counts them


def idle(params: PyTree, num_members: int) -> FitState:
    """No fit has run yet."""
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
        train_loss=jnp.zeros(num_members),
    )


def weight_penalty(params: PyTree, weight_decays: tuple[float, ...]) -> Array:
    """Sum over layers of decay * |W|^2 / 2; biases are free. The two heads share the last value."""
    *hidden, last = weight_decays
    decays = {f"layer_{i}": decay for i, decay in enumerate(hidden)} | {"mean": last, "log_var": last}
    return sum(0.5 * decay * jnp.sum(jnp.square(params[name]["kernel"])) for name, decay in decays.items())  # type: ignore[return-value]


def gradient_step(
    config: GaussianConfig, network: GaussianMlp
) -> Callable[[GaussianState, tuple[Array, Array, Array]], tuple[GaussianState, Array]]:
    """One step of every member and of the bounds on a minibatch (inputs [M, B, I], targets [M, B, D], weights [B]).

    It returns the magnitudes of the "steps" of `names_of_health` as well.
    """

    def member_loss(params: PyTree, bounds: PyTree, x: Array, y: Array, weights: Array) -> Array:
        mean, raw_log_var = network.apply({"params": params}, x)
        log_var = distributions.bound_log_var(raw_log_var, bounds["min"], bounds["max"])
        nll = distributions.gaussian_nll(mean, log_var, y)
        chex.assert_equal_shape([weights, nll])
        return jnp.sum(weights * nll) + weight_penalty(params, config.model_weight_decays)

    def update_member(
        member: TrainState, bounds: PyTree, x: Array, y: Array, weights: Array
    ) -> tuple[TrainState, PyTree, Array, Array]:
        loss, (grads, bound_grads) = jax.value_and_grad(member_loss, argnums=(0, 1))(
            member.params, bounds, x, y, weights
        )
        return member.apply_gradients(grads=grads), bound_grads, loss, health.bias_magnitude(grads)

    update_members = ensemble.lift(update_member, (0, None, 0, 0, None))

    def step(model: GaussianState, minibatch: tuple[Array, Array, Array]) -> tuple[GaussianState, Array]:
        x, y, weights = minibatch
        members, bound_grads, loss, gradient = update_members(model.members, model.log_var_bounds.params, x, y, weights)
        bound_grads = jax.tree.map(lambda grads: jnp.sum(grads, 0), bound_grads)  # the bounds serve all members
        bound_grads = {
            "max": bound_grads["max"] + LOG_VAR_BOUND_WEIGHT,
            "min": bound_grads["min"] - LOG_VAR_BOUND_WEIGHT,
        }
        fit = model.fit
        model = model.replace(
            members=members,
            log_var_bounds=model.log_var_bounds.apply_gradients(grads=bound_grads),
            fit=fit.replace(minibatch=fit.minibatch + 1, num_steps=fit.num_steps + 1, train_loss=loss),
        )
        return model, jnp.concatenate([jnp.abs(loss), gradient, health.magnitude(bound_grads)[None]])

    return step


def build(config: GaussianConfig, network: GaussianMlp) -> Programs:
    """The fit of an ensemble of `network`."""
    names, step = names_of_health(config.num_members), gradient_step(config, network)

    def look(start: Array, **magnitudes: Array) -> Health:
        """Health from magnitudes [U, ...] of parts of `names`; the others were not looked at."""
        num_updates = next(iter(magnitudes.values())).shape[0]
        values = [magnitudes.get(part, jnp.zeros((num_updates, len(names[part])))) for part in names]
        return health.first_trouble(sum(names.values(), ()), jnp.concatenate(values, -1), start, UNIT)

    def slice_of(num_minibatches: int) -> ProgramFn:
        """The program that takes so many minibatches; their rows are found and gathered before the first step."""

        def run(key: Key, model: GaussianState, buffer: Replay) -> tuple[GaussianState, Metrics]:
            key_split, key_rows = jax.random.split(key)
            fit, batch_size = model.fit, config.model_batch_size
            split = fit_rows.split_rows(key_split, fit.num_rows, config)
            minibatch = fit.minibatch + jnp.arange(num_minibatches)
            age = fit_rows.bootstrap_rows(key_rows, split, fit.epoch, minibatch, config.num_members, batch_size)
            x, y = fit_rows.inputs_and_targets(buffer, age)
            weights = fit_rows.minibatch_weights(split, minibatch, batch_size)
            model, magnitudes = jax.lax.scan(step, model, (normalizer.normalize(model.inputs, x), y, weights))
            return model, metrics(model, look(fit.num_steps, steps=magnitudes))

        return run

    def begin(key: Key, model: GaussianState, buffer: Replay) -> tuple[GaussianState, Metrics]:
        key_split, _ = jax.random.split(key)
        fit = idle(model.members.params, config.num_members)
        rows = stored_magnitude(buffer)
        model = model.replace(
            inputs=training_moments(fit_rows.split_rows(key_split, buffer.size, config), buffer),
            fit=fit.replace(running=jnp.ones((), bool), num_rows=buffer.size, best_params=model.members.params),
        )
        inputs = health.magnitude(model.inputs)
        return model, metrics(model, look(fit.num_steps, data=jnp.stack([rows, inputs])[None]))

    def end_epoch(key: Key, model: GaussianState, buffer: Replay) -> tuple[GaussianState, Metrics]:
        key_split, _ = jax.random.split(key)
        fit = model.fit
        split = fit_rows.split_rows(key_split, fit.num_rows, config)
        mse = holdout_mse(network, split, buffer, model.inputs, model.members.params)
        of_members = ensemble.lift(health.magnitude)
        weights, moments = of_members(model.members.params), jnp.sqrt(of_members(model.members.opt_state))
        seen = look(fit.num_steps - 1, epoch=jnp.concatenate([mse, weights, moments])[None])
        # 1 - mse / best exceeds the threshold; written so that the first epoch, with best = inf, improves too
        improved = mse < (1.0 - config.fit_improvement) * fit.best_mse
        keep = ensemble.lift(lambda better, new, old: jax.tree.map(lambda n, o: jnp.where(better, n, o), new, old))
        waited = jnp.where(jnp.any(improved), 0, fit.epochs_since_improvement + 1)
        fit = fit.replace(
            epoch=fit.epoch + 1,
            minibatch=jnp.zeros((), jnp.int32),
            epochs_since_improvement=waited,
            best_params=keep(improved, model.members.params, fit.best_params),
            best_mse=jnp.where(improved, mse, fit.best_mse),
            running=(waited <= config.fit_patience_epochs) & (_steps_allowed(config, fit) > 0),
        )
        model = jax.lax.cond(fit.running, lambda m: m, lambda m: _finish(config, m), model.replace(fit=fit))
        return model, metrics(model, seen)

    programs = begin, slice_of(config.fit_slice_minibatches), slice_of(1), end_epoch
    return Programs(programs, lambda model: _due(config, model.fit))


def _finish(config: GaussianConfig, model: GaussianState) -> GaussianState:
    """Every member at its best snapshot, and the best members as elites."""
    elites = jnp.argsort(model.fit.best_mse)[: config.num_elites].astype(jnp.int32)
    return model.replace(members=model.members.replace(params=model.fit.best_params), elites=elites)


def _steps_allowed(config: GaussianConfig, fit: FitState) -> Array:
    most = config.fit_max_gradient_steps or jnp.iinfo(jnp.int32).max
    return most - fit.num_steps


def _due(config: GaussianConfig, fit: FitState) -> Array:
    """The number of the program that is due, []."""
    num_train = fit.num_rows - fit_rows.num_holdout_rows(fit.num_rows, config)
    num_minibatches = -(-num_train // config.model_batch_size)
    left = jnp.minimum(num_minibatches - fit.minibatch, _steps_allowed(config, fit))
    in_epoch = jnp.where(left >= config.fit_slice_minibatches, SLICE, jnp.where(left > 0, SINGLE, END_EPOCH))
    return jnp.where(fit.running, in_epoch, FINISHED)


def names_of_health(num_members: int) -> dict[str, tuple[str, ...]]:
    """What the programs of a fit look at, in causal order: when a fit begins, in every step, when an epoch ends.

    Rows are looked at once, for they do not change during a fit; of gradients, the biases' (`health.bias_magnitude`).
    """

    def each(part: str) -> tuple[str, ...]:
        return tuple(part.format(f"member {i}") for i in range(num_members))

    return {
        "data": ("a real row", "the input normaliser"),
        "steps": (*each("{}'s loss"), *each("{}'s gradient"), "the gradient of the bounds of the log-variance"),
        "epoch": (*each("{}'s held-out error"), *each("a weight of {}"), *each("a moment of Adam of {}")),
    }


def stored_magnitude(buffer: Replay) -> Array:
    """`health.magnitude` of a buffer's rows, in one pass over blocks of them in the order of memory."""
    num_slots = replay.capacity(buffer)
    block_rows = min(backends.choices().block_rows, num_slots)

    def look_at_block(i: Array, largest: Array) -> Array:
        start = jnp.minimum(i * block_rows, num_slots - block_rows)
        rows = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, block_rows), buffer.rows)
        return jnp.maximum(largest, health.magnitude(rows))

    # Rows fill the slots from the first on, and are in force from then on.
    return jax.lax.fori_loop(0, -(-buffer.size // block_rows), look_at_block, jnp.zeros(()))


def training_moments(split: Split, buffer: Replay) -> Normalizer:
    """Mean and standard deviation of the training rows' inputs, in passes over blocks of rows.

    Both are sums of differences from one of the rows, so that what never changes has a spread of exactly 0: sums of
    the values themselves are rounded, and the rounding would pass for a spread.
    """
    block_rows = backends.choices().block_rows
    first, _ = fit_rows.inputs_and_targets(buffer, split.train(jnp.zeros(1, jnp.int32)))  # [1, I]

    def average(fn: Callable[[Array], Array]) -> Array:
        def add_block(i: Array, total: Array) -> Array:
            index = i * block_rows + jnp.arange(block_rows)
            x, _ = fit_rows.inputs_and_targets(buffer, split.train(jnp.minimum(index, split.num_train - 1)))
            return total + jnp.sum(jnp.where((index < split.num_train)[:, None], fn(x), 0.0), 0)

        num_blocks = -(-split.num_train // block_rows)
        return jax.lax.fori_loop(0, num_blocks, add_block, jnp.zeros_like(first[0])) / split.num_train

    mean = first[0] + average(lambda x: x - first)
    return normalizer.from_moments(mean, average(lambda x: jnp.square(x - mean[None])))


def holdout_mse(network: GaussianMlp, split: Split, buffer: Replay, inputs: Normalizer, params: PyTree) -> Array:
    """Each member's squared error [M] on the held-out rows, averaged over rows and target dimensions.

    Without held-out rows (`holdout_fraction` 0) the training rows stand in for them.
    """
    apply_members = ensemble.lift(lambda p, x: network.apply({"params": p}, x)[0], (0, None))
    num_rows = jnp.where(split.num_holdout > 0, split.num_holdout, split.num_train)
    block_rows = backends.choices().block_rows

    def add_block(i: Array, total: Array) -> Array:
        index = i * block_rows + jnp.arange(block_rows)
        x, y = fit_rows.inputs_and_targets(buffer, split.holdout(jnp.minimum(index, num_rows - 1)))
        error = jnp.mean(jnp.square(apply_members(params, normalizer.normalize(inputs, x)) - y[None]), -1)
        return total + jnp.sum(jnp.where(index < num_rows, error, 0.0), -1)

    num_members = jax.tree.leaves(params)[0].shape[0]
    return jax.lax.fori_loop(0, -(-num_rows // block_rows), add_block, jnp.zeros(num_members)) / num_rows


def metrics(model: GaussianState, seen: Health) -> Metrics:
    """What a reader wants to know of a fit; true once it has finished."""
    return {
        "holdout_mse_per_member": model.fit.best_mse,
        "holdout_mse_elite_mean": jnp.mean(model.fit.best_mse[model.elites]),
        "elites": model.elites,
        "epochs": model.fit.epoch,
        "gradient_steps": model.fit.num_steps,
        "train_loss_mean": jnp.mean(model.fit.train_loss),
        "max_log_var_mean": jnp.mean(model.log_var_bounds.params["max"]),
        "min_log_var_mean": jnp.mean(model.log_var_bounds.params["min"]),
        "health": seen,
    }
