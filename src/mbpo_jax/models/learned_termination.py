"""A world model that also learns when episodes end, for tasks without a known termination function.

A small classifier looks at (obs, action, next_obs). It is trained on equal numbers of terminal and other rows, and
predicts termination where its logit exceeds a threshold: the one with the best F1 score (of precision and recall) on
held-out rows. Time limits are not terminal; data sets and buffers keep them apart.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from mbpo_jax import health, learner, normalizer, replay
from mbpo_jax.learner import Learner
from mbpo_jax.networks import Classifier
from mbpo_jax.normalizer import Normalizer
from mbpo_jax.replay import Replay
from mbpo_jax.types import FINISHED, Array, Key, Programs, PyTree, Report, Spec, Transition, WorldModel

HIDDEN_UNITS, NUM_HIDDEN_LAYERS, LEARNING_RATE = 64, 2, 1e-3
GRADIENT_STEPS = 500  # of a fit; parameters carry over to the next one
BATCH_SIZE = 256  # half of it terminal
HELD_OUT_ONE_IN = 5  # rows
FEW = 100  # rows of a kind, of which every fifth is held out; by chance there might be none
JUDGED_ROWS = 4096  # held-out rows of each kind on which the threshold is chosen
SCALE_ROWS = 4096  # rows from which the scale of the inputs is measured
ABOVE_ALL, MIDDLE = jnp.inf, 0.0  # logit thresholds where nothing was learnt, and without held-out rows to choose one


class Ends(struct.PyTreeNode, kw_only=True):
    """The termination classifier."""

    network: Learner
    inputs: Normalizer  # [2 O + A]
    threshold: Array  # [], of the logit; inf: nothing is terminal


class ModelWithEnds(struct.PyTreeNode, kw_only=True):
    """A world model and its termination classifier."""

    world: PyTree
    ends: Ends
    pending: Array  # [], bool: the world model was fitted, but the classifier not yet


class BeliefWithEnds(struct.PyTreeNode, kw_only=True):
    """What predicting needs of a model and of the classifier of its ends."""

    world: PyTree
    params: PyTree
    inputs: Normalizer
    threshold: Array


class Parts(NamedTuple):
    """The static parts of a classifier, passed to the functions below."""

    network: Classifier
    optimizer: optax.GradientTransformation


def build(world: WorldModel, spec: Spec) -> WorldModel:
    """Returns the world model with a classifier as its `ends`, fitted right after it."""
    parts = Parts(Classifier(HIDDEN_UNITS, NUM_HIDDEN_LAYERS), optax.adam(LEARNING_RATE))
    return WorldModel(
        init=functools.partial(init, parts, world, spec),
        fit=_fit(parts, world),
        belief=functools.partial(_belief, world),
        predict=lambda belief, obs, action: world.predict(belief.world, obs, action),
        sample=lambda key, belief, group, obs, action: world.sample(key, belief.world, group, obs, action),
        expect=lambda belief, group, obs, action: world.expect(belief.world, group, obs, action),
        num_groups=world.num_groups,
        ends=functools.partial(is_end, parts),
    )


def init(parts: Parts, world: WorldModel, spec: Spec, key: Key) -> ModelWithEnds:
    """Returns a model that has not been fitted and never predicts termination."""
    key_world, key_ends = jax.random.split(key)
    num_inputs = 2 * spec.obs_dim + spec.action_dim
    params = parts.network.init(key_ends, jnp.zeros(num_inputs))["params"]
    return ModelWithEnds(
        world=world.init(key_world),
        ends=Ends(
            network=learner.init(parts.optimizer, params),
            inputs=normalizer.identity(num_inputs),
            threshold=jnp.asarray(ABOVE_ALL, jnp.float32),
        ),
        pending=jnp.zeros((), bool),
    )


def is_end(parts: Parts, belief: BeliefWithEnds, obs: Array, action: Array, next_obs: Array) -> Array:
    """Returns whether the steps (obs [B, O], action [B, A], next_obs [B, O]) are terminal; bool [B]."""
    x = normalizer.normalize(belief.inputs, jnp.concatenate([next_obs, obs, action], -1))
    return _logit(parts, belief.params, x) > belief.threshold


def _belief(world: WorldModel, model: ModelWithEnds) -> BeliefWithEnds:
    ends = model.ends
    return BeliefWithEnds(
        world=world.belief(model.world), params=ends.network.params, inputs=ends.inputs, threshold=ends.threshold
    )


def _logit(parts: Parts, params: PyTree, x: Array) -> Array:
    return parts.network.apply({"params": params}, x)  # type: ignore[return-value]


# -- the fit ---------------------------------------------------------------------------------------------------------


def _fit(parts: Parts, world: WorldModel) -> Programs:
    """Returns the programs of the world model's fit, followed by one that fits the classifier."""
    own = len(world.fit.functions)

    def lift(number: int) -> Callable[..., tuple[ModelWithEnds, Report]]:
        def program(key: Key, model: ModelWithEnds, real: Replay) -> tuple[ModelWithEnds, Report]:
            fitted, report = world.fit.functions[number](key, model.world, real)
            return model.replace(world=fitted, pending=jnp.ones((), bool)), report

        return program

    def fit_ends(key: Key, model: ModelWithEnds, real: Replay) -> tuple[ModelWithEnds, Report]:
        ends, report = fit(parts, key, model.ends, real)
        return model.replace(ends=ends, pending=jnp.zeros((), bool)), report

    def due(model: ModelWithEnds) -> Array:
        inside = jnp.asarray(world.fit.due(model.world), jnp.int32)
        return jnp.where(inside == FINISHED, jnp.where(model.pending, own, FINISHED), inside)

    return Programs((*map(lift, range(own)), fit_ends), due)


