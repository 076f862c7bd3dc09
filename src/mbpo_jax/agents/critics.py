"""Code shared by actor-critic agents: their knobs, their critics, and what `health` watches in them.

There are M critics, stacked by `ensemble`; M = 1 is a single critic. All of them learn the same target.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from mbpo_jax import batching, ensemble, health, learner, networks
from mbpo_jax.learner import Learner
from mbpo_jax.options import check, option
from mbpo_jax.types import Array, Key, PyTree, Regression, Spec, Watched

CHECK_STATE_UPDATES = 100
"""Updates between checks of all weights and moments; a check costs a few hundredths of an update."""


@dataclasses.dataclass(frozen=True)
class ActorCriticConfig:
    """Knobs of all agents that use these critics."""

    discount: float = option(0.99, "Reward discount per environment step.", minimum=0.0, maximum=1.0)
    hidden_units: int = option(256, "Units of each hidden layer of actor and critics.", minimum=1, maximum=2**16)
    num_hidden_layers: int = option(2, "Hidden layers of actor and critics.", minimum=1, maximum=100)
    num_critics: int = option(2, "Number of critics; targets use the smallest of their values.", minimum=1, maximum=100)
    learning_rate: float = option(
        3e-4, "Adam step size of actor and critics, and of SAC's log-temperature.", minimum=0.0, maximum=1.0
    )
    target_update_rate: float = option(
        0.005,
        "Share of the critics (DDPG, TD3: also of the actor) that moves into their targets at a target update.",
        minimum=0.0,
        maximum=1.0,
    )

    def __post_init__(self) -> None:
        check(self)


class Critics(NamedTuple):
    """The static parts of M critics, passed to the functions below; parameters and states are [M, ...]."""

    network: networks.Critic | networks.SmoothCritic
    optimizer: optax.GradientTransformation
    names: tuple[str, ...]  # M, for messages


def build(config: ActorCriticConfig, optimizer: optax.GradientTransformation) -> Critics:
    """Builds the critics from the config."""
    return Critics(networks.Critic(config.hidden_units, config.num_hidden_layers), optimizer, names(config.num_critics))


def names(num_critics: int) -> tuple[str, ...]:
    """Returns the names of the critics for messages."""
    return ("the critic",) if num_critics == 1 else tuple(f"critic {i}" for i in range(num_critics))


def init(critics: Critics, key: Key, spec: Spec) -> Learner:
    """Returns the initial state of M critics."""

    def init_one(key: Key) -> Learner:
        params = critics.network.init(key, jnp.zeros(spec.obs_dim), jnp.zeros(spec.action_dim))["params"]
        return learner.init(critics.optimizer, params)

    return ensemble.init_members(init_one, key, len(critics.names))


def apply(critics: Critics, params: PyTree, obs: Array, action: Array) -> Array:
    """Returns q [M, B] of every critic for obs [B, O] and action [B, A]."""

    def apply_one(params: PyTree, obs: Array, action: Array) -> Array:
        return critics.network.apply({"params": params}, obs, action)  # type: ignore[return-value]

    q: Array = ensemble.lift(apply_one, (0, None, None))(params, obs, action)
    return q


def apply_first(critics: Critics, params: PyTree, obs: Array, action: Array) -> Array:
    """Returns q [B] of critic 0 alone."""
    return critics.network.apply({"params": ensemble.member(params, 0)}, obs, action)  # type: ignore[return-value]


def losses(q: Array, target: Array, weight: Array | None = None) -> Array:
    """Returns half the squared error [M] of each critic's q [M, R] to the shared target [R], averaged over R.

    Args:
      weight: [R], of the rows in the average; None: all equal.
    """
    chex.assert_shape(target, q.shape[1:])
    squares = jnp.square(q - target[None])
    if weight is None:
        return 0.5 * jnp.mean(squares, axis=-1)
    chex.assert_equal_shape([weight, target])
    return 0.5 * (squares @ weight) / jnp.maximum(jnp.sum(weight), 1.0)


def loss(q: Array, target: Array, weight: Array | None = None) -> Array:
    """Returns the sum of `losses` over M."""
    return jnp.sum(losses(q, target, weight))


def regress(critics: Critics, state: Learner, rows: Regression) -> tuple[Learner, Array, Array, dict[str, Array]]:
    """Takes one step of every critic towards the targets of R rows.

    Returns:
      The critics; their loss []; q [M, R] before the step; losses and gradients by name, for `health` to watch.
    """

    def loss_of(params: PyTree) -> tuple[Array, Array]:
        q = apply(critics, params, rows.obs, rows.action)
        return loss(q, rows.target, rows.weight), q

    (total, q), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    watched = {
        **health.each("{}'s loss", critics.names, losses(q, rows.target, rows.weight)),
        **health.each("{}'s gradient", critics.names, ensemble.lift(health.bias_magnitude)(grads)),
    }
    step = ensemble.lift(lambda critic, grads: learner.step(critics.optimizer, critic, grads))
    return step(state, grads), total, q, watched


# -- weights and moments: too many to watch at every update ----------------------------------------------------------


def check_is_due(num_before: Array, num_after: Array) -> Array:
    """Returns whether a multiple of CHECK_STATE_UPDATES lies in (num_before, num_after]; bool []."""
    return num_after // CHECK_STATE_UPDATES > num_before // CHECK_STATE_UPDATES


def watch_state(critics: Critics, actor: Learner, state: Learner, targets: PyTree, due: Array) -> Watched:
    """Measures the magnitudes of all weights and moments if `due` []; otherwise reports zeros, which pass as sound.

    Args:
      actor, state: learners of the actor and of the critics [M, ...].
      targets: target weights: (the actor's or (), the critics' [M, ...]).
    """
    owners = ("the actor", *critics.names)

    def measure() -> Array:
        lifted = ensemble.lift(health.magnitude)
        weights = [health.magnitude((actor.params, targets[0]))[None], lifted((state.params, targets[1]))]
        # The square root, because Adam's second moment is of squared gradients.
        moments = [jnp.sqrt(health.magnitude(actor.opt_state)[None]), jnp.sqrt(lifted(state.opt_state))]
        return jnp.concatenate([*weights, *moments])

    values = jax.lax.cond(batching.anywhere(due), measure, lambda: jnp.zeros(2 * len(owners)))
    names = tuple(f"a {part} of {owner}" for part in ("weight", "moment of Adam") for owner in owners)
    return Watched(values[None], names=names)


def scan_updates(
    update_once: Callable[..., tuple[PyTree, tuple[dict[str, Array], Watched]]], state: PyTree, xs: PyTree
) -> tuple[PyTree, dict[str, Array], Watched]:
    """Runs updates one after another; metrics are averaged over them, magnitudes are kept for each update."""
    state, (metrics, watched) = jax.lax.scan(lambda state, x: update_once(state, *x), state, xs)
    return state, jax.tree.map(jnp.mean, metrics), watched
