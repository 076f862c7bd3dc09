"""What actor-critic agents share: their knobs, their critics, and what health looks at in them.

There are M critics, stacked by `ensemble`; one of them is M = 1. Every one learns the same target.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax
from flax.training.train_state import TrainState

from mbpo_jax import ensemble, health
from mbpo_jax.health import Health
from mbpo_jax.networks import Critic
from mbpo_jax.options import check, option
from mbpo_jax.types import Array, Key, PyTree, Spec

CHECK_STATE_UPDATES = 100
"""Updates from one look at all weights and moments to the next; one look costs a few hundredths of an update."""


@dataclasses.dataclass(frozen=True)
class ActorCriticConfig:
    """Knobs that every actor-critic agent has."""

    discount: float = option(0.99, "Reward discount per environment step.", minimum=0.0, maximum=1.0)
    hidden_units: int = option(256, "Units of each hidden layer of actor and critics.", minimum=1, maximum=2**16)
    num_hidden_layers: int = option(2, "Hidden layers of actor and critics.", minimum=1, maximum=100)
    learning_rate: float = option(
        3e-4, "Adam step size of actor and critics, and of SAC's log-temperature.", minimum=0.0, maximum=1.0
    )
    target_update_rate: float = option(
        0.005,
        "Share of the critics (DDPG, TD3: and of the actor) that moves into their targets whenever these move.",
        minimum=0.0,
        maximum=1.0,
    )

    def __post_init__(self) -> None:
        check(self)


class Critics(NamedTuple):
    """Critics as pure functions; `params` and `state` are [M, ...]."""

    init: Callable[[Key], TrainState]  # (key) -> state
    apply: Callable[[PyTree, Array, Array], Array]  # (params, obs [B, O], action [B, A]) -> q [M, B]
    apply_first: Callable[[PyTree, Array, Array], Array]  # the same -> q [B], of critic 0 alone
    loss_and_grads: Callable[[PyTree, Array, Array, Array], tuple[tuple[Array, Array], PyTree]]
    """(params, obs, action, target [B]) -> ((loss [], q [M, B]), gradients)."""


def build(config: ActorCriticConfig, spec: Spec, optimizer: optax.GradientTransformation, num_critics: int) -> Critics:
    """The critics of these knobs."""
    network = Critic(config.hidden_units, config.num_hidden_layers)

    def apply_one(params: PyTree, obs: Array, action: Array) -> Array:
        return network.apply({"params": params}, obs, action)  # type: ignore[return-value]

    apply = ensemble.lift(apply_one, (0, None, None))

    def init_one(key: Key) -> TrainState:
        params = network.init(key, jnp.zeros(spec.obs_dim), jnp.zeros(spec.action_dim))["params"]
        return TrainState.create(apply_fn=network.apply, params=params, tx=optimizer)

    def loss_and_grads(params: PyTree, obs: Array, action: Array, target: Array) -> tuple[tuple[Array, Array], PyTree]:
        def loss(params: PyTree) -> tuple[Array, Array]:
            q = apply(params, obs, action)
            return critic_loss(q, target), q

        return jax.value_and_grad(loss, has_aux=True)(params)

    return Critics(
        init=lambda key: ensemble.init_members(init_one, key, num_critics),
        apply=apply,
        apply_first=lambda params, obs, action: apply_one(ensemble.member(params, 0), obs, action),
        loss_and_grads=loss_and_grads,
    )


def critic_losses(q: Array, target: Array) -> Array:
    """Half the squared error of every critic q [M, B] to the one target [B], averaged over B; [M]."""
    chex.assert_shape(target, q.shape[1:])
    return 0.5 * jnp.mean(jnp.square(q - target[None]), axis=-1)


def critic_loss(q: Array, target: Array) -> Array:
    """`critic_losses`, summed over M."""
    return jnp.sum(critic_losses(q, target))


def apply_gradients(critics: TrainState, grads: PyTree) -> TrainState:
    """One step of every critic's own optimizer; all [M, ...]."""
    stepped: TrainState = ensemble.lift(lambda critic, grads: critic.apply_gradients(grads=grads))(critics, grads)
    return stepped


# -- health --------------------------------------------------------------------------------------------------------


def names(num_critics: int) -> tuple[str, ...]:
    """What the critics are called."""
    return ("the critic",) if num_critics == 1 else tuple(f"critic {i}" for i in range(num_critics))


def names_of_updates(critics: Sequence[str]) -> tuple[str, ...]:
    """What is looked at of the critics in every update, in causal order; of gradients, the biases'."""
    return (*(f"{critic}'s loss" for critic in critics), *(f"{critic}'s gradient" for critic in critics))


def names_of_state(critics: Sequence[str]) -> tuple[str, ...]:
    """What is looked at once in CHECK_STATE_UPDATES: all of it."""
    return tuple(
        f"a {part} of {network}" for part in ("weight", "moment of Adam") for network in ("the actor", *critics)
    )


def look_at_state(actor: tuple[PyTree, PyTree], critics: tuple[PyTree, PyTree]) -> Array:
    """Magnitudes of `names_of_state`; a root of the moments, for one of them is of squared gradients.

    Args:
      actor, critics: (weights, those of targets among them, and moments); those of the critics are [M, ...].
    """
    of_critics = ensemble.lift(health.magnitude)
    weights, moments = ([health.magnitude(a)[None], of_critics(c)] for a, c in zip(actor, critics))
    return jnp.concatenate([*weights, *map(jnp.sqrt, moments)])


def health_of(
    names_of_update: Sequence[str],
    magnitudes: Array,
    names_of_state: Sequence[str],
    look: Callable[[], Array],
    due: Array | bool,
) -> Health:
    """The health of G updates.

    Args:
      magnitudes: [G, Q], of the Q `names_of_update`.
      look: magnitudes of `names_of_state` after the last update, which are looked at where `due` [].
    """
    of_state = jax.lax.cond(due, look, lambda: jnp.zeros(len(names_of_state)))
    return health.merge(
        health.first_trouble(names_of_update, magnitudes),
        health.first_trouble(names_of_state, of_state[None], len(magnitudes) - 1),
    )


def look_is_due(num_before: Array | int, num_after: Array | int) -> Array | bool:
    """Whether an update after the first count, up to the second, is a CHECK_STATE_UPDATES-th; bool []."""
    return num_after // CHECK_STATE_UPDATES > num_before // CHECK_STATE_UPDATES
