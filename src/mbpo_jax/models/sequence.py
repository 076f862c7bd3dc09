"""A deterministic model of dynamics and reward, fitted to unrolled sequences of real rows, a few minibatches at a time.

It works on scaled observations. Its state [B, O + L] is an observation [B, O] and the network's memory [B, L]; L = 0
for a network without memory.

Reference: Amos et al. 2021 (SAC-SVG); the authors' code, facebookresearch/svg@ce28852, `svg/dx.py`.
"""

import dataclasses
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax
from flax import struct

from mbpo_jax import health, learner, replay
from mbpo_jax.learner import Learner
from mbpo_jax.networks import Recurrent, Scalar
from mbpo_jax.normalizer import Normalizer, denormalize, normalize
from mbpo_jax.options import check, option
from mbpo_jax.replay import Replay
from mbpo_jax.types import Array, Dynamics, Key, Metrics, PyTree, Report, Spec, Transition, Watched

MLP, GRU = "mlp", "gru"
RECURRENT_LAYERS = 2  # of a model with memory
UNIT = "gradient step"


@dataclasses.dataclass(frozen=True)
class SequenceConfig:
    """Knobs of the model and of its fit."""

    dynamics: str = option(
        MLP,
        "Network of the dynamics: feed-forward (mlp), or recurrent (gru), which remembers earlier steps.",
        choices=(MLP, GRU),
    )
    model_hidden_units: int = option(256, "Units of each layer of the model.", minimum=1, maximum=2**16)
    model_hidden_layers: int = option(2, "Hidden layers of the model.", minimum=1, maximum=100)
    model_learning_rate: float = option(1e-3, "Adam step size of the model.", minimum=0.0, maximum=1.0)
    model_batch_size: int = option(256, "Sequences in a minibatch of the fit.", minimum=1)
    fit_minibatches: int = option(4, "Minibatches of a fit; there is one fit per environment step.", minimum=1)
    fit_gradient_norm: float = option(
        1.0, "Largest norm of the dynamics' gradient; larger gradients are scaled down to it.", minimum=1e-6
    )

    def __post_init__(self) -> None:
        check(self)


class SequenceModel(NamedTuple):
    """The static parts of a model, passed to the functions below."""

    config: SequenceConfig
    spec: Spec  # with a termination function
    length: int  # rows in a sequence
    network: Recurrent
    reward: Scalar
    optimizer: optax.GradientTransformation
    reward_optimizer: optax.GradientTransformation


class SequenceState(struct.PyTreeNode, kw_only=True):
    """The full state, for learning and predicting."""

    dynamics: Learner
    reward: Learner


def build(config: SequenceConfig, spec: Spec, length: int) -> SequenceModel:
    """Builds the model from its config, to be fitted to sequences of `length` rows."""
    size = config.model_hidden_units, config.model_hidden_layers
    adam = optax.adam(config.model_learning_rate)
    return SequenceModel(
        config=config,
        spec=spec,
        length=length,
        network=Recurrent(spec.obs_dim, *size, RECURRENT_LAYERS if config.dynamics == GRU else 0),
        reward=Scalar(*size),
        optimizer=optax.chain(optax.clip_by_global_norm(config.fit_gradient_norm), adam),
        reward_optimizer=adam,
    )


def init(model: SequenceModel, key: Key) -> SequenceState:
    """Returns a model that has not been fitted."""
    key_dynamics, key_reward = jax.random.split(key)
    state, action = initial_state(model, jnp.zeros((1, model.spec.obs_dim))), jnp.zeros((1, model.spec.action_dim))
    obs, memory = _parts(model, state)
    x = jnp.concatenate([obs, action], -1)
    return SequenceState(
        dynamics=learner.init(model.optimizer, model.network.init(key_dynamics, memory, x)["params"]),
        reward=learner.init(model.reward_optimizer, model.reward.init(key_reward, x)["params"]),
    )


# -- predicting ------------------------------------------------------------------------------------------------------


def initial_state(model: SequenceModel, obs: Array) -> Array:
    """Returns the states [B, O + L] of scaled observations [B, O], with an empty memory."""
    return jnp.pad(obs, ((0, 0), (0, model.network.num_recurrent_layers * model.network.hidden_units)))


def observe(model: SequenceModel, state: Array) -> Array:
    """Returns the scaled observations [..., O] of states [..., O + L]."""
    return state[..., : model.spec.obs_dim]


def next_state(model: SequenceModel, params: PyTree, state: Array, action: Array) -> Array:
    """Returns the states [B, O + L] after actions [B, A]."""
    obs, memory = _parts(model, state)
    memory, change = model.network.apply({"params": params}, memory, jnp.concatenate([obs, action], -1))
    return jnp.concatenate([obs + change, memory], -1)