def fit(parts: Parts, key: Key, ends: Ends, real: Replay) -> tuple[Ends, Report]:
    """Fits the classifier and chooses its threshold; learns nothing unless there are training rows of both kinds."""
    key_scale, key_rows, key_held = jax.random.split(key, 3)
    scale = _examples(replay.sample(key_scale, real, (SCALE_ROWS,)))
    mean = scale[0] + jnp.mean(scale - scale[0], 0)  # from differences, so that constants have variance 0
    ends = ends.replace(inputs=normalizer.from_moments(mean, jnp.mean(jnp.square(scale - mean), 0)))

    kinds = _Kinds(real)
    keys = jax.random.split(key_rows, 2)
    half = (GRADIENT_STEPS, BATCH_SIZE // 2)
    rows = [kinds.draw(k, terminal, False, half) for k, terminal in zip(keys, (True, False))]
    x = normalizer.normalize(ends.inputs, jnp.concatenate([_examples(some) for some in rows], 1))
    y = jnp.broadcast_to(jnp.arange(BATCH_SIZE) < half[1], x.shape[:2]).astype(jnp.float32)
    network, losses = jax.lax.scan(functools.partial(_step, parts), ends.network, (x, y))
    both = (kinds.count(True, False) > 0) & (kinds.count(False, False) > 0)
    network = jax.tree.map(lambda new, old: jnp.where(both, new, old), network, ends.network)

    threshold, metrics = _choose(parts, key_held, network.params, ends.inputs, kinds)
    ends = ends.replace(network=network, threshold=jnp.where(both, threshold, ABOVE_ALL))
    watched = health.watch(
        {"the loss of the classifier of ends": jnp.where(both, losses, 0.0)}, keep=1, unit="fit step"
    )
    loss = jnp.where(both, losses[-1], 0.0)
    return ends, Report(metrics | {"termination_loss": loss}, (watched,))


def _step(parts: Parts, network: Learner, batch: tuple[Array, Array]) -> tuple[Learner, Array]:
    x, y = batch

    def loss_of(params: PyTree) -> Array:
        return jnp.mean(optax.sigmoid_binary_cross_entropy(_logit(parts, params, x), y))

    loss, grads = jax.value_and_grad(loss_of)(network.params)
    return learner.step(parts.optimizer, network, grads), loss


def _choose(
    parts: Parts, key: Key, params: PyTree, inputs: Normalizer, kinds: "_Kinds"
) -> tuple[Array, dict[str, Array]]:
    """Returns the threshold with the best F1 on held-out rows, and precision, recall and share of terminal rows there.

    Equal numbers of both kinds are drawn, then weighted by how many there are, so that rare terminal rows count.
    """

    def logits(key: Key, terminal: bool) -> Array:
        rows = kinds.draw(key, terminal, True, (JUDGED_ROWS,))
        return _logit(parts, params, normalizer.normalize(inputs, _examples(rows)))

    key_ends, key_others = jax.random.split(key)
    ended, others = jnp.sort(logits(key_ends, True)), jnp.sort(logits(key_others, False))
    num_ended, num_others = kinds.count(True, True), kinds.count(False, True)
    recall, precision = rates(ended, ended, others, num_ended, num_others)
    f1 = 2.0 * precision * recall / jnp.maximum(precision + recall, 1e-12)
    best = jnp.argmax(f1)
    # Halfway between the logit of a terminal row and the next lower logit, so that this row counts as terminal.
    below = jnp.max(
        jnp.where(jnp.concatenate([ended, others]) < ended[best], jnp.concatenate([ended, others]), -jnp.inf)
    )
    middle = jnp.where(jnp.isfinite(below), 0.5 * (below + ended[best]), ended[best] - 1.0)
    known = (num_ended > 0) & (num_others > 0)
    metrics = {
        "termination_precision": jnp.where(known, precision[best], 0.0),
        "termination_recall": jnp.where(known, recall[best], 0.0),
        "termination_fraction": num_ended / jnp.maximum(num_ended + num_others, 1),
    }
    return jnp.where(known, middle, MIDDLE), metrics


def rates(at: Array, ended: Array, others: Array, num_ended: Array, num_others: Array) -> tuple[Array, Array]:
    """Returns recall and precision [C] of predicting termination at logits of at least `at` [C].

    Args:
      ended, others: logits of terminal and other rows, each sorted.
      num_ended, num_others: how many rows these stand for.
    """
    recall = 1.0 - jnp.searchsorted(ended, at) / ended.size
    false = 1.0 - jnp.searchsorted(others, at) / others.size
    right = recall * num_ended
    return recall, right / jnp.maximum(right + false * num_others, 1e-12)


def _examples(rows: Transition) -> Array:
    return jnp.concatenate([rows.next_obs, rows.obs, rows.action], -1)


class _Kinds:
    """The buffer's valid rows, by whether they are terminal and whether they are held out, to draw from."""

    def __init__(self, real: Replay) -> None:
        age = jnp.arange(replay.capacity(real))
        slot = (real.head - real.size + age) % replay.capacity(real)
        inside, terminal = age < real.size, real.rows.terminal[slot] > 0.5
        held_out = _drawn(real.num_added - real.size + age) % HELD_OUT_ONE_IN == 0
        for kind in (terminal, ~terminal):
            count = jnp.cumsum(inside & kind)
            held_out = jnp.where(kind & (count[-1] < FEW), count % HELD_OUT_ONE_IN == 0, held_out)
        self._real = real
        self._up_to = {  # rows of a kind up to each age
            (ends, held): jnp.cumsum(inside & (terminal == ends) & (held_out == held))
            for ends in (True, False)
            for held in (True, False)
        }

    def count(self, terminal: bool, held_out: bool) -> Array:
        """Returns the number of rows of a kind."""
        return self._up_to[terminal, held_out][-1]

    def draw(self, key: Key, terminal: bool, held_out: bool, shape: tuple[int, ...]) -> Transition:
        """Draws rows of a kind with replacement; if there are none, the returned rows are meaningless."""
        up_to = self._up_to[terminal, held_out]
        number = jax.random.randint(key, shape, 0, jnp.maximum(up_to[-1], 1))
        age = jnp.searchsorted(up_to, number, side="right")
        return replay.take(self._real, jnp.minimum(age, self._real.size - 1))


def _drawn(number: Array) -> Array:
    """Returns a random number for each number of a row, always the same: ends may come at a regular distance."""
    mixed = number.astype(jnp.uint32)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        mixed = (mixed ^ (mixed >> shift)) * jnp.uint32(factor)
    return mixed ^ (mixed >> 16)
