"""Behaviour cloning: an actor that regresses on the recorded actions, without critics.

References: Pomerleau 1988; the baseline of Fujimoto & Gu 2021, "A Minimalist Approach to Offline RL", which also uses
the squared error.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from mbpo_jax import health, learner
from mbpo_jax.agents import td3
from mbpo_jax.learner import Learner
from mbpo_jax.networks import DeterministicActor
from mbpo_jax.options import check, option
from mbpo_jax.types import OWN, Agent, Array, Key, Learning, PyTree, Report, Spec, Transition


@dataclasses.dataclass(frozen=True)
class CloningConfig:
    """Knobs of behaviour cloning."""

    hidden_units: int = option(256, "Units of each hidden layer of the actor.", minimum=1, maximum=2**16)
    num_hidden_layers: int = option(2, "Hidden layers of the actor.", minimum=1, maximum=100)
    learning_rate: float = option(3e-4, "Adam step size of the actor.", minimum=0.0, maximum=1.0)
    exploration_noise_std: float = option(
        0.1,
        "Standard deviation of the Gaussian exploration noise, as a share of half the action range.",
        minimum=0.0,
    )

    def __post_init__(self) -> None:
        check(self)


class CloningState(struct.PyTreeNode, kw_only=True):
    """Everything that an update reads or changes."""

    actor: Learner


class Cloning(NamedTuple):
    """The static parts of an agent, passed to the functions below."""

    config: CloningConfig
    spec: Spec
    actor: DeterministicActor
    optimizer: optax.GradientTransformation


def build(config: CloningConfig, spec: Spec) -> Agent:
    """Builds behaviour cloning for the observations of a task and its actions, in [-1, 1]."""
    actor = DeterministicActor(spec.action_dim, config.hidden_units, config.num_hidden_layers)
    cloning = Cloning(config, spec, actor, optax.adam(config.learning_rate))
    return Agent(
        init=functools.partial(init, cloning),
        actor=lambda state: state.actor.params,
        act=functools.partial(act, cloning),
        update=functools.partial(update, cloning),
    )


def init(cloning: Cloning, key: Key) -> CloningState:
    """Returns the agent's initial state."""
    params = cloning.actor.init(key, jnp.zeros(cloning.spec.obs_dim))["params"]
    return CloningState(actor=learner.init(cloning.optimizer, params))


def act(cloning: Cloning, key: Key, actor_params: PyTree, obs: Array, explores: bool) -> Array:
    """Returns actions [B, A], with exploration noise if `explores`."""
    action: Array = cloning.actor.apply({"params": actor_params}, obs)  # type: ignore[assignment]
    if not explores:
        return action
    return td3.explore(action, jax.random.normal(key, action.shape), cloning.config.exploration_noise_std)


def loss(action: Array, target: Array) -> Array:
    """Returns the squared error [] of actions [B, A], averaged over rows and dimensions."""
    return jnp.mean(jnp.square(action - target))


def update(
    cloning: Cloning, key: Key, state: CloningState, batches: Transition, learning: Learning = OWN
) -> tuple[CloningState, Report]:
    """Takes G updates on batches [G, B, ...] in one scan; metrics are means over them. `learning` is ignored."""
    del key, learning

    def update_once(state: CloningState, batch: Transition) -> tuple[CloningState, tuple[Array, Array]]:
        def loss_of(params: PyTree) -> Array:
            return loss(cloning.actor.apply({"params": params}, batch.obs), batch.action)  # type: ignore[arg-type]

        value, grads = jax.value_and_grad(loss_of)(state.actor.params)
        actor = learner.step(cloning.optimizer, state.actor, grads)
        return CloningState(actor=actor), (value, health.bias_magnitude(grads))

    state, (losses, gradients) = jax.lax.scan(update_once, state, batches)
    watched = health.watch({"the actor's loss": losses, "the actor's gradient": gradients}, keep=1)
    return state, Report({"actor_loss": jnp.mean(losses)}, (watched,))