def scaled_dynamics(model: SequenceModel, state: SequenceState, scale: Normalizer) -> Dynamics:
    """Returns the dynamics of states [B, O + L], with the task's own termination and, if known, reward function."""
    assert model.spec.termination_fn is not None
    ends, reward_fn = model.spec.termination_fn, model.spec.reward_fn

    def step(key: Key, group: Array, before: Array, action: Array) -> tuple[Array, Array, Array]:
        after = next_state(model, state.dynamics.params, before, action)
        scaled = observe(model, before)
        obs, next_obs = denormalize(scale, scaled), denormalize(scale, observe(model, after))
        if reward_fn is None:
            reward = predict_reward(model, state.reward.params, scaled, action)
        else:
            reward = reward_fn(obs, action, next_obs)
        return after, reward, ends(obs, action, next_obs)

    return Dynamics(step)


def dynamics(model: SequenceModel, state: SequenceState, scale: Normalizer) -> Dynamics:
    """Returns the dynamics of unscaled observations [B, O]; a model with memory starts each step with it empty."""
    move = scaled_dynamics(model, state, scale).step_fn

    def step(key: Key, group: Array, obs: Array, action: Array) -> tuple[Array, Array, Array]:
        after, reward, ends = move(key, group, initial_state(model, normalize(scale, obs)), action)
        return denormalize(scale, observe(model, after)), reward, ends

    return Dynamics(step)


def predict_reward(model: SequenceModel, params: PyTree, obs: Array, action: Array) -> Array:
    """Returns the reward [...] of actions [..., A] at scaled observations [..., O]."""
    return model.reward.apply({"params": params}, jnp.concatenate([obs, action], -1))  # type: ignore[return-value]


def unroll(model: SequenceModel, params: PyTree, start_obs: Array, actions: Array) -> Array:
    """Returns the observations [T, B, O] predicted for actions [T, B, A], starting from scaled observations [B, O].

    Every step starts from the previous prediction, through which no gradient flows; it flows through the network's
    memory.
    """

    def step(state: Array, action: Array) -> tuple[Array, Array]:
        obs, memory = _parts(model, state)
        state = next_state(model, params, jnp.concatenate([jax.lax.stop_gradient(obs), memory], -1), action)
        return state, observe(model, state)

    return jax.lax.scan(step, initial_state(model, start_obs), actions)[1]


# -- the fit ---------------------------------------------------------------------------------------------------------


def loss(predicted: Array, target: Array, weight: Array) -> Array:
    """Returns the squared error of predictions [..., D], averaged over D and, by their weights [...], over rows."""
    chex.assert_equal_shape([predicted, target])
    chex.assert_shape(weight, target.shape[:-1])
    squares = jnp.mean(jnp.square(predicted - target), axis=-1)
    return jnp.sum(weight * squares) / jnp.maximum(jnp.sum(weight), 1.0)


def fit(
    model: SequenceModel, key: Key, state: SequenceState, scale: Normalizer, real: Replay
) -> tuple[SequenceState, Report]:
    """Takes the gradient steps of a fit in one scan; metrics are means over them."""

    def draw_and_step(state: SequenceState, key: Key) -> tuple[SequenceState, tuple[Metrics, Watched]]:
        rows, inside = replay.sequences(key, real, (model.config.model_batch_size,), model.length)
        rows = rows.replace(obs=normalize(scale, rows.obs), next_obs=normalize(scale, rows.next_obs))
        return fit_once(model, state, rows, inside.astype(jnp.float32))

    keys = jax.random.split(key, model.config.fit_minibatches)
    state, (metrics, watched) = jax.lax.scan(draw_and_step, state, keys)
    return state, Report(jax.tree.map(jnp.mean, metrics), (watched,))


def fit_once(
    model: SequenceModel, state: SequenceState, rows: Transition, weight: Array
) -> tuple[SequenceState, tuple[Metrics, Watched]]:
    """Takes one step on sequences [T, B, ...] of scaled rows, weighted by `weight` [T, B]."""

    def dynamics_loss(params: PyTree) -> Array:
        return loss(unroll(model, params, rows.obs[0], rows.action), rows.next_obs, weight)

    def reward_loss(params: PyTree) -> Array:
        predicted = predict_reward(model, params, rows.obs, rows.action)
        return loss(predicted[..., None], rows.reward[..., None], weight)

    error, grads = jax.value_and_grad(dynamics_loss)(state.dynamics.params)
    reward_error, reward_grads = jax.value_and_grad(reward_loss)(state.reward.params)
    state = SequenceState(
        dynamics=learner.step(model.optimizer, state.dynamics, grads),
        reward=learner.step(model.reward_optimizer, state.reward, reward_grads),
    )
    watched = {
        "a real row": rows,
        "the model's loss": (error, reward_error),
        "the model's gradient": health.bias_magnitude((grads, reward_grads)),
    }
    metrics = {"obs_loss": error, "reward_loss": reward_error, "inside_fraction": jnp.mean(weight)}
    return state, (metrics, health.watch(watched, unit=UNIT))


def _parts(model: SequenceModel, state: Array) -> tuple[Array, Array]:
    """Returns the observations [..., O] and the memory [..., L] of states [..., O + L]."""
    return state[..., : model.spec.obs_dim], state[..., model.spec.obs_dim :]
